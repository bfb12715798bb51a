package calls

import "github.com/trimaran-io/trimaran/fsm"

// leaveCall has the leader take the caller's replica out of its group, since it may have lost what
// it acknowledged (invariant 7). The answer is a term in which that replica must not vote any more.
var leaveCall = Call[fsm.PartitionID, uint64]{
	request: onPartition(),
	answer:  fixed(ErrMalformedAnswer, fields.uint64, (*Reader).Uint64),
}
