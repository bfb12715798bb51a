package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// inbound is the accepting side of one session of another node.
//
// Invariant: at most one inbound per identity has a context that has not ended
// (single calls apart), and it is the newest admitted: admit cancels the older one's
// under the same lock under which the newer one becomes visible, and before the hello is
// answered. So by the time the other side can send the first request of a new session,
// every handler of the old one has been told to stop.
type inbound struct {
	link             *Link
	peer             *peerState
	identity         string
	boot, generation uint64
	version          uint16
	single           bool
	ctx              context.Context
	cancel           context.CancelCauseFunc

	mu      sync.Mutex // guards what follows
	conns   [2]*conn
	calls   map[uint64]context.CancelFunc
	streams map[uint64]*inStream
	load    int64        // bytes that calls in progress hold
	appends atomic.Int64 // bytes of Raft's requests that wait for their groups
	closed  bool
}

// welcome shakes hands with a stranger and starts its connection.
func (l *Link) welcome(nc net.Conn) {
	_ = nc.SetDeadline(time.Now().Add(handshakeTimeout))
	stop := context.AfterFunc(l.ctx, func() { _ = nc.Close() })
	defer stop()
	body, err := readHello(nc)
	if err != nil {
		if !errors.Is(err, io.EOF) { // nothing at all is a port scan or a health check
			l.turnAway(nc, "", err)
		}
		_ = nc.Close()
		return
	}
	h, err := decodeHello(body)
	if err != nil {
		l.turnAway(nc, "", err)
		_ = nc.Close()
		return
	}
	ours := helloAnswer{identity: l.cfg.Self, clusterID: l.cfg.ClusterID(), boot: l.boot}
	version, err := l.judge(h, ours.clusterID)
	if err == nil && l.connections() >= l.cfg.MaxConnections {
		err = ErrBusy
	}
	var c *conn
	if err == nil {
		p := l.peer(h.identity)
		c = newConn(l, nc, h.class, &p.heard)
		err = p.admit(h, version, c)
	}
	if err != nil {
		ours.reason, ours.text = reasonOf(err), err.Error()
		_ = writeHello(nc, ours.encode())
		_ = nc.Close()
		if c != nil {
			c.cancel(err)
		}
		if !errors.Is(err, errStale) {
			l.turnAway(nc, h.identity, err)
		}
		return
	}
	ours.version = version
	if err = writeHello(nc, ours.encode()); err == nil {
		err = nc.SetDeadline(time.Time{})
	}
	if err != nil {
		c.close(err)
		return
	}
	l.stats.accepted.Add(1)
	c.heard.Store(l.now())
	c.start()
}

func (l *Link) turnAway(nc net.Conn, identity string, err error) {
	l.stats.refused.Add(1)
	if l.logLimit.Allow() {
		l.log.Warn("peer connection refused", "remote", nc.RemoteAddr(), "node", identity, "error", err)
	}
}

// judge decides whether the stranger may come in, and with which version.
func (l *Link) judge(h hello, clusterID string) (uint16, error) {
	version, ok := chooseVersion(h.versionMin, h.versionMax)
	switch {
	case l.ctx.Err() != nil:
		return 0, ErrStopping
	case !ok:
		return 0, fmt.Errorf("%w: it speaks %d to %d, %s speaks %d to %d", ErrVersionMismatch, h.versionMin, h.versionMax, l.cfg.Self, versionMin, versionMax)
	case h.clusterID != "" && clusterID != "" && h.clusterID != clusterID:
		return 0, fmt.Errorf("%w: %q, not %q", ErrClusterMismatch, h.clusterID, clusterID)
	case h.target != "" && h.target != l.cfg.Self:
		return 0, fmt.Errorf("%w: %q was dialed, %q is here", ErrIdentityMismatch, h.target, l.cfg.Self)
	case h.class > classSingle:
		return 0, fmt.Errorf("%w: %s", errProto, h.class)
	}
	return version, nil
}

