// Package transaction is Kafka's transaction coordinator: which transactional id has which
// producer id and epoch, what its transaction touches, and how that ends.
//
// You are here: a transactional id lives in the shard of consumer groups that
// coordinator.ShardOf names. Each shard has a State, which every replica applies the same commands
// to; what is in it and what commands do to it is package fsm/transactions. The replica that leads
// has a Coordinator besides, for as long as its term lasts. It decides which commands there are to
// be, answers requests in kmsg's structures, and sees to it that what was decided reaches every
// partition and group: nothing follows from a decision before it is replicated.
//
// What the package may know: time, through package time; the topics of the catalog, how a command
// is replicated and how a marker gets to its partition, through functions it is given. It does not
// know the network, the disk, Raft, nor which versions of the protocol a client speaks beyond what
// Client says.
package transaction
