// Package peertest is a network that tests can break.
//
// You are here: for tests only, of package peer and of what is built on it. A
// Network lives in memory, with Listen and Dial for package peer's Config, and
// works in the virtual time of testing/synctest; Proxy puts the same faults between a
// real dialer and a real listener. Faults are named by nodes and have a
// direction: a cut holds bytes back as TCP does when packets are lost (they
// arrive after Heal, if the connection still lives), a delay is latency and does not
// lower throughput, Break resets connections, Refuse turns new ones away.
package peertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// DialFunc is how a node opens connections.
type DialFunc func(ctx context.Context, addr string) (net.Conn, error)

// way is one direction between two nodes.
type way struct{ from, to string }

// capacity is how much is on the way in one direction before writing waits.
const capacity = 256 << 10

// Network connects nodes by name. All methods are safe for concurrent use.
type Network struct {
	// Latency is how long bytes and packets take each way where no Delay says otherwise. Set it
	// before use.
	Latency time.Duration

	mu        sync.Mutex // guards everything, of halves and conns too
	listeners map[string]*listener
	gossips   map[string]*gossip // by address
	nodeAt    map[string]string  // address → node, for Proxy
	cut       map[way]bool
	delay     map[way]time.Duration
	refuse    map[string]bool
	conns     map[*conn]struct{}
	changed   chan struct{} // closed and replaced when a rule changes
	dials     int
}

// New gives a network without faults.
func New() *Network {
	return &Network{
		listeners: map[string]*listener{}, gossips: map[string]*gossip{}, nodeAt: map[string]string{}, cut: map[way]bool{}, delay: map[way]time.Duration{},
		refuse: map[string]bool{}, conns: map[*conn]struct{}{}, changed: make(chan struct{}),
	}
}

func (n *Network) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	close(n.changed)
	n.changed = make(chan struct{})
	for c := range n.conns {
		c.in.cond.Broadcast()
		c.out.cond.Broadcast()
	}
}

// Cut holds back everything between a and b, both ways.
func (n *Network) Cut(a, b string) {
	n.change(func() { n.cut[way{a, b}], n.cut[way{b, a}] = true, true })
}

// CutOneWay holds back what from sends to to; the other direction goes on.
func (n *Network) CutOneWay(from, to string) { n.change(func() { n.cut[way{from, to}] = true }) }

// Heal ends the cuts between a and b.
func (n *Network) Heal(a, b string) {
	n.change(func() { delete(n.cut, way{a, b}); delete(n.cut, way{b, a}) })
}

// Isolate cuts node off from all others named.
func (n *Network) Isolate(node string, others ...string) {
	for _, o := range others {
		if o != node {
			n.Cut(node, o)
		}
	}
}

// HealAll ends all cuts, delays and refusals.
func (n *Network) HealAll() {
	n.change(func() { clear(n.cut); clear(n.delay); clear(n.refuse) })
}

// Delay makes bytes from a to b and back take d each way; 0 ends it.
func (n *Network) Delay(a, b string, d time.Duration) {
	n.change(func() { n.delay[way{a, b}], n.delay[way{b, a}] = d, d })
}

// latencyLocked is called with the lock held.
func (n *Network) latencyLocked(w way) time.Duration {
	if d, ok := n.delay[w]; ok {
		return d
	}
	return n.Latency
}

// Refuse makes dials to node fail at once, or no longer.
func (n *Network) Refuse(node string, on bool) { n.change(func() { n.refuse[node] = on }) }

// Break resets all connections between a and b; what was on the way is lost.
func (n *Network) Break(a, b string) {
	n.change(func() {
		for c := range n.conns {
			if (c.node == a && c.peer == b) || (c.node == b && c.peer == a) {
				c.in.fail(syscall.ECONNRESET)
				c.out.fail(syscall.ECONNRESET)
			}
		}
	})
}

// Dials counts the dials so far, also those that failed.
func (n *Network) Dials() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials
}

