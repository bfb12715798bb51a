package peer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	minBackoff = 50 * time.Millisecond
	maxBackoff = time.Second
	// settled is how long a session must live before its end is no reason to wait before the next dial.
	settled = time.Second
)

// peerState is what this link knows about one other node: its session out, its session in.
type peerState struct {
	link     *Link
	identity string
	heard    atomic.Int64 // link clock of the last byte that came from it; 0 never
	gone     atomic.Bool  // as Link.Gone says
	signs    heardSigns
	appends  atomic.Int64 // bytes of AppendEntries to it that wait or are unanswered, of all groups

	mu      sync.Mutex // guards what follows
	out     *session   // nil: none
	dialing [2]*dialAttempt
	fails   int
	retryAt int64 // link clock
	lastErr error
	refused bool          // the last dial was: nobody listens there
	up      chan struct{} // closed when a session to it opens; nil: nobody waits for that

	wantedSince int64 // link clock; 0: no session is kept for its own sake

	in *inbound // nil: none
	// The newest generation admitted. Never goes down within one boot.
	inBoot, inGeneration uint64

	wasConnected bool
}

// dialAttempt is shared by everyone who waits for the same connection.
type dialAttempt struct {
	done chan struct{}
	err  error // valid once done is closed
}

// maxPeers bounds the nodes that are remembered: anybody can say a new name.
const maxPeers = 4096

func (l *Link) peer(identity string) *peerState {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.peers[identity]
	if p == nil {
		if len(l.peers) >= maxPeers {
			l.forgetPeersLocked()
		}
		p = &peerState{link: l, identity: identity}
		l.peers[identity] = p
	}
	return p
}

// forgetPeersLocked forgets nodes that have no session. TryLock, because the lock order is
// the other way round: whoever is busy is not idle.
func (l *Link) forgetPeersLocked() {
	for id, p := range l.peers {
		if !p.mu.TryLock() {
			continue
		}
		if p.in == nil && p.out == nil && p.dialing == [2]*dialAttempt{} {
			delete(l.peers, id)
		}
		p.mu.Unlock()
	}
}

// goFunc runs f in a goroutine that Close waits for; false when closed already.
func (l *Link) goFunc(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.wg.Go(f)
	return true
}

