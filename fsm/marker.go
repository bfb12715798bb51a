package fsm

// Marker ends a transaction in one partition, or in one group's pending offsets: the coordinator
// of the transaction has it written there as a control batch once its decision is replicated.
type Marker struct {
	ProducerID int64
	// Epoch is the producer's. Where each transaction has an epoch of its own (version 2 of the
	// protocol, KIP-890) it is one more than that of the transaction that ends.
	Epoch int16
	// Number counts the transactions of the producer id, from 1, wrapping as RFC 1982 says: two
	// numbers are compared by the sign of their difference. A partition takes each number once. So
	// a marker that comes again, however late, ends nothing, also where the next transaction has
	// the same epoch (version 1). In the log it stands as the coordinator's epoch.
	Number int32
	Commit bool
	// Forced is an operator's (kafka-transactions abort): it aborts what this producer has open
	// with this epoch, whatever its number.
	Forced bool
}

// Follows reports whether the marker's number comes behind last.
func (m Marker) Follows(last int32) bool { return m.Number-last > 0 }

// Transaction is what the sender of transactional records says of them besides what stands in the
// batches. The zero value: they belong to none.
type Transaction struct {
	ID string // transactional id, at most 65535 bytes; never empty
	// Add has the leader add the partition to the transaction (version 2 of the protocol, KIP-890);
	// else it asks the coordinator whether the client has.
	Add bool
}
