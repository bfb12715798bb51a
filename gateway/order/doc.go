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
//	queues.go  produces to partitions, and their appends
//	queue.go   one partition's: what may be under way at once, and what becomes of failures
//	pace.go    whose requests in flight are appended together, and waited for
//	produce.go what one request has for one partition, and what became of it
//	gaps.go    what an idempotent producer sent behind a batch that failed
//	turns.go   requests about one consumer group, in line
//
// Why nothing overtakes: appends of a queue that are under way together are in one run, whose
// leader takes them by their numbers, from the first on and without a hole (Appender.Pipe). A
// failure ends the run. Nothing is sent before all of it is over, and the next run is newer, so
// that what arrives late of an old one is refused. At that point each produce is in one of three
// states: in the log, behind all in front of it that are; surely not there, and then goes again in
// its order; or nobody knows. Of the last the idempotent ones go again, since the leader knows them
// if they are there, and the others are given up: the client hears that it is not known, and
// whatever it sends then is behind them. What was given up before the last failure was known opens
// a gap for the producer.
//
// Locks: Queues.mu and Turns.mu are taken one at a time, and under Queues.mu nothing but what
// Config.After takes. Nothing is waited for under them:
// what a request waits for are channels.
package order
