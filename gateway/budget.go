package gateway

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/trimaran-io/trimaran/kafkaproto"
)

// smallRequest is the size up to which a request is not counted: with the bound
// on requests per connection, a connection's small ones take little.
const smallRequest = 16 << 10

const (
	// firstHold is what a larger request takes of the budget when it is announced,
	// if it says that it has as much. After that it is what came, at most doubled.
	firstHold = kafkaproto.OrdinaryFrame
	// crowdedTimeout is how long a request that is partly there waits for memory
	// that others have. Two of them could wait for each other.
	crowdedTimeout = 30 * time.Second
)

// budget bounds bytes that are in memory at once, over all connections.
type budget struct {
	all  int64
	sem  *semaphore.Weighted
	held atomic.Int64
}

func newBudget(bytes int64) *budget {
	return &budget{all: bytes, sem: semaphore.NewWeighted(bytes)}
}

// acquire waits for n bytes, first come first served. More than there are in all
// are never there.
func (b *budget) acquire(ctx context.Context, n int64) error {
	if err := b.sem.Acquire(ctx, n); err != nil {
		return err
	}
	b.held.Add(n)
	return nil
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
