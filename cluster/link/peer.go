package link

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/trimaran-io/trimaran/internal/locks"
)

const (
	minBackoff = 50 * time.Millisecond
	maxBackoff = time.Second
	// settled is how long a session must live before its end is no reason to wait before the next
	// dial.
	settled = time.Second
)

// Peer is what this link knows about one other node: its session out, its session in.
type Peer struct {
	base     *base
	identity string
	heard    atomic.Int64 // link clock of the last byte that came from it; 0 never

	// mu guards what follows. The locks of sessions, of the set of connections and of what observes
	// the link may be taken under it; nothing is waited for, and nothing is read or written.
	mu      locks.Mutex[Peer]
	out     *Session // nil: none
	dialing [2]*dialAttempt
	fails   int
	retryAt int64 // link clock
	lastErr error
	refused bool          // the last dial was: nobody listens there
	up      chan struct{} // closed when a session to it opens; nil: nobody waits for that

	in *Inbound // nil: none
	// The newest generation admitted. Never goes down within one boot.
	inBoot, inGeneration uint64

	wasConnected bool
}

// dialAttempt is shared by everyone who waits for the same connection.
type dialAttempt struct {
	done chan struct{}
	err  error // valid once done is closed
}

// obtain gives an open connection of class cl, dialing where there is none.
// Its errors are all ErrNotSent: nothing was asked yet.
func (p *Peer) obtain(ctx context.Context, cl Class) (*Session, *conn, error) {
	locks.MayWait("opening a connection")
	for {
		if p.base.ctx.Err() != nil {
			return nil, nil, notSent(ErrClosed)
		}
		p.mu.Lock()
		want := cl
		if s := p.out; s == nil {
			want = Control
		} else if c := s.conn(cl); c != nil {
			p.mu.Unlock()
			return s, c, nil
		}
		a := p.dialing[want]
		if a == nil {
			if p.base.Now() < p.retryAt {
				err := p.lastErr
				p.mu.Unlock()
				return nil, nil, notSent(err)
			}
			if a = p.dialLocked(want); a == nil {
				p.mu.Unlock()
				return nil, nil, notSent(ErrClosed)
			}
		}
		p.mu.Unlock()
		select {
		case <-a.done:
			if a.err != nil {
				return nil, nil, notSent(a.err)
			}
		case <-ctx.Done():
			return nil, nil, notSent(context.Cause(ctx))
		case <-p.base.ctx.Done():
			return nil, nil, notSent(ErrClosed)
		}
	}
}

// dial opens one connection and, for a control connection, the session with it.
func (p *Peer) dial(cl Class, a *dialAttempt) {
	s, c, err := p.dialOnce(cl)
	p.mu.Lock()
	p.dialing[cl] = nil
	before, failsBefore := p.lastErr, p.fails
	if err == nil {
		if cl == Control {
			p.out = s
			p.upLocked()
		}
		p.fails, p.retryAt, p.lastErr, p.refused = 0, 0, nil, false
	} else {
		p.failedLocked(err)
		p.refused = isRefused(err)
	}
	down := p.connectedLocked()
	p.mu.Unlock()
	p.base.changed()
	if err != nil {
		if failsBefore == 0 || before == nil || before.Error() != err.Error() {
			p.base.log.Warn("cannot reach node", "node", p.identity, "error", err)
		}
	} else {
		if cl == Control {
			p.base.log.Info("node reached", "node", p.identity, "addr", c.remote, "generation", s.generation)
		}
		c.start()
		if cl == Control {
			p.warmBulk()
		}
	}
	a.err = err
	close(a.done)
	down()
}

// warmBulk opens the session's second connection before it is needed: big answers take it as well.
func (p *Peer) warmBulk() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.out == nil || p.dialing[Bulk] != nil || p.out.conn(Bulk) != nil {
		return
	}
	p.dialLocked(Bulk)
}

// dialLocked begins an attempt that others may wait for; nil if the link is closed.
func (p *Peer) dialLocked(cl Class) *dialAttempt {
	a := &dialAttempt{done: make(chan struct{})}
	p.dialing[cl] = a
	if !p.base.Go(func() { p.dial(cl, a) }) {
		p.dialing[cl] = nil
		return nil
	}
	return a
}

