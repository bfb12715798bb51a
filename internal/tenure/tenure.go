// Package tenure is the time for which something is in charge, and what runs in it.
//
// You are here: a node that leads a shard has a coordinator for one term, whose requests,
// goroutines and timers must not outlive it. Each begins in the coordinator's Tenure, and
// Tenure.End waits for what runs and stops the timers. What is decided in that time is its owner's
// affair.
package tenure

import (
	"context"
	"sync"
	"time"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// Tenure owns what runs while it lasts. Make one with New.
type Tenure struct {
	ctx    context.Context
	cancel context.CancelFunc

	// mu guards what follows, and the timers. Nothing is taken or waited for under it.
	mu     locks.Mutex[Tenure]
	ended  bool
	timers map[*Timer]struct{} // those that are set, or about to run
	// running counts what runs; it grows only while ended is false or it is not 0.
	running sync.WaitGroup
}

// New begins a tenure.
func New() *Tenure {
	t := &Tenure{timers: make(map[*Timer]struct{})}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// Context ends when End is called. What waits, waits for it too.
func (t *Tenure) Context() context.Context { return t.ctx }

// Over reports whether End was called.
func (t *Tenure) Over() bool { return t.ctx.Err() != nil }

// End ends the context, and waits for all that runs. When it returns no goroutine of the tenure is
// left and no timer, and none will be.
func (t *Tenure) End() {
	t.mu.Lock()
	t.ended = true
	for timer := range t.timers {
		timer.timer.Stop()
	}
	clear(t.timers)
	t.mu.Unlock()
	t.cancel()
	t.running.Wait()
}

// Begin announces work that End waits for until Done is called, and says false if it is too late.
func (t *Tenure) Begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.begin()
}

func (t *Tenure) begin() bool {
	if !t.ended {
		t.running.Add(1)
	}
	return !t.ended
}

// Done says that what Begin announced is over.
func (t *Tenure) Done() { t.running.Done() }

// Go runs f beside. Whoever calls it runs in the tenure, so that it is not too late.
func (t *Tenure) Go(f func()) { t.running.Go(f) }

// Timer is a timer of a tenure. The nil Timer can be stopped.
type Timer struct {
	t     *Tenure
	timer *time.Timer
	f     func()
	due   int // runs that are to come: one, or two where Reset came while one began
}

// After runs f after d, in a goroutine of its own, unless the tenure is over by then.
func (t *Tenure) After(d time.Duration, f func()) *Timer {
	t.mu.Lock()
	defer t.mu.Unlock()
	x := &Timer{t: t, f: f}
	if t.ended {
		return x
	}
	x.due, t.timers[x] = 1, struct{}{}
	x.timer = time.AfterFunc(d, x.run)
	return x
}

func (x *Timer) run() {
	x.t.mu.Lock()
	if x.due--; x.due == 0 {
		delete(x.t.timers, x)
	}
	begun := x.t.begin()
	x.t.mu.Unlock()
	if begun {
		defer x.t.Done()
		x.f()
	}
}

// Stop stops the timer. As with time.Timer its function may be about to run.
func (x *Timer) Stop() {
	if x == nil {
		return
	}
	x.t.mu.Lock()
	defer x.t.mu.Unlock()
	if x.t.ended || !x.timer.Stop() {
		return
	}
	if x.due--; x.due == 0 {
		delete(x.t.timers, x)
	}
}

// Reset has the timer's function run after d, whether or not it has run.
func (x *Timer) Reset(d time.Duration) {
	x.t.mu.Lock()
	defer x.t.mu.Unlock()
	if x.t.ended {
		return
	}
	if !x.timer.Reset(d) {
		x.due++
		x.t.timers[x] = struct{}{}
	}
}
