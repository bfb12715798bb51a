// Package peer is the link between nodes: Raft messages of all groups, requests
// that are forwarded from one node to another, and bulk transfers, over a few
// shared connections per pair of nodes.
//
// You are here: below package cluster, above nothing but sockets and the types
// of hashicorp/raft. The package knows nodes by their identity (a string that
// the layer above mints and resolves to addresses), groups by name, and
// forwarded requests by a kind and bytes. It does not know topics, partitions,
// the catalog or membership, and it decides nothing: it says who was heard when
// (Alive, OnDown) and leaves conclusions to others.
//
// # Sessions
//
// Every ordered pair of nodes that has something to say keeps one session, which
// the side that asks dials: a control connection (votes, heartbeats, small
// requests) and a bulk connection (snapshots, big entries, big answers), so that
// a megabyte does not stand in front of a heartbeat. Requests go from the
// dialing side to the accepting one, answers come back on the same session. A
// session lives and dies as one: when either connection breaks, both are closed,
// everything that waits on it is told, and the next request opens a session of
// the next generation. The accepting side ends the work of an older generation
// before it accepts a newer one (see inbound.go), so that a request that was
// given up can never be worked on after one that followed it.
//
//	link.go       Link: configuration, listener, keepalive, statistics
//	peer.go       what is known about one other node; dialing and back-off
//	session.go    the dialing side of a session: requests that wait for answers
//	inbound.go    the accepting side: generations, handlers, dispatch to groups
//	conn.go       one connection: reader, queue and batching writer
//	frame.go      the frame, hello.go the handshake, raftcodec.go Raft's messages
//	call.go       forwarded requests
//	transport.go  raft.Transport of one group, pipeline.go, snapshot.go its parts
//	group.go      the receiving side of one group: bounded lanes towards Raft
//
// # Signs of life
//
// With Config.HeartbeatTimeout nodes vouch for their groups towards each other, in one
// small message per pair and tenth of a second, so that idle groups cost next to nothing, and
// notice who is gone. What may be concluded from a sign, why, and what must hold for
// it is written down in docs/peer-link.md; its rules are cited by number in the code:
//
//  1. A heartbeat is answered by a sign that was made after the heartbeat began.
//
//  2. An empty AppendEntries that repeats what was agreed to is left out.
//
//  3. A follower's timer is fed locally while its leader's signs claim to lead.
//
//  4. A follower is told the commit index when nothing follows an entry.
//
//     sign.go       the sign of life, and what the signs of another node have said
//     pulse.go      sending them; who is gone; which groups have no leader
//     vouch.go      the four rules; making a group here stand for election
package peer
