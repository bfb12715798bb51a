// Package replica is what a node keeps of partitions and of shards of consumer groups: its members
// of their Raft groups, opened and closed as the catalog says, applied, read, copied and rebuilt.
//
// You are here: below the node (cluster), which runs one Set and finds out which node leads; above
// one member of a Raft group (cluster/raftgroup), the disk (cluster/raftlog), the state machines
// (fsm) and the coordinator of consumer groups (coordinator). What a Set needs of its node is the
// interface Host: the catalog, other nodes, room on the disk. This package does not know how nodes
// are reached, who should hold what, or what clients speak.
//
// set.go is the replicas of a node and what is wrong with them, and reconcile.go opens and closes
// them. replica.go is one, whichever it is: who leads, and what it does while it leads. records.go
// is a partition's, read.go and lookup.go how it is read, readmemory.go into which memory,
// aborted.go which transactions readers are told of, with what keptcache.go has in memory;
// proposer.go is how records get into it, lines.go in which order; shard.go and shardleader.go are
// that for a shard, renew.go what a shard gets that has lost something. Both propose through
// pump.go. members.go has the group's members be those that the catalog names; catchup.go copies
// what a replica is behind by; housekeeping.go takes snapshots, and retention.go lets go of what is
// too old. hurt.go and rebuild.go are what becomes of damage, which scrub.go looks for.
//
// # Locks
//
// From the outside in, what is further down may be taken under what is above it:
//   - Replica.copying, which is held over the disk and the network
//   - a proposer's producersMu
//   - Replica.mu
//
// Set.mu, progress.mu, appliedTo.mu, keptCache.mu and aside.mu are taken alone, and nothing under
// them. But for copying, nothing waits for a disk, a network or another goroutine while it holds
// one of these. Raft's calls into a state machine come one after the other and hold none. The log
// (raftlog) has locks of its own: it is called without any of these but copying.
package replica