// admit makes c part of the session its hello names. A control connection opens a
// session and ends the one before.
func (p *peerState) admit(h hello, version uint16, c *conn) error {
	l := p.link
	if h.class == classSingle {
		in := newInbound(l, p, h, version)
		in.single = true
		in.adopt(c, classControl)
		return nil
	}
	p.mu.Lock()
	if h.class == classBulk {
		in := p.in
		p.mu.Unlock()
		if in == nil || in.boot != h.boot || in.generation != h.generation || !in.adopt(c, classBulk) {
			return errStale
		}
		return nil
	}
	if h.boot == p.inBoot && h.generation <= p.inGeneration {
		p.mu.Unlock()
		return errStale
	}
	in := newInbound(l, p, h, version)
	in.adopt(c, classControl)
	old := p.in
	p.in, p.inBoot, p.inGeneration = in, h.boot, h.generation
	p.signs.reset(in)
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

func newInbound(l *Link, p *peerState, h hello, version uint16) *inbound {
	in := &inbound{
		link: l, peer: p, identity: h.identity, boot: h.boot, generation: h.generation, version: version,
		calls: make(map[uint64]context.CancelFunc), streams: make(map[uint64]*inStream),
	}
	in.ctx, in.cancel = context.WithCancelCause(l.ctx)
	return in
}

func (in *inbound) remote() string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.conns[classControl].remote
}

func (in *inbound) adopt(c *conn, slot class) bool {
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
func (in *inbound) close(err error) {
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
	if in.single {
		return
	}
	in.peer.signs.ended(in)
	in.peer.mu.Lock()
	if in.peer.in == in {
		in.peer.in = nil
	}
	down := in.peer.connectedLocked()
	in.peer.mu.Unlock()
	if in.link.ctx.Err() == nil && !errors.Is(err, errStale) {
		in.link.log.Info("session from node ended", "node", in.identity, "generation", in.generation, "error", err)
	}
	down()
}

// receive gets every frame of the dialing side, on the reading goroutine: nothing here waits.
func (in *inbound) receive(c *conn, h frameHeader, body []byte) error {
	switch h.typ {
	case framePing:
		return in.urgent(c, newMessage(framePong, 0, h.id))
	case frameSign:
		return in.sign(h, body)
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
	case frameRaft:
		return in.raftRequest(c, h, body)
	case frameChunk:
		in.mu.Lock()
		st := in.streams[h.id]
		in.mu.Unlock()
		if st == nil {
			return nil // given up here; the answer that says so is on its way
		}
		return st.feed(body)
	}
	return fmt.Errorf("%w: frame type %d from the dialing side", errProto, h.typ)
}

// urgent sends a tiny message, or ends the connection if the other side does not read.
func (in *inbound) urgent(c *conn, m *message) error {
	if !c.sendUrgent(m) && c.ctx.Err() == nil {
		return fmt.Errorf("%w: it sends and does not read", errProto)
	}
	return nil
}

// refuse answers that the request was surely not worked on.
func (in *inbound) refuse(c *conn, id uint64, err error) error {
	in.link.stats.refused.Add(1)
	return in.urgent(c, newMessage(frameAnswer, statusRefused, id, []byte{reasonOf(err)}, []byte(err.Error())))
}

// answer sends an answer, a large one on the bulk connection. It waits for room, at most as long as the session lives.
func (in *inbound) answer(c *conn, id uint64, status uint8, parts ...[]byte) {
	m := newMessage(frameAnswer, status, id, parts...)
	if m.size > int64(in.link.cfg.MaxMessageBytes) {
		m = newMessage(frameAnswer, statusError, id, []byte(ErrTooLarge.Error()))
	}
	if m.size > bulkSize && c.class == classControl {
		in.mu.Lock()
		if b := in.conns[classBulk]; b != nil {
			c = b
		}
		in.mu.Unlock()
	}
	_ = c.send(in.ctx, m) // an error means that the session is over: there is nobody to tell
}
