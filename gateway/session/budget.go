package session

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// SmallRequest is the size up to which a request is not counted: with the bound
// on requests per connection, a connection's small ones take little.
const SmallRequest = 16 << 10

// crowdedTimeout is how long a request that is partly there waits for memory
// that others have. Two of them could wait for each other.
const crowdedTimeout = 30 * time.Second

// Budget bounds bytes that are in memory at once, over all connections.
type Budget struct {
	all  int64
	sem  *semaphore.Weighted
	held atomic.Int64
}

// NewBudget makes a budget of so many bytes.
func NewBudget(bytes int64) *Budget {
	return &Budget{all: bytes, sem: semaphore.NewWeighted(bytes)}
}

// Acquire waits for n bytes, first come first served. More than there are in all
// are never there.
func (b *Budget) Acquire(ctx context.Context, n int64) error {
	locks.MayWait("memory for requests")
	if err := b.sem.Acquire(ctx, n); err != nil {
		return err
	}
	b.held.Add(n)
	return nil
}

// Try takes n bytes if they are there.
func (b *Budget) Try(n int64) bool {
	if n > b.all || !b.sem.TryAcquire(n) {
		return false
	}
	b.held.Add(n)
	return true
}

// Release gives n bytes back that were taken.
func (b *Budget) Release(n int64) {
	b.held.Add(-n)
	b.sem.Release(n)
}

// Held is how many bytes are taken.
func (b *Budget) Held() int64 { return b.held.Load() }

// reserver counts requests against a budget.
type reserver struct {
	budget *Budget
	ctx    context.Context
	held   int64
}

// reserve makes it hold size bytes. The first are waited for as long as it takes;
// who holds some already is in the way of others, and waits crowdedTimeout.
func (r *reserver) reserve(size int) error {
	ctx := r.ctx
	if r.held > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, crowdedTimeout)
		defer cancel()
	}
	more := int64(size) - r.held
	if err := r.budget.Acquire(ctx, more); err != nil {
		if r.ctx.Err() != nil {
			return ErrInterrupted
		}
		return ErrCrowded
	}
	r.held += more
	return nil
}

// take hands over what is held: the function gives it back and may be called
// once. It is nil for nothing.
func (r *reserver) take() func() {
	held := r.held
	if held == 0 {
		return nil
	}
	r.held = 0
	return func() { r.budget.Release(held) }
}
