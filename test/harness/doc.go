// Package harness runs real Trimaran processes for the black-box tests and the
// benchmark: it builds the two binaries, starts nodes and a shim on free
// loopback ports, waits until they serve, kills, pauses and restarts them by
// their own process id, and leaves nothing running.
//
// You are here: outside. The harness knows the programs' flags, their HTTP
// answers and the Kafka protocol as any client does; it imports nothing of the
// product but package shim, which is public. What a test claims about Trimaran
// is therefore judged by code that shares nothing with it.
package harness
