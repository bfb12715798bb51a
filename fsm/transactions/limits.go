package transactions

// Bounds on what is in a command and in a snapshot; what is beyond is malformed. Whoever makes
// commands refuses first.
const (
	// MaxID is the longest transactional id, in bytes; a client with a longer one gets
	// INVALID_REQUEST. Kafka's bound is that of a string, 32767.
	MaxID = 1024
	// MaxGroupID is the longest group id in a transaction, in bytes, as package groups has it.
	MaxGroupID = 1024
	// MaxPartitions and MaxGroups are how many may be in one transaction.
	MaxPartitions = 100_000
	MaxGroups     = 1_000
)
