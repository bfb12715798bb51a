package cluster

import (
	"context"
	"sync"
	"time"
)

// A coordinator that does not know a topic takes its offsets for gone, and a consumer that hears so begins
// anew. So it serves only when the catalog here is as new as the leader's, and looks again before it
// says that a topic is not there.

const (
	topicsRetry = 100 * time.Millisecond
	// freshFor is how long the catalog counts as new after it was brought up to date for that.
	freshFor       = time.Second
	refreshTimeout = time.Second
)

// freshness is when the catalog here was last brought up to date on purpose.
type freshness struct {
	mu sync.Mutex
	at time.Time
}

// awaitTopics waits until the catalog here is as new as the leader's was when this was called; false: ctx ended.
func (n *Node) awaitTopics(ctx context.Context) bool {
	for ctx.Err() == nil {
		within, cancel := context.WithTimeout(ctx, callTimeout)
		err := n.catalog.catchUp(within)
		cancel()
		if err == nil {
			return true
		}
		select {
		case <-time.After(topicsRetry):
		case <-ctx.Done():
		}
	}
	return false
}

// refreshTopics brings the catalog here up to date, at most once per freshFor, and says whether it was done now.
func (n *Node) refreshTopics() bool {
	n.fresh.mu.Lock()
	defer n.fresh.mu.Unlock()
	if time.Since(n.fresh.at) < freshFor {
		return true // by someone who waited in front of this one, perhaps
	}
	ctx, cancel := context.WithTimeout(n.ctx, refreshTimeout)
	defer cancel()
	if n.catalog.catchUp(ctx) != nil {
		return false
	}
	n.fresh.at = time.Now()
	return true
}
