// Package harness runs real Trimaran processes for the black-box tests and the
// benchmark: it builds the two binaries, starts nodes and a shim on free
// loopback ports, waits until they serve, kills, pauses and restarts them by
// their own process id, and leaves nothing running.
//
// What there is: Cluster, Node and Process run the programs; Wire is a client of
// its own; Ledger keeps what producers were told, Verdict holds a log against it,
// and Load writes while something is broken. Suites and tools stand on these.
//
// You are here: outside. The harness knows the programs' flags, their HTTP
// answers and the Kafka protocol as any client does; it imports nothing of the
// product but package shim, which is public. What a test claims about Trimaran
// is therefore judged by code that shares nothing with it.
package harness
