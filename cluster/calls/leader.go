package calls

import "github.com/trimaran-io/trimaran/fsm"

// Nodes with the first programs ask for a partition's leader so; Who has taken its place.
var leaderCall = Call[fsm.PartitionID, Nothing]{request: onPartition(), answer: nothing()}
