// Package session serves one connection that speaks Kafka: a reader, a queue of answers in the
// order of requests, and a writer.
//
// You are here: between what listens (package listen, whose transports are Framers) and the
// handlers of requests (package gateway). What a session reads is bounded: in requests, in their
// bytes, in bytes of answers that nobody takes, and, with those of all other sessions, by a Budget.
// What a request says and what an answer is are its Handler's affair.
//
//	session.go  the reader and the writer
//	reply.go    one answer, now or later
//	budget.go   memory that all sessions share
//	framer.go   what a transport has to be, and why a session ends
//
// Locks: Session.mu is the only one, and nothing is taken or waited for under it.
package session
