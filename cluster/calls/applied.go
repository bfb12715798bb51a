package calls

import "github.com/trimaran-io/trimaran/fsm"

// appliedCall asks for the index of the last entry that a replica's state machine has applied.
var appliedCall = Call[fsm.PartitionID, uint64]{
	request: onPartition(),
	answer:  fixed(ErrMalformedAnswer, fields.uint64, (*Reader).Uint64),
}
