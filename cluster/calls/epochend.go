package calls

import "github.com/trimaran-io/trimaran/fsm"

// EpochEndRequest asks a partition's leader where an epoch ends.
type EpochEndRequest struct {
	Partition fsm.PartitionID
	Epoch     fsm.LeaderEpoch
}

// EpochEndReply is the largest epoch at or below the one asked for, and where the next one begins.
type EpochEndReply struct {
	Epoch fsm.LeaderEpoch
	End   fsm.Offset
}

var epochEndCall = Call[EpochEndRequest, EpochEndReply]{
	request: fixed(ErrMalformed,
		func(f fields, q EpochEndRequest) fields { return f.partition(q.Partition).uint32(uint32(q.Epoch)) },
		func(r *Reader) EpochEndRequest { return EpochEndRequest{r.Partition(), fsm.LeaderEpoch(r.Uint32())} }),
	answer: fixed(ErrMalformedAnswer,
		func(f fields, a EpochEndReply) fields { return f.uint32(uint32(a.Epoch)).uint64(uint64(a.End)) },
		func(r *Reader) EpochEndReply {
			return EpochEndReply{fsm.LeaderEpoch(r.Uint32()), fsm.Offset(r.Uint64())}
		}),
}
