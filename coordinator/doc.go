// Package coordinator is Kafka's classic consumer-group protocol: its clocks, and who
// waits for whom.
//
// You are here: groups are spread over Shards internal Raft groups by their id
// (ShardOf). Each has a State, which every replica applies the same commands to; what
// is in it and what commands do to it is package fsm/groups. The replica that leads has
// a Coordinator besides, for as long as its term lasts. It holds what is not replicated,
// who waits in JoinGroup or SyncGroup and when whose session ends, decides which commands
// there are to be, and answers requests in kmsg's structures.
//
// What the package may know: time, through package time; the topics of the catalog
// and how a command is replicated, through functions it is given. It does not know
// the network, the disk, Raft, nor which versions of the protocol a client speaks
// beyond what Client says.
//
// Locks: group.mu guards one group and comes first, then Coordinator.mu, which guards
// the map of groups, then State.mu, which guards the replicated state; two groups are
// never locked at once. Nobody holds any of them while a command is replicated: commands of a group
// go through its queue (writes.go), one at a time and in the order in which they were decided,
// while the group goes on.
//
// The rules are those of Apache Kafka's group coordinator with the classic protocol
// (GroupMetadataManager, ClassicGroup, OffsetMetadataManager; KIP-62, KIP-134,
// KIP-211, KIP-345, KIP-394, KIP-496, KIP-814).
package coordinator
