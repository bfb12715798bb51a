package link

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// Inbound is the accepting side of one session of another node.
//
// Invariant: at most one Inbound per identity has a context that has not ended
// (single calls apart), and it is the newest admitted: admit cancels the older one's
// under the same lock under which the newer one becomes visible, and before the hello is
// answered. So by the time the other side can send the first request of a new session,
// every handler of the old one has been told to stop.
type Inbound struct {
	base             *base
	over             func(*Inbound) (down func()) // told when it is closed; nil for a single call
	identity         string
	boot, generation uint64
	version          uint16
	ctx              context.Context
	cancel           context.CancelCauseFunc
	held             atomic.Int64 // bytes of requests that wait for who serves them

	mu      locks.Mutex[Inbound] // guards what follows; nothing is called under it
	conns   [2]*conn
	calls   map[uint64]context.CancelFunc
	streams map[uint64]*inStream
	load    int64 // bytes that calls in progress hold
	closed  bool
}

// Node names the other side.
func (in *Inbound) Node() string { return in.identity }

// Boot is the other process's random number.
func (in *Inbound) Boot() uint64 { return in.boot }

// TakesBeacons says whether both sides know beacons.
func (in *Inbound) TakesBeacons() bool { return in.version >= versionBeacons }

// Close ends the session: handlers' contexts first, then both connections.
func (in *Inbound) Close(err error) { in.close(err) }

// admit makes c part of the session its hello names. A control connection opens a
// session and ends the one before.
func (p *Peer) admit(h hello, version uint16, c *conn) error {
	l := p.base
	if h.class == single {
		in := newInbound(l, h, version, nil)
		in.adopt(c, Control)
		return nil
	}
	p.mu.Lock()
	if h.class == Bulk {
		in := p.in
		p.mu.Unlock()
		if in == nil || in.boot != h.boot || in.generation != h.generation || !in.adopt(c, Bulk) {
			return errStale
		}
		return nil
	}
	if h.boot == p.inBoot && h.generation <= p.inGeneration {
		p.mu.Unlock()
		return errStale
	}
	in := newInbound(l, h, version, p.ended)
	in.adopt(c, Control)
	old := p.in
	p.in, p.inBoot, p.inGeneration = in, h.boot, h.generation
	l.observer.Accepted(in)
	p.retryAt = 0 // it is alive: no reason to wait with our own dial
	if old != nil {
		old.cancel(errStale)
	}
	p.connectedLocked()
	p.mu.Unlock()
	if old != nil {
		old.close(errStale)
		if old.boot != h.boot && l.logLimit.Allow() {
			l.log.Warn("a new process of this node took over its session; if it was not restarted, two processes have the same identity",
				"node", h.identity, "was", old.remote(), "is", c.remote)
		}
	}
	return nil
}

func newInbound(b *base, h hello, version uint16, over func(*Inbound) (down func())) *Inbound {
	in := &Inbound{
		base: b, over: over, identity: h.identity, boot: h.boot, generation: h.generation, version: version,
		calls: make(map[uint64]context.CancelFunc), streams: make(map[uint64]*inStream),
	}
	in.ctx, in.cancel = context.WithCancelCause(b.ctx)
	return in
}

func (in *Inbound) remote() string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.conns[Control].remote
}

func (in *Inbound) adopt(c *conn, slot Class) bool {
	c.receive = in.receive
	c.died = func(_ *conn, err error) { in.close(err) }
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed || in.conns[slot] != nil {
		c.died = nil
		return false
	}
	in.conns[slot] = c
	return true
}

// close ends the session: handlers' contexts first, then both connections.
func (in *Inbound) close(err error) {
	in.cancel(err)
	in.mu.Lock()
	if in.closed {
		in.mu.Unlock()
		return
	}
	in.closed = true
	conns, streams := in.conns, in.streams
	in.streams = nil
	in.mu.Unlock()
	for _, st := range streams {
		st.fail(fmt.Errorf("%w: %w", ErrBroken, err))
	}
	for _, c := range conns {
		if c != nil {
			c.close(err)
		}
	}
	if in.over == nil {
		return
	}
	down := in.over(in)
	if in.base.ctx.Err() == nil && !errors.Is(err, errStale) {
		in.base.log.Info("session from node ended", "node", in.identity, "generation", in.generation, "error", err)
	}
	down()
}

// ended is called by a session of this peer that is over. It gives what is to be done about that.
func (p *Peer) ended(in *Inbound) (down func()) {
	p.base.observer.Ended(in)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.in == in {
		p.in = nil
	}
	return p.connectedLocked()
}

// receive gets every frame of the dialing side, on the reading goroutine: nothing here waits.
func (in *Inbound) receive(c *conn, h frameHeader, body []byte) error {
	switch h.typ {
	case framePing:
		return in.urgent(c, newMessage(framePong, 0, h.id))
	case frameBeacon:
		if in.over == nil || !in.TakesBeacons() {
			return fmt.Errorf("%w: a beacon where none was agreed on", ErrProtocol)
		}
		return in.base.observer.Beacon(in, h.id, body)
	case frameCall:
		return in.startCall(c, h, body)
	case frameCancel:
		in.mu.Lock()
		cancel := in.calls[h.id]
		in.mu.Unlock()
		if cancel != nil {
			cancel()
		}
		return nil
	case frameRequest:
		return in.startRequest(c, h, body)
	case frameChunk:
		in.mu.Lock()
		st := in.streams[h.id]
		in.mu.Unlock()
		if st == nil {
			return nil // given up here; the answer that says so is on its way
		}
		return st.feed(body)
	}
	return fmt.Errorf("%w: frame type %d from the dialing side", ErrProtocol, h.typ)
}

// urgent sends a tiny message, or ends the connection if the other side does not read.
func (in *Inbound) urgent(c *conn, m *message) error {
	if !c.sendUrgent(m) && c.ctx.Err() == nil {
		return fmt.Errorf("%w: it sends and does not read", ErrProtocol)
	}
	return nil
}

// refuse answers that the request was surely not worked on.
func (in *Inbound) refuse(c *conn, id uint64, err error) error {
	in.base.stats.refused.Add(1)
	return in.urgent(c, newMessage(frameAnswer, StatusRefused, id, []byte{reasonOf(err)}, []byte(err.Error())))
}

// answer sends an answer, a large one on the bulk connection. It waits for room, at most as long as
// the session lives.
func (in *Inbound) answer(c *conn, id uint64, status uint8, parts ...[]byte) {
	m := newMessage(frameAnswer, status, id, parts...)
	if m.size > int64(in.base.cfg.MaxMessageBytes) {
		m = newMessage(frameAnswer, StatusError, id, []byte(ErrTooLarge.Error()))
	}
	if m.size > bulkSize && c.class == Control {
		in.mu.Lock()
		if b := in.conns[Bulk]; b != nil {
			c = b
		}
		in.mu.Unlock()
	}
	_ = c.send(in.ctx, m) // an error means that the session is over: there is nobody to tell
}
