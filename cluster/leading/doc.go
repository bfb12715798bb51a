// Package leading sees to it that each group has a leader, and the one that it should have.
//
// You are here: below the node, which says which groups run here and who is there; above beacons
// and Raft (cluster/election, cluster/raftgroup), of which it uses what Member says, and the
// table of calls (cluster/calls). It elects nobody: it has members stand, and Raft's rules decide.
// It does not know what groups are for, but that partitions have a preferred leader.
//
//	failover.go   who stands for election where a group has lost its leader; standing.go: how a
//	              member stands, as others are told
//	handover.go   a leadership is given away without losing a proposal; turns.go: all of them, a few
//	              at a time, when the node stops
//	preferred.go  which leaderships others should have
//	stuck.go      groups whose disk hangs are led by others
//	member.go     what all this needs of a member; seams.go: what tests look at
//
// Lock order: Failover.mu is the only one, and nothing is called while it is held.
package leading
