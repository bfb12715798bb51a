// Package scram is the server's half of SCRAM (RFC 5802 and RFC 7677, without channel binding) as
// Kafka's clients speak it, and the keys that are kept of a password.
//
// You are here: below package login, which asks it step by step. It reads no socket and knows no
// user: credentials come through a function, chance as an argument.
//
// Passwords are hashed as their UTF-8 bytes are, without SASLprep: Kafka, librdkafka and franz-go
// do so too, and a password that was prepared by one side only would never fit.
package scram