// Listen gives node a listener at addr, which is any string that nobody else listens at.
func (n *Network) Listen(node, addr string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[addr] != nil {
		return nil, fmt.Errorf("peertest: %s: %w", addr, syscall.EADDRINUSE)
	}
	l := &listener{net: n, node: node, addr: addr, backlog: make(chan *conn, 64), closed: make(chan struct{})}
	n.listeners[addr] = l
	return l, nil
}

// Dial gives the dialer of node.
func (n *Network) Dial(node string) DialFunc {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		n.mu.Lock()
		n.dials++
		for {
			l := n.listeners[addr]
			if l == nil || n.refuse[l.node] {
				n.mu.Unlock()
				return nil, &net.OpError{Op: "dial", Net: "peertest", Addr: address(addr), Err: syscall.ECONNREFUSED}
			}
			if n.cut[way{node, l.node}] || n.cut[way{l.node, node}] {
				if err := n.waitLocked(ctx); err != nil {
					return nil, &net.OpError{Op: "dial", Net: "peertest", Addr: address(addr), Err: err}
				}
				continue
			}
			near, far := n.pairLocked(node, l.node, addr)
			n.mu.Unlock()
			select {
			case l.backlog <- far:
				return near, nil
			case <-l.closed:
			case <-ctx.Done():
			}
			_ = near.Close()
			return nil, &net.OpError{Op: "dial", Net: "peertest", Addr: address(addr), Err: syscall.ECONNREFUSED}
		}
	}
}

// waitLocked waits for a rule to change. It keeps the lock only when it returns nil.
func (n *Network) waitLocked(ctx context.Context) error {
	changed := n.changed
	n.mu.Unlock()
	select {
	case <-changed:
		n.mu.Lock()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Name says which node listens at a real address, for Proxy.
func (n *Network) Name(addr, node string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodeAt[addr] = node
}

// Proxy gives a dialer of node that dials with dial (nil: TCP) and puts this network's faults
// between. Addresses without Name count as nodes of their own.
func (n *Network) Proxy(node string, dial DialFunc) DialFunc {
	if dial == nil {
		var d net.Dialer
		dial = func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
	}
	return func(ctx context.Context, addr string) (net.Conn, error) {
		n.mu.Lock()
		n.dials++
		to, ok := n.nodeAt[addr]
		if !ok {
			to = addr
		}
		for n.cut[way{node, to}] || n.cut[way{to, node}] {
			if err := n.waitLocked(ctx); err != nil {
				return nil, &net.OpError{Op: "dial", Net: "peertest", Addr: address(addr), Err: err}
			}
		}
		refused := n.refuse[to]
		n.mu.Unlock()
		if refused {
			return nil, &net.OpError{Op: "dial", Net: "peertest", Addr: address(addr), Err: syscall.ECONNREFUSED}
		}
		real, err := dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		n.mu.Lock()
		near, far := n.pairLocked(node, to, addr)
		n.mu.Unlock()
		pump := func(dst, src net.Conn) {
			_, _ = io.Copy(dst, src)
			_ = dst.Close()
			_ = src.Close()
		}
		go pump(real, far)
		go pump(far, real)
		return near, nil
	}
}

func (n *Network) pairLocked(a, b, addr string) (near, far *conn) {
	ab, ba := newHalf(n, way{a, b}), newHalf(n, way{b, a})
	near = &conn{net: n, node: a, peer: b, in: ba, out: ab, local: address(a), remote: address(addr)}
	far = &conn{net: n, node: b, peer: a, in: ab, out: ba, local: address(addr), remote: address(a)}
	n.conns[near], n.conns[far] = struct{}{}, struct{}{}
	return near, far
}

// address is a net.Addr.
type address string

func (a address) Network() string { return "peertest" }
func (a address) String() string  { return string(a) }

type listener struct {
	net     *Network
	node    string
	addr    string
	backlog chan *conn
	once    sync.Once
	closed  chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.backlog:
		return c, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: "peertest", Addr: address(l.addr), Err: net.ErrClosed}
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		delete(l.net.listeners, l.addr)
		l.net.mu.Unlock()
		close(l.closed)
		for {
			select {
			case c := <-l.backlog:
				_ = c.Close()
			default:
				return
			}
		}
	})
	return nil
}

