// Package gateway is the part of a node that clients connect to: it accepts
// connections, tells TLS, HTTP, WebSocket and Kafka apart, runs a session for
// each, and answers every API that package kafkaproto's table lists.
//
// You are here: between clients and the cluster. The gateway routes a request to
// partitions and knows the cluster only by the interface Cluster; where a
// partition lives, who leads it and how records get there is behind that
// interface. Record formats are package kafkaproto's: what a client sends is
// checked and turned into record batches here at the door, and nothing further
// in knows another format. Nothing in this package survives a restart.
//
// The way of a request is the list of files:
//
//	server.go    accepts, counts and closes connections
//	door.go      the first byte: TLS, HTTP or a Kafka frame
//	web.go       HTTP pages and the WebSocket upgrade; allow.go: Host and Origin
//	stream.go    frames over TCP and TLS
//	websocket.go frames over WebSocket
//	session.go   a reader, a queue of answers in order, a writer
//	request.go   from frame to handler, and the answer back
//	NN_name.go   one API each, named by its key
//	lines.go     produces of one connection to one partition, in line
//	errors.go    the one place where errors become protocol codes
package gateway
