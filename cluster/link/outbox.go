package link

import (
	"slices"
	"sync/atomic"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// Outbox has messages that were queued by somebody who is about to wait (Session.BeginHeld), and
// who says how they leave, before waiting. The writing goroutine of a connection would come late
// for them: whoever wakes it goes on, into system calls that take a while, and Go leaves a
// goroutine that was woken to the thread that woke it. So who goes to the disk writes, and who
// waits for another goroutine wakes the writing ones, which run next.
//
// The zero value is ready. All methods are safe for concurrent use, and wait for nothing.
type Outbox struct {
	inside atomic.Int64 // how often Enter was called without Leave
	some   atomic.Bool  // conns has some

	mu    locks.Mutex[Outbox] // guards conns; nothing is called under it
	conns []*conn
}

// Enter says that its caller is on its way to where it waits. While somebody is, nothing more is
// held: where many are, their messages are better gathered by the writing goroutines.
func (o *Outbox) Enter() {
	if o.inside.Add(1) > 1 {
		o.Wake()
	}
}

// Leave ends what Enter began.
func (o *Outbox) Leave() { o.inside.Add(-1) }

// add notes that c has something; false: it is not held.
func (o *Outbox) add(c *conn) bool {
	if o.inside.Load() > 0 {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !slices.Contains(o.conns, c) {
		o.conns = append(o.conns, c)
	}
	o.some.Store(true)
	return true
}

// take adds the connections that have something to some.
func (o *Outbox) take(some []*conn) []*conn {
	if !o.some.Load() {
		return some
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	some = append(some, o.conns...)
	clear(o.conns)
	o.conns = o.conns[:0]
	o.some.Store(false)
	return some
}

// Write writes what is held as far as the sockets take it at once. It is for who is about to wait
// in a system call.
func (o *Outbox) Write() {
	var few [8]*conn
	for _, c := range o.take(few[:0]) {
		c.writeHeld()
	}
}

// Wake has the writing goroutines write what is held. It is for who is about to wait for another
// goroutine.
func (o *Outbox) Wake() {
	var few [8]*conn
	for _, c := range o.take(few[:0]) {
		c.poke()
	}
}
