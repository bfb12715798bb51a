package transaction

import "sync/atomic"

type counter = *atomic.Int64

// Counters count what the coordinators of a node decided since it began; all shards share them.
type Counters struct {
	Committed, Aborted atomic.Int64 // as their producers said
	TimedOut           atomic.Int64 // aborted, since they were open longer than their timeout
	Fenced             atomic.Int64 // aborted, since another producer took the transactional id
}
