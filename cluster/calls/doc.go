// Package calls is what nodes ask each other: one file per call, with the types of its request
// and its answer and how both travel, and one table of them all.
//
// You are here: below everything in package cluster that asks another node or answers one, above
// the bytes of Kafka's batches (kafkaproto), of the state machines' words (fsm) and of a log that
// is described to be copied (cluster/raftlog). The package opens no connection and knows no node:
// who asks brings a Caller, who answers gives each call its function (Handle).
//
//	table.go   the calls, their numbers and what holds for each: dispatch, relay and
//	           docs/calls.md come from it
//	call.go    Call: asking
//	server.go  Server: answering
//	reply.go   the frame of every answer, and the errors that travel in it
//	bytes.go   fixed-width fields, JSON
//
// Nodes with programs of different age call each other. So a number is never used again, the
// bytes of a call never change, and what is new comes as a call of its own or with a level of the
// cluster (fsm.FeatureLevel) from which on all nodes know it. Bytes behind what a request has are
// ignored where nothing else is said; JSON with a field that is not known is refused, since what
// is asked may rest on it.
package calls
