package gateway

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// smallRequest is the size up to which a request is not counted: with the bound
// on requests per connection, a connection's small ones take little.
const smallRequest = 16 << 10

// budget bounds bytes that are in memory at once, over all connections.
type budget struct {
	all  int64
	sem  *semaphore.Weighted
	held atomic.Int64
}

func newBudget(bytes int64) *budget {
	return &budget{all: bytes, sem: semaphore.NewWeighted(bytes)}
}

// acquire waits for n bytes, first come first served. The function gives them
// back and may be called once.
func (b *budget) acquire(ctx context.Context, n int64) (func(), error) {
	n = min(n, b.all)
	if err := b.sem.Acquire(ctx, n); err != nil {
		return nil, err
	}
	b.held.Add(n)
	return func() { b.release(n) }, nil
}

// try takes n bytes if they are there.
func (b *budget) try(n int64) bool {
	if n > b.all || !b.sem.TryAcquire(n) {
		return false
	}
	b.held.Add(n)
	return true
}

func (b *budget) release(n int64) {
	b.held.Add(-n)
	b.sem.Release(n)
}
