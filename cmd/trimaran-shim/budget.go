package main

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// smallMessage is the size up to which a message is not counted: a connection's
	// few small ones take little.
	smallMessage = 1 << 10
	// crowdedTimeout is how long a message waits for memory that others hold. Two
	// that are partly there could wait for each other for ever.
	crowdedTimeout = 30 * time.Second
)

var errCrowded = errors.New("the memory for messages is used up, and does not get free")

// budget bounds the bytes of messages in memory, over all connections. It is a
// shim.Memory.
type budget struct {
	sem  *semaphore.Weighted
	most int64
	held atomic.Int64
}

func newBudget(bytes int64) *budget {
	return &budget{sem: semaphore.NewWeighted(bytes), most: bytes}
}

// Acquire waits for n bytes, first come first served. A message larger than
// everything there is counts as everything there is.
func (b *budget) Acquire(ctx context.Context, n int) error { return b.grow(ctx, 0, n) }

// TryAcquire is Acquire where that does not have to wait.
func (b *budget) TryAcquire(n int) bool {
	weight := b.weight(n)
	if weight > 0 && !b.sem.TryAcquire(weight) {
		return false
	}
	b.held.Add(weight)
	return true
}

// grow waits until a message that holds from bytes may hold n.
func (b *budget) grow(ctx context.Context, from, n int) error {
	weight := b.weight(n) - b.weight(from)
	if weight == 0 {
		return nil
	}
	if !b.sem.TryAcquire(weight) {
		ctx, cancel := context.WithTimeoutCause(ctx, crowdedTimeout, errCrowded)
		defer cancel()
		if b.sem.Acquire(ctx, weight) != nil {
			return context.Cause(ctx)
		}
	}
	b.held.Add(weight)
	return nil
}

// Release gives back what Acquire took for a message of the same size.
func (b *budget) Release(n int) {
	if weight := b.weight(n); weight > 0 {
		b.held.Add(-weight)
		b.sem.Release(weight)
	}
}

func (b *budget) weight(n int) int64 {
	if n <= smallMessage {
		return 0
	}
	return min(int64(n), b.most)
}
