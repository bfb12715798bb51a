// Package transaction is Kafka's transaction coordinator: which transactional id has which producer
// id and epoch, what its transaction touches, and how that ends.
//
// You are here: a transactional id lives in the shard of consumer groups that coordinator.ShardOf
// names. Each shard has a State, which every replica applies the same commands to; what is in it
// and what commands do to it is package fsm/transactions. The replica that leads has a Coordinator
// besides, for as long as its term lasts. It decides which commands there are to be, answers
// requests in kmsg's structures, and sees to it that what was decided reaches every partition and
// group (markers.go): nothing follows from a decision before that is replicated.
//
// What is asked of one id is decided in turn, by one goroutine that works only while there is
// something (line.go). A decision is a pure function of what is replicated. Its command names the
// revision that it was made from, and is void in the state machine if that is no longer there: so a
// command whose fate nobody knows may be applied whenever it will, and never undoes another
// decision.
//
// Whoever makes a backup has commits held for a moment (hold.go).
//
// What the package may know: time, through package time; the topics of the catalog, how a command
// is replicated and how a marker gets to its partition, through functions it is given. It does not
// know the network, the disk, Raft, nor which versions of the protocol a client speaks beyond what
// Client says.
//
// Locks: Coordinator.mu guards the lines and is first; State.mu guards the replicated state, and
// markers.mu what is on its way to partitions. Nothing is waited for under any of them, and no two
// are held at once.
//
// The rules are those of Apache Kafka's TransactionCoordinator and TransactionMetadata (KIP-98,
// KIP-360, KIP-447, KIP-588, KIP-664, KIP-890), with KAFKA-18660 and KAFKA-20090 as they were
// mended. Where Kafka answers CONCURRENT_TRANSACTIONS at once, a request waits a moment for the
// transaction before it to be over, and is then decided in the same command that says so (line.go);
// and an InitProducerId with an epoch of the past is refused before it can abort the transaction of
// the one that came after.
package transaction
