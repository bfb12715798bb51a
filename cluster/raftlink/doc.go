// Package raftlink is raft.Transport over the link between nodes: Raft's messages in binary, of all
// raft groups of a node over the connections that they share, in pipelines that leave out what was
// said.
//
// You are here: above cluster/link, which carries the bytes, and below cluster/election, which adds
// what beacons make needless. The package knows Raft's messages and what a raft group's own Raft
// says of itself (Raft). What is known of other nodes it asks its Host. It does not know topics,
// partitions or membership.
//
// The rules that are cited by number are those of docs/peer-link.md. Here are kept
//
//   - rule 2 and 4 (notice.go): what was agreed to is not repeated, and a follower hears of a
//     commit;
//   - rule 5 (stall.go): a leader that waits for a commit is woken;
//   - rule 6 and 8 (receive.go): what goes beside Raft's main loop, and in which term one says yes;
//   - rule 9 (ahead.go): entries go to followers while their leader stores them.
//
// Files:
//
//	transports.go the transports of all raft groups of a node; which one a request is for
//	transport.go  Transport: sending one raft group's messages; budget.go what bounds them
//	pipeline.go   AppendEntries without waiting, future.go what Raft waits for
//	ahead.go      AppendEntries before Raft asks for them
//	local.go      this node's member: its Raft, and what was set for it
//	receive.go    the receiving side, install.go snapshots, lane.go its bounded queues
//	codec.go      Raft's messages as bytes, split.go large ones in parts
//
// # Locks
//
// A pipeline's sending comes first, then its mu, then any of the others, which are leaves. Nothing
// is read, written or waited for under a leaf; sending is held while a request waits for its place.
package raftlink
