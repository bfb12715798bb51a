package calls

import "github.com/trimaran-io/trimaran/fsm"

// producersCall asks a partition's leader for the idempotent producers that it remembers.
var producersCall = Call[fsm.PartitionID, []fsm.ActiveProducer]{
	request: onPartition(), answer: looseJSON[[]fsm.ActiveProducer](ErrMalformedAnswer),
}
