// Package ticks has tickers whose ticks fall together.
//
// You are here: below everything; anyone may use this package, it uses nobody.
//
// A node has some twenty loops that look at something every so often. What such a look costs while
// there is nothing to see is the waking: of a thread, of the runtime's monitor, of a second core
// that looks whether there is more. Ticks that fall at multiples of their period on the clock come
// at one moment, and are one waking together; those of several nodes do, too, as far as their
// clocks agree, so that what they send each other at a tick finds the others awake.
package ticks

import (
	"sync/atomic"
	"time"
)

// Ticker sends the time on C at about every multiple of its period. Like time.Ticker it drops ticks
// that nobody takes.
type Ticker struct {
	C <-chan time.Time

	c       chan time.Time
	every   time.Duration
	timer   *time.Timer
	stopped atomic.Bool
}

// New begins to tick. every must be greater than 0.
func New(every time.Duration) *Ticker {
	t := &Ticker{c: make(chan time.Time, 1), every: every}
	t.C = t.c
	ready := make(chan struct{})
	t.timer = time.AfterFunc(rest(time.Now(), every), func() {
		<-ready
		t.tick()
	})
	close(ready)
	return t
}

// rest is how long it is from now to a multiple of every: more than half of it, and at most one and
// a half, so that a clock that is set or corrected neither doubles a tick nor loses one.
func rest(now time.Time, every time.Duration) time.Duration {
	left := every - time.Duration(now.UnixNano()%int64(every))
	if left <= every/2 {
		left += every
	}
	return left
}

func (t *Ticker) tick() {
	now := time.Now()
	select {
	case t.c <- now:
	default:
	}
	if t.timer.Reset(rest(now, t.every)); t.stopped.Load() {
		t.timer.Stop()
	}
}

// Stop ends the ticks. What is in C stays there.
func (t *Ticker) Stop() {
	t.stopped.Store(true)
	t.timer.Stop()
}
