// Package election is who is alive for its raft groups, what nodes claim, who stands and who leads:
// what the beacons of nodes say, and what follows from them. It owns docs/peer-link.md.
//
// You are here: above cluster/link, which says who is connected, and cluster/raftlink, which
// carries Raft's messages; below package cluster, which turns orphans into elections. The package
// knows nodes by identity and raft groups by name. It does not know topics, partitions, the catalog
// or membership.
//
// With Config.HeartbeatTimeout nodes make claims about their raft groups towards each other, in one
// small message per pair and tenth of a second, so that idle raft groups cost next to nothing, and
// notice who is gone. What may be concluded from a beacon, why, and what must hold for
// it is written down in docs/peer-link.md; its rules are cited by number in the code. Here are kept
//
//   - rule 1 and 3 (heartbeat.go): a beacon that was made after a heartbeat began answers it, and a
//     follower's timer is fed locally while its leader's beacons claim to lead;
//   - rule 7 (candidate.go): a candidate that a voter does not know may have its vote.
//
// Files:
//
//	beacons.go    Beacons: sending beacons, and who is gone
//	still.go      when this process itself stood still
//	reach.go      what is asked about other nodes
//	member.go     Member: one raft group's member here, a raft.Transport
//	poll.go       which raft groups have changed, and which have no leader
//	beacon.go     the beacon as bytes, claims.go what is said in it
//	nodes.go      the other nodes, heard.go what the beacons of one have said
//	heartbeat.go  heartbeats that beacons spare, beats.go to whom a member sends them
//	confirm.go    whether a leader still leads, stand.go making a member stand for election
//
// # Locks
//
// Members' lock comes before those of raftlink's transports. All others are leaves, and calls of
// link.Observer come under locks of the link: nothing is called under a leaf. Nothing is read,
// written or waited for under any.
package election
