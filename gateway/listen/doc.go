// Package listen is where clients come in: it accepts connections, tells TLS, HTTP, WebSocket and
// Kafka apart by their first byte, decides who may come in, and hands whatever speaks Kafka to a
// session.
//
// You are here: between the network and package session. The package knows how long a connection
// may be silent or slow, by which names this node may be called, and whether the node serves; of
// Kafka it knows that a frame has a size.
//
//	server.go    accepts, counts and closes connections
//	firstbyte.go the first byte: TLS, HTTP or a Kafka frame
//	stream.go    frames over TCP and TLS
//	websocket.go frames over WebSocket
//	output.go    what is sent, in few calls
//	web.go       HTTP pages and the WebSocket upgrade
//	page.go      the console, and which nodes it may go on with
//	allow.go     Host and Origin
//	credentials.go who a WebSocket's handshake comes from
//	strangers.go bounds on those of whom is not known who they are
//	bound.go     what may be read before a login
//	address.go   where a client is told that the broker is
//	serving.go   a node that is cut off sends its clients elsewhere
//	refusals.go  what is logged of hostile and broken clients
//
// Locks: Server.mu, serving.mu and Refusals.mu are taken alone, and nothing is taken or waited for
// under them.
package listen
