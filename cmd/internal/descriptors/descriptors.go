// Package descriptors divides the files that a process may have open.
//
// You are here: below the commands that run for long. A connection is an open file as a log's
// segment is, and clients can open as many as they like. What they may have is bounded by the
// process's limit, so that the node always has some for its own files and for other nodes.
package descriptors

import (
	"math"
	"syscall"
)

// others is kept besides: listeners, databases, the journal, gossip, what is being accepted.
const others = 64

// Limit is how many files the process may have open (RLIMIT_NOFILE). Go has raised the soft limit
// to the hard one.
func Limit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(limit.Cur)
}

// OfNode divides a limit between the clients of so many nodes in one process and their connections
// with other nodes. Each gets at least one. Half is for clients, an eighth for other nodes, and the
// rest for files, of which the log keeps some open (three eighths at most) and opens others.
func OfNode(limit, nodes int) (clients, peers int) {
	return max(min(limit/2, limit-2*others)/nodes, 1), max(limit/8/nodes, 1)
}

// OfShim is how many clients a shim may have, each of which takes a connection to a gateway, too.
func OfShim(limit, gateways int) int {
	return max((limit-others-2*gateways)/2, 1)
}
