// Package order keeps a connection's requests in the order that its client may rely on, although
// they are worked on at once.
//
// You are here: between a connection's reader and the handlers of requests. Order says what a
// request has to wait for before it looks at anything; Queues puts the produces of a connection to
// one partition behind each other, and sends on together what waits; Turns does so for requests
// about one consumer group. The package knows partitions and record batches, and nothing of the
// APIs' formats.
//
//	order.go   what a request sees of those before it
//	queues.go  produces to one partition, in a queue
//	produce.go what one request has for one partition, and what became of it
//	gaps.go    what an idempotent producer sent behind a batch that failed
//	turns.go   requests about one consumer group, in line
//
// Locks: Queues.mu and Turns.mu are taken alone, one at a time. Nothing is waited for under them:
// what a request waits for are channels.
package order
