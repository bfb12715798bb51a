// Package token makes and reads what the cluster signs by itself: tokens, which a principal gives
// to a browser or a job, with a scope and at most a day, and tickets, by which a shim shows one
// gateway that its client has logged in at another.
//
// You are here: below package login and the API that issues them. Both are JWT (RFC 7519) signed
// with Ed25519. Which keys there are and what is revoked is said by a Keys; the package reads no
// clock and no disk.
package token
