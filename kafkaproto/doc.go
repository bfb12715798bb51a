// Package kafkaproto is the wire: frames, request headers, the table of served
// APIs, and the two formats records travel in, the message set (magic 0 and 1)
// of old clients and the record batch (magic 2).
//
// You are here: between the bytes of a connection and the requests that package
// gateway answers. Everything in this package is a function of its arguments:
// no clock, no goroutine that outlives a call, no logging, no connection. What
// it is given is hostile until parsed, so no size is believed before the bytes
// that it promises have arrived, and nothing here panics on any input. Schemas
// of requests and responses are not written here: package kmsg generates them.
// What to answer is package gateway's business, what to store package fsm's.
package kafkaproto
