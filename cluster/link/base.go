package link

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// base is what every part of a link uses: its configuration, clock, counters and lifetime.
type base struct {
	cfg   Config
	log   *slog.Logger
	boot  uint64
	start time.Time // zero of the link clock

	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc
	tasks  tasks
	stats  counters
	conns  connSet
	down   downs

	stopping   atomic.Bool
	generation atomic.Uint64 // of the newest session that was dialed
	logLimit   *rate.Limiter // what strangers can make this node log

	// Set before Start.
	observer Observer
	requests func(*Request) error // nil: nobody takes requests of others
}

// Now is the link clock: nanoseconds since New, monotonic.
func (b *base) Now() int64 { return int64(time.Since(b.start)) }

// At gives the moment at which the link clock showed that.
func (b *base) At(clock int64) time.Time { return b.start.Add(time.Duration(clock)) }

// Self is the identity of this process.
func (b *base) Self() string { return b.cfg.Self }

// Boot is a random number of this process, which tells it from the one before it.
func (b *base) Boot() uint64 { return b.boot }

// Logger is Config.Logger.
func (b *base) Logger() *slog.Logger { return b.log }

// Context ends with Close.
func (b *base) Context() context.Context { return b.ctx }

// PingTimeout is Config.PingTimeout.
func (b *base) PingTimeout() time.Duration { return b.cfg.PingTimeout }

// Go runs f in a goroutine that Close waits for; false when closed already.
func (b *base) Go(f func()) bool { return b.tasks.run(f) }

// changed tells the observer that something about some node may be different now.
func (b *base) changed() { b.observer.Changed() }

// tasks are the goroutines of a link.
type tasks struct {
	wg sync.WaitGroup

	// mu guards closed: nothing is added once somebody may wait. Goroutines are started under it,
	// nothing is waited for, and no other lock is taken.
	mu     locks.Mutex[tasks]
	closed bool
}

func (t *tasks) run(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Go(f)
	return true
}

// close says whether this call was the first one.
func (t *tasks) close() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.closed
	t.closed = true
	return !was
}

// connSet are the connections that are open, for the keepalive and Close.
type connSet struct {
	mu     locks.Mutex[connSet] // guards what follows; nothing is called under it
	closed bool
	open   map[*conn]struct{}
}

// track makes the keepalive and Close know c.
func (s *connSet) track(c *conn) {
	s.mu.Lock()
	closed := s.closed
	if !closed {
		if s.open == nil {
			s.open = make(map[*conn]struct{})
		}
		s.open[c] = struct{}{}
	}
	s.mu.Unlock()
	if closed {
		c.close(ErrClosed)
	}
	if c.ctx.Err() != nil { // it was over before it began, and has untracked itself already
		s.untrack(c)
	}
}

func (s *connSet) untrack(c *conn) {
	s.mu.Lock()
	delete(s.open, c)
	s.mu.Unlock()
}

func (s *connSet) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// all gives the connections of this moment; last says that no more will be tracked.
func (s *connSet) all(last bool) []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = s.closed || last
	conns := make([]*conn, 0, len(s.open))
	for c := range s.open {
		conns = append(conns, c)
	}
	return conns
}

// downs are those who want to know when the last session with a node is over.
type downs struct {
	// guards all, which is replaced and never changed; nothing is called under it
	mu  locks.Mutex[downs]
	all []func(identity string)
}

func (d *downs) add(f func(identity string)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all[:len(d.all):len(d.all)], f)
}

func (d *downs) tell(identity string) {
	d.mu.Lock()
	all := d.all
	d.mu.Unlock()
	for _, f := range all {
		f(identity)
	}
}
