package catalog

import (
	"context"
	"time"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// A coordinator that does not know a topic takes its offsets for gone, and a consumer that hears so
// begins anew. So it serves only when the catalog here is as new as the leader's, and looks again
// before it says that a topic is not there.

const (
	awaitRetry = 100 * time.Millisecond
	// freshFor is how long the catalog counts as new after it was brought up to date for that.
	freshFor       = time.Second
	refreshTimeout = time.Second
)

// freshness is when the catalog here was last brought up to date on purpose.
type freshness struct {
	catchUp func(context.Context) error

	turn chan struct{} // holds a token while nobody is at the field below
	at   time.Time
}

func newFreshness(catchUp func(context.Context) error) *freshness {
	f := &freshness{catchUp: catchUp, turn: make(chan struct{}, 1)}
	f.turn <- struct{}{}
	return f
}

// refresh brings the catalog up to date, at most once per freshFor, and says whether it is.
func (f *freshness) refresh(life context.Context) bool {
	locks.MayWait("the catalog to catch up")
	<-f.turn
	defer func() { f.turn <- struct{}{} }()
	if time.Since(f.at) < freshFor {
		return true // by someone who waited in front of this one, perhaps
	}
	ctx, cancel := context.WithTimeout(life, refreshTimeout)
	defer cancel()
	if f.catchUp(ctx) != nil {
		return false
	}
	f.at = time.Now()
	return true
}

// Refresh brings the catalog here up to date unless that was done within the last second, and says
// whether it is. It takes a second at most.
func (c *Catalog) Refresh() bool { return c.fresh.refresh(c.cfg.Life) }

// Await waits until the catalog here is as new as the leader's was when this was called; false: ctx
// ended.
func (c *Catalog) Await(ctx context.Context) bool {
	for ctx.Err() == nil {
		within, cancel := context.WithTimeout(ctx, callTimeout)
		err := c.CatchUp(within)
		cancel()
		if err == nil {
			return true
		}
		select {
		case <-time.After(awaitRetry):
		case <-ctx.Done():
		}
	}
	return false
}
