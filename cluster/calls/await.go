package calls

import "github.com/trimaran-io/trimaran/fsm"

// AwaitRequest waits at a partition's leader until the record at an offset is committed.
type AwaitRequest struct {
	Partition fsm.PartitionID
	From      fsm.Offset
}

var awaitCall = Call[AwaitRequest, Nothing]{
	request: fixed(ErrMalformed,
		func(f fields, q AwaitRequest) fields { return f.partition(q.Partition).uint64(uint64(q.From)) },
		func(r *Reader) AwaitRequest { return AwaitRequest{r.Partition(), fsm.Offset(r.Uint64())} }),
	answer: nothing(),
}
