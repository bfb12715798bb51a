package calls

import "github.com/trimaran-io/trimaran/fsm"

// HoldCommitsRequest has the coordinator of transactions of a shard hold commits, or let go.
type HoldCommitsRequest struct {
	Shard fsm.PartitionID
	Hold  uint64 // to let go; 0: to begin
}

var holdCommitsCall = Call[HoldCommitsRequest, uint64]{
	request: fixed(ErrMalformed,
		func(f fields, q HoldCommitsRequest) fields { return f.partition(q.Shard).uint64(q.Hold) },
		func(r *Reader) HoldCommitsRequest {
			q := HoldCommitsRequest{r.Partition(), r.Uint64()}
			r.Bad = r.Bad || q.Shard.Topic != fsm.GroupShardsID
			return q
		}),
	answer: fixed(ErrMalformedAnswer,
		func(f fields, hold uint64) fields { return f.uint64(hold) },
		func(r *Reader) uint64 { return r.Uint64() }),
}
