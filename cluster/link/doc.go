// Package link is the connections between nodes: calls that are forwarded from one node to another,
// other requests with or without a stream of data behind them, and beacons, over a few shared
// connections per pair of nodes.
//
// You are here: below cluster/raftlink, cluster/election and package cluster, above nothing but
// sockets. The package knows nodes by their identity (a string that the layer above mints and
// resolves to addresses) and carries bytes. It does not know what they mean, nor that Raft exists,
// and it decides nothing: it says who was heard when (Alive, OnDown) and leaves conclusions to
// others.
//
// # Sessions
//
// Every ordered pair of nodes that has something to say keeps one session, which
// the side that asks dials: a control connection (small requests, beacons) and a bulk connection
// (streams, big requests, big answers), so that a megabyte does not stand in front of a heartbeat.
// Requests go from the dialing side to the accepting one, answers come back on the same session. A
// session lives and dies as one: when either connection breaks, both are closed,
// everything that waits on it is told, and the next request opens a session of
// the next generation. The accepting side ends the work of an older generation
// before it accepts a newer one (see inbound.go), so that a request that was
// given up can never be worked on after one that followed it.
//
//	link.go       Link: configuration, start and end; base.go what its parts share
//	accept.go     the listener and the handshake with strangers; keepalive.go
//	secure.go     connections that prove who is at the other end
//	peers.go      the other nodes, peer.go what is known about one of them
//	dial.go       the handshake with an address, dialany.go with a node that has several
//	session.go    the dialing side of a session: requests that wait for answers
//	inbound.go    the accepting side: generations, dispatch to who serves
//	conn.go       one connection: reader, queue and batching writer
//	outbox.go     what waits for its sender to say that it should be written, now_….go how
//	frame.go      the frame, hello.go the handshake
//	call.go       forwarded calls, request.go other requests, stream.go data behind one
//	observer.go   who is told of sessions and beacons
//
// # Locks
//
// A peer's lock comes first, then a session's, then any of the others, which are leaves: nothing is
// called under those. Nothing is read, written or waited for under any.
package link