func (l *listener) Addr() net.Addr { return address(l.addr) }

// half is one direction of a connection.
type half struct {
	net  *Network
	way  way
	cond *sync.Cond // on the network's lock

	chunks        []chunk
	size          int
	ended         bool  // the writer closed: EOF behind the chunks
	gone          bool  // the reader closed
	err           error // broken
	readBy, wrtBy deadline
}

type chunk struct {
	data []byte
	at   time.Time // not to be read before
}

func newHalf(n *Network, w way) *half {
	h := &half{net: n, way: w}
	h.cond = sync.NewCond(&n.mu)
	return h
}

func (h *half) fail(err error) {
	if h.err == nil {
		h.err = err
		h.chunks, h.size = nil, 0
	}
	h.cond.Broadcast()
}

func (h *half) read(p []byte) (int, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	for {
		cut := h.net.cut[h.way]
		switch {
		case h.gone:
			return 0, net.ErrClosed
		case h.err != nil:
			return 0, h.err
		case h.readBy.over():
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case len(h.chunks) > 0 && !cut:
			first := &h.chunks[0]
			if wait := time.Until(first.at); wait > 0 {
				t := time.AfterFunc(wait, h.wakeUp)
				h.cond.Wait()
				t.Stop()
				continue
			}
			m := copy(p, first.data)
			if first.data = first.data[m:]; len(first.data) == 0 {
				h.chunks = h.chunks[1:]
			}
			h.size -= m
			h.cond.Broadcast()
			return m, nil
		case len(h.chunks) == 0 && h.ended && !cut:
			return 0, io.EOF
		}
		h.cond.Wait()
	}
}

func (h *half) write(p []byte) (int, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	done := 0
	for {
		switch {
		case h.ended:
			return done, net.ErrClosed
		case h.err != nil:
			return done, h.err
		case h.gone && !h.net.cut[h.way]:
			return done, syscall.EPIPE
		case h.wrtBy.over():
			return done, os.ErrDeadlineExceeded
		case len(p) == 0:
			return done, nil
		case h.size < capacity:
			m := min(len(p), capacity-h.size)
			h.chunks = append(h.chunks, chunk{append([]byte(nil), p[:m]...), time.Now().Add(h.net.latencyLocked(h.way))})
			h.size += m
			done += m
			p = p[m:]
			h.cond.Broadcast()
			continue
		}
		h.cond.Wait()
	}
}

func (h *half) wakeUp() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.cond.Broadcast()
}

// deadline is one of a connection's; the network's lock guards it.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) over() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) set(t time.Time, h *half) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = t
	if !t.IsZero() {
		d.timer = time.AfterFunc(max(0, time.Until(t)), h.wakeUp)
	}
	h.cond.Broadcast()
}

// conn is one end of a connection.
type conn struct {
	net           *Network
	node, peer    string
	in, out       *half
	local, remote net.Addr
}

func (c *conn) Read(p []byte) (int, error)  { return c.wrap(c.in.read(p)) }
func (c *conn) Write(p []byte) (int, error) { return c.wrap(c.out.write(p)) }

func (c *conn) wrap(n int, err error) (int, error) {
	if err != nil && !errors.Is(err, io.EOF) {
		err = &net.OpError{Op: "peertest", Net: "peertest", Source: c.local, Addr: c.remote, Err: err}
	}
	return n, err
}

func (c *conn) Close() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	c.in.gone, c.out.ended = true, true
	c.in.readBy.set(time.Time{}, c.in)
	c.out.wrtBy.set(time.Time{}, c.out)
	delete(c.net.conns, c)
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.in.gone {
		return net.ErrClosed
	}
	c.in.readBy.set(t, c.in)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.out.ended {
		return net.ErrClosed
	}
	c.out.wrtBy.set(t, c.out)
	return nil
}
