package shim

import (
	"net"
	"sync"
	"time"
)

// deadline is a deadline that can be waited for and changed meanwhile.
type deadline struct {
	mu     sync.Mutex // guards the rest; nothing is taken under it
	timer  *time.Timer
	passed chan struct{}
}

func newDeadline() *deadline { return &deadline{passed: make(chan struct{})} }

// wait gives a channel that is closed when the deadline passes.
func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.passed
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.passed // the timer is closing it
	}
	d.timer = nil
	select {
	case <-d.passed:
		d.passed = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	passed := d.passed
	if left := time.Until(t); left > 0 {
		d.timer = time.AfterFunc(left, func() { close(passed) })
		return
	}
	close(passed)
}

// nudgeEvery is how often a write that is late is told to end.
const nudgeEvery = 5 * time.Millisecond

// writeDeadline ends a message's write when its deadline passes, also one that
// is set while the write is under way. Pings and goodbyes share the connection
// and must not be hit: clients leave old deadlines standing.
type writeDeadline struct {
	conn net.Conn

	// guards the rest, and conn's deadline while sending; nothing is taken under it
	mu      sync.Mutex
	at      time.Time // zero: none
	sending bool
	timer   *time.Timer // set while sending, if there is a deadline
}

func (d *writeDeadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = t
	d.arm()
}

// arm starts the timer anew. The caller holds mu.
func (d *writeDeadline) arm() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if d.sending && !d.at.IsZero() {
		d.timer = time.AfterFunc(time.Until(d.at), d.fire)
	}
}

// fire ends the write under way. The WebSocket sets the connection's deadline
// anew for each of a message's frames, which may undo this, so it is repeated
// until the write has ended.
func (d *writeDeadline) fire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.sending || !d.late() {
		return
	}
	_ = d.conn.SetWriteDeadline(time.Unix(1, 0))
	d.timer = time.AfterFunc(nudgeEvery, d.fire)
}

func (d *writeDeadline) late() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *writeDeadline) expired() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.late()
}

func (d *writeDeadline) begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sending = true
	d.arm()
}

// end reports whether the write was late.
func (d *writeDeadline) end() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sending = false
	d.arm()
	return d.late()
}
