// Package peertls secures the connections between nodes: TLS 1.3, both sides verified against a CA
// of the cluster's own, and the node's id in the certificate.
//
// You are here: below package cluster, beside cluster/link, which is given connections that prove
// who is at the other end before anything but the hello is said. The package knows certificates
// and first bytes; it knows no frame and no call, and of an identity only that the node id stands
// before its last dot.
//
//	guard.go   Guard: modes, configuration, what a certificate must say
//	accept.go  what a connection is, by its first byte; bounds before the hello
//	dial.go    the dialing side
//	conn.go    many small writes become few
//
// Locks: conn.mu is held by who writes, while it writes, and rawConn.mu is taken under it.
package peertls
