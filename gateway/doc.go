// Package gateway is the part of a node that clients connect to: it answers every
// API that package kafkaproto's table lists, and three of Trimaran's own.
//
// You are here: between clients and the cluster. The gateway routes a request to
// partitions and knows the cluster only by the interfaces that Cluster is made of;
// where a partition lives, who leads it and how records get there is behind them.
// Record formats are package kafkaproto's: what a client sends is checked and turned
// into record batches here at the listener, and nothing further in knows another format.
// Nothing in this package survives a restart.
//
// The way of a request:
//
//	listen/        accepts connections and tells TLS, HTTP, WebSocket and Kafka apart
//	session/       reads frames, and sends the answers in the order of requests
//	connection.go  what is remembered of a connection
//	request.go     from frame to handler, and the answer back
//	apis.go        which API is answered where, and what it does to what others see
//	order/         what a request has to wait for: produces in line, turns of groups
//	NN_name.go     one API each, named by its key; NN_name_part.go where that is much
//
// What handlers share:
//
//	find.go        topics and partitions that a request names
//	brokers.go     which brokers a client is shown
//	changes.go     changes of several topics within a timeout
//	configs.go     configurations as clients see them
//	operations.go  what a client without an authorizer may do
//	groups.go      the way to the coordinators of consumer groups
//	errors.go      the one place where errors become protocol codes
//	metrics.go     what /metrics shows
//	cluster.go     the cluster, made of what each of these knows of it
//
// Locks: topicMaker.mu is the only one, and nothing is taken or waited for under it. Those of the
// packages in this folder are taken alone, too.
package gateway
