// Package login says who a client is: SASL over Kafka's protocol, credentials in a WebSocket's
// handshake, tickets of shims.
//
// You are here: below package gateway, which turns requests into calls of a Conn and its answers
// into Kafka's, and package listen, which has the handshake's headers judged. What passwords and
// tokens are worth is decided by package security's folders from what the catalog keeps; nothing
// here waits for another node.
//
//	server.go   settings, and sessions that end when what they rest on is taken back
//	conn.go     the states of one connection
//	plain.go    the messages of PLAIN and OAUTHBEARER
//	check.go    passwords, tokens and tickets
//	limiter.go  guessing is slow, checking takes few cores
//	keyset.go   keys of an identity provider, from a file or an https URL
//	metrics.go  what an operator sees
//
// A client that fails is told one sentence, whatever the reason, after a delay; the reason is in
// the audit log. Locks: Server.mu, limiter.mu and KeySet.mu are taken alone, and nothing is taken
// or waited for under them.
package login