func (p *Peer) dialOnce(cl Class) (*Session, *conn, error) {
	locks.MayWait("dialing")
	l := p.base
	var s *Session
	var addrs []string
	if cl == Control {
		if addrs = l.addresses(p.identity); len(addrs) == 0 {
			return nil, nil, fmt.Errorf("%w for %q", ErrUnknownPeer, p.identity)
		}
		s = newSession(l, p.identity, l.generation.Add(1), p.lost)
	} else {
		p.mu.Lock()
		s = p.out
		p.mu.Unlock()
		if s == nil {
			return nil, nil, ErrBroken
		}
		addrs = []string{s.addr}
	}
	nc, a, addr, err := l.dialAny(l.ctx, addrs, hello{class: cl, generation: s.generation, target: p.identity})
	if err != nil {
		return nil, nil, fmt.Errorf("node %s at %s: %w", p.identity, addr, err)
	}
	if cl == Control {
		s.version, s.boot, s.addr = a.version, a.boot, addr
		if l.cfg.Reached != nil {
			l.cfg.Reached(p.identity, addr)
		}
	}
	c := newConn(l, nc, cl, &p.heard)
	c.dialed = true
	if err := s.attach(c); err != nil {
		c.close(err)
		return nil, nil, err
	}
	return s, c, nil
}

// failedLocked notes a failed attempt and sets when the next one may be made.
func (p *Peer) failedLocked(err error) {
	p.lastErr = err
	p.fails++
	if errors.Is(err, ErrUnknownPeer) {
		// Nothing was dialed, and the address book may learn it any moment. But a failure makes a
		// round of beacons, the round may ask this peer again, and that one would fail at once.
		p.retryAt = p.base.Now() + int64(minBackoff)
		return
	}
	wait := min(minBackoff<<min(p.fails-1, 10), maxBackoff)
	wait = wait/2 + rand.N(wait)
	p.retryAt = p.base.Now() + int64(wait)
}

// lost is called by a session of this peer that is over.
func (p *Peer) lost(s *Session, err error) {
	p.mu.Lock()
	if p.out == s {
		p.out = nil
		if p.base.Now()-s.opened < int64(settled) {
			p.failedLocked(err)
		}
	}
	down := p.connectedLocked()
	p.mu.Unlock()
	p.base.stats.sessionsLost.Add(1)
	p.base.observer.Lost(p.identity)
	p.base.changed()
	if !errors.Is(err, ErrClosed) {
		p.base.log.Warn("session to node lost", "node", p.identity, "generation", s.generation, "error", err)
	}
	down()
}

// connectedLocked notes whether any session is open and returns what to do about it without the
// lock.
func (p *Peer) connectedLocked() func() {
	now := p.out != nil || p.in != nil
	was := p.wasConnected
	p.wasConnected = now
	if !was || now || p.base.ctx.Err() != nil {
		return func() {}
	}
	return func() {
		p.base.changed()
		p.base.down.tell(p.identity)
	}
}

// OnDown adds an observer that is told the identity of a node when the last
// session with it, in either direction, is over. It must not block. It says that
// connections broke, not that the node is dead.
func (l *Link) OnDown(f func(identity string)) {
	l.down.add(f)
}

// Alive says when the last byte of that node arrived (zero: never) and whether
// a session with it is open, in either direction.
func (l *Link) Alive(identity string) (lastHeard time.Time, connected bool) {
	p := l.Known(identity)
	if p == nil {
		return time.Time{}, false
	}
	if at := p.Heard(); at != 0 {
		lastHeard = l.At(at)
	}
	v := p.Look()
	return lastHeard, v.Out != nil || v.In != nil
}

// upLocked tells those who wait for this node that a session to it is open.
func (p *Peer) upLocked() {
	if p.up != nil {
		close(p.up)
		p.up = nil
	}
}

// Identity names the node.
func (p *Peer) Identity() string { return p.identity }

// Heard is the link clock of the last byte that came from that node; 0 never.
func (p *Peer) Heard() int64 { return p.heard.Load() }

// View is what there was between two nodes at one moment.
type View struct {
	Out *Session // to that node; nil: none
	In  *Inbound // from that node; nil: none
	// Refused: there is no session, and the last dial was refused: no process listens there.
	Refused bool
}

// Look gives what there is between this node and that one now.
func (p *Peer) Look() View {
	p.mu.Lock()
	defer p.mu.Unlock()
	return View{Out: p.out, In: p.in, Refused: p.refused && p.out == nil && p.in == nil}
}

// Dial begins to open a session to that node where there is none, unless one attempt is under way
// or the last one was a moment ago.
func (p *Peer) Dial() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.out == nil && p.dialing[Control] == nil && p.base.Now() >= p.retryAt {
		p.dialLocked(Control)
	}
}

// Up says whether a session to that node is open, and if not gives what is closed when one opens.
func (p *Peer) Up() (open bool, up <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.out != nil {
		return true, nil
	}
	if p.up == nil {
		p.up = make(chan struct{})
	}
	return false, p.up
}

// Open gives the open session to that node with a connection of that class, dialing where there is
// none. Its errors are all ErrNotSent: nothing was asked yet.
func (p *Peer) Open(ctx context.Context, cl Class) (*Session, error) {
	s, _, err := p.obtain(ctx, cl)
	return s, err
}