// obtain gives an open connection of class cl, dialing where there is none.
// Its errors are all ErrNotSent: nothing was asked yet.
func (p *peerState) obtain(ctx context.Context, cl class) (*session, *conn, error) {
	for {
		if p.link.ctx.Err() != nil {
			return nil, nil, notSent(ErrClosed)
		}
		p.mu.Lock()
		want := cl
		if s := p.out; s == nil {
			want = classControl
		} else if c := s.conn(cl); c != nil {
			p.mu.Unlock()
			return s, c, nil
		}
		a := p.dialing[want]
		if a == nil {
			if p.link.now() < p.retryAt {
				err := p.lastErr
				p.mu.Unlock()
				return nil, nil, notSent(err)
			}
			a = &dialAttempt{done: make(chan struct{})}
			p.dialing[want] = a
			if !p.link.goFunc(func() { p.dial(want, a) }) {
				p.dialing[want] = nil
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
		case <-p.link.ctx.Done():
			return nil, nil, notSent(ErrClosed)
		}
	}
}

// dial opens one connection and, for a control connection, the session with it.
func (p *peerState) dial(cl class, a *dialAttempt) {
	s, c, err := p.dialOnce(cl)
	p.mu.Lock()
	p.dialing[cl] = nil
	before, failsBefore := p.lastErr, p.fails
	if err == nil {
		if cl == classControl {
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
	p.link.pulseSoon()
	if err != nil {
		if failsBefore == 0 || before == nil || before.Error() != err.Error() {
			p.link.log.Warn("cannot reach node", "node", p.identity, "error", err)
		}
	} else {
		if cl == classControl {
			p.link.log.Info("node reached", "node", p.identity, "addr", c.remote, "generation", s.generation)
		}
		c.start()
		if cl == classControl {
			p.warmBulk()
		}
	}
	a.err = err
	close(a.done)
	down()
}

// warmBulk opens the session's second connection before it is needed: big answers take it as well.
func (p *peerState) warmBulk() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.out == nil || p.dialing[classBulk] != nil || p.out.conn(classBulk) != nil {
		return
	}
	a := &dialAttempt{done: make(chan struct{})}
	p.dialing[classBulk] = a
	if !p.link.goFunc(func() { p.dial(classBulk, a) }) {
		p.dialing[classBulk] = nil
	}
}

func (p *peerState) dialOnce(cl class) (*session, *conn, error) {
	l := p.link
	addr, ok := l.cfg.Resolve(p.identity)
	if !ok {
		return nil, nil, fmt.Errorf("%w for %q", ErrUnknownPeer, p.identity)
	}
	var s *session
	if cl == classControl {
		s = newSession(l, p, p.identity, l.generation.Add(1))
	} else {
		p.mu.Lock()
		s = p.out
		p.mu.Unlock()
		if s == nil {
			return nil, nil, ErrBroken
		}
	}
	nc, a, err := l.dialHello(l.ctx, addr, hello{class: cl, generation: s.generation, target: p.identity})
	if err != nil {
		return nil, nil, fmt.Errorf("node %s at %s: %w", p.identity, addr, err)
	}
	if cl == classControl {
		s.version, s.boot = a.version, a.boot
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
func (p *peerState) failedLocked(err error) {
	p.lastErr = err
	p.fails++
	if errors.Is(err, ErrUnknownPeer) {
		// Nothing was dialed, and the address book may learn it any moment. But a failure makes a round of the pulse,
		// the round may ask this peer again, and that one would fail at once.
		p.retryAt = p.link.now() + int64(minBackoff)
		return
	}
	wait := min(minBackoff<<min(p.fails-1, 10), maxBackoff)
	wait = wait/2 + rand.N(wait)
	p.retryAt = p.link.now() + int64(wait)
}

// lost is called by a session of this peer that is over.
func (p *peerState) lost(s *session, err error) {
	p.mu.Lock()
	if p.out == s {
		p.out = nil
		if p.link.now()-s.opened < int64(settled) {
			p.failedLocked(err)
		}
	}
	down := p.connectedLocked()
	p.mu.Unlock()
	p.link.stats.sessionsLost.Add(1)
	p.signs.refuse()
	p.link.pulseSoon()
	if !errors.Is(err, ErrClosed) {
		p.link.log.Warn("session to node lost", "node", p.identity, "generation", s.generation, "error", err)
	}
	down()
}

// connectedLocked notes whether any session is open and returns what to do about it without the lock.
func (p *peerState) connectedLocked() func() {
	now := p.out != nil || p.in != nil
	was := p.wasConnected
	p.wasConnected = now
	if !was || now || p.link.ctx.Err() != nil {
		return func() {}
	}
	return func() {
		p.link.pulseSoon()
		p.link.mu.Lock()
		observers := p.link.onDown
		p.link.mu.Unlock()
		for _, f := range observers {
			f(p.identity)
		}
	}
}

// OnDown adds an observer that is told the identity of a node when the last
// session with it, in either direction, is over. It must not block. It says that
// connections broke, not that the node is dead.
func (l *Link) OnDown(f func(identity string)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.onDown = append(l.onDown[:len(l.onDown):len(l.onDown)], f)
}

// Alive says when the last byte of that node arrived (zero: never) and whether
// a session with it is open, in either direction.
func (l *Link) Alive(identity string) (lastHeard time.Time, connected bool) {
	l.mu.Lock()
	p := l.peers[identity]
	l.mu.Unlock()
	if p == nil {
		return time.Time{}, false
	}
	s := p.snapshot()
	return s.LastHeard, s.Connected
}

func (p *peerState) snapshot() PeerStats {
	s := PeerStats{Identity: p.identity}
	if at := p.heard.Load(); at != 0 {
		s.LastHeard = p.link.start.Add(time.Duration(at))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Connected = p.out != nil || p.in != nil
	if p.lastErr != nil {
		s.LastError = p.lastErr.Error()
	}
	return s
}

// maxAppends bounds the AppendEntries of all groups that one other node has not answered. Beyond it they
// fail: each group's Raft reads the entries again when it tries again, where it would hold them while it waits.
const maxAppends = 128 << 20

// holdAppend takes n bytes of that bound; one request alone may be larger. release gives them back, once.
func (p *peerState) holdAppend(n int64) (release func(), err error) {
	if p.appends.Add(n) > max(maxAppends, n) {
		p.appends.Add(-n)
		return nil, notSent(fmt.Errorf("%w: %d MB to %s are unanswered", ErrBusy, maxAppends>>20, p.identity))
	}
	return func() { p.appends.Add(-n) }, nil
}

// parkFor is how long a request to a node that is gone waits for it to come back before it fails, or before it
// is asked whether it is still wanted. Raft asks again after every failure, for each group, and after a dozen
// of them only every ten seconds: parked, it asks seldom while the node is away and at once when it is back.
const parkFor = 10 * time.Second

// park waits while the node is gone and no session to it is open, until done is closed, and
// every parkFor asks wanted whether to go on.
func (p *peerState) park(done <-chan struct{}, wanted func() bool) {
	for p.parkOnce(done) && wanted() {
	}
}

// parkOnce says whether it waited for as long as it may and the node is still gone.
func (p *peerState) parkOnce(done <-chan struct{}) bool {
	if !p.gone.Load() {
		return false
	}
	p.mu.Lock()
	if p.out != nil {
		p.mu.Unlock()
		return false
	}
	if p.up == nil {
		p.up = make(chan struct{})
	}
	up := p.up
	p.mu.Unlock()
	p.link.stats.parked.Add(1)
	timer := time.NewTimer(parkFor)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-up:
	case <-done:
	}
	return false
}

// upLocked tells those who wait for this node that a session to it is open.
func (p *peerState) upLocked() {
	if p.up != nil {
		close(p.up)
		p.up = nil
	}
}

// Drop closes all sessions with that node and forgets its back-off: it was removed, or its address changed.
func (l *Link) Drop(identity string) {
	l.mu.Lock()
	p := l.peers[identity]
	l.mu.Unlock()
	if p == nil {
		return
	}
	p.mu.Lock()
	out, in := p.out, p.in
	p.fails, p.retryAt, p.lastErr, p.refused = 0, 0, nil, false
	p.mu.Unlock()
	err := fmt.Errorf("%w: dropped", ErrBroken)
	if out != nil {
		out.fail(err)
	}
	if in != nil {
		in.close(err)
	}
}

// dialHello dials addr and shakes hands. h needs class, generation and target;
// the rest is filled in. It gives what the other side answered.
func (l *Link) dialHello(ctx context.Context, addr string, h hello) (net.Conn, helloAnswer, error) {
	l.stats.dials.Add(1)
	nc, a, err := l.dialHelloOnce(ctx, addr, h)
	if err != nil {
		l.stats.dialsFailed.Add(1)
	}
	return nc, a, err
}

func (l *Link) dialHelloOnce(ctx context.Context, addr string, h hello) (net.Conn, helloAnswer, error) {
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	nc, err := l.cfg.Dial(dctx, addr)
	if err != nil {
		return nil, helloAnswer{}, err
	}
	// The handshake ends with the context, too.
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	a, err := l.shake(nc, h)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = nc.Close()
		return nil, helloAnswer{}, err
	}
	return nc, a, nil
}

func (l *Link) shake(nc net.Conn, h hello) (a helloAnswer, err error) {
	h.versionMin, h.versionMax = versionMin, versionMax
	h.boot, h.identity, h.clusterID = l.boot, l.cfg.Self, l.cfg.ClusterID()
	if err := nc.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return a, err
	}
	if err := writeHello(nc, h.encode()); err != nil {
		return a, err
	}
	body, err := readHello(nc)
	if err != nil {
		return a, fmt.Errorf("handshake: %w", err)
	}
	a, err = decodeHelloAnswer(body)
	if err != nil {
		return a, fmt.Errorf("handshake: %w", err)
	}
	if a.reason != reasonNone {
		return a, refusal(a.reason, []byte(a.text))
	}
	if a.version < versionMin || a.version > versionMax {
		return a, fmt.Errorf("%w: it chose version %d", ErrVersionMismatch, a.version)
	}
	if h.clusterID != "" && a.clusterID != "" && h.clusterID != a.clusterID {
		return a, fmt.Errorf("%w: %q, not %q", ErrClusterMismatch, a.clusterID, h.clusterID)
	}
	if h.target != "" && a.identity != h.target {
		return a, fmt.Errorf("%w: %q, not %q", ErrIdentityMismatch, a.identity, h.target)
	}
	return a, nc.SetDeadline(time.Time{})
}
