package peer

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Config says who this node is and how others are reached.
type Config struct {
	// Self is the identity of this process, 1 to 255 bytes. It is Raft's ServerID and ServerAddress alike.
	Self string
	// ClusterID gives the id of the cluster this node belongs to, "" until formed (nil is the same).
	// Two nodes with different non-empty ids refuse each other. It is called from many goroutines.
	ClusterID func() string
	// Listener takes connections of other nodes; Close closes it. Nil: this link only dials.
	Listener net.Listener
	// Dial opens a connection to an address; nil is TCP. Tests inject faults here.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Resolve is the address book: where the node with this identity listens now.
	// It is asked before every dial and must not block.
	Resolve func(identity string) (addr string, ok bool)
	// Handler works on forwarded requests; nil refuses them all.
	Handler Handler
	// Logger gets one line per event: a node reached, lost, refused. Nil discards.
	Logger *slog.Logger
	// MaxMessageBytes bounds every message, both ways. Default 256 MiB.
	MaxMessageBytes int
	// MaxConnections bounds what is open in all; a cluster needs four per other node. Default 4096.
	MaxConnections int
	// Timeout of a Raft message, scaled up by its size. Default 10 s.
	Timeout time.Duration
	// MaxInFlight bounds the unanswered AppendEntries of one pipeline. Default 2, which
	// keeps the follower busy; more makes batches smaller and commits slower (see
	// hashicorp/raft's NetworkTransportConfig.MaxRPCsInFlight).
	MaxInFlight int
	// PingInterval is how often every connection is tried. Default 500 ms.
	PingInterval time.Duration
	// PingTimeout is after how much silence a connection counts as dead. Default 2.5 s.
	PingTimeout time.Duration

	// HeartbeatTimeout is raft.Config.HeartbeatTimeout of the groups. With it nodes send each
	// other signs of life, which spare idle groups most of their messages (where a tenth
	// of it is at least twice SignInterval), and notice who is gone. 0: neither.
	HeartbeatTimeout time.Duration
	// SignInterval is how often a sign of life is sent to every other node. Default 100 ms.
	SignInterval time.Duration
	// SuspectAfter is after how much silence a node is held for gone. Default 500 ms.
	SuspectAfter time.Duration
	// MaxAppendEntries is raft.Config.MaxAppendEntries of the groups. With it a pipeline gives way
	// where more than that many entries wait for a follower. 0: never.
	MaxAppendEntries int
	// OnOrphans is told, every SignInterval while there are any, which groups here have no
	// leader that they can rely on. It must not block.
	OnOrphans func([]Orphan)
	// Answered is told of every answer of a group here to a request of Raft, before it leaves, resp
	// nil for an error: tests hold them against each other. It must not block or change anything.
	Answered func(group string, req, resp any)
}

// Handler works on one forwarded request and gives the answer's bytes. It runs
// in a goroutine of its own. ctx ends when the caller gives up, when its session
// breaks, when the caller's node opens a newer session, or when this link closes; a handler must
// look at ctx before every step that cannot be taken back, because once ctx has ended
// the caller may already have asked elsewhere. payload is the handler's to keep.
// from is the identity of the caller's node.
type Handler func(ctx context.Context, from string, kind uint8, payload []byte) []byte

const (
	defaultMaxMessage   = 256 << 20
	defaultTimeout      = 10 * time.Second
	defaultInFlight     = 2
	defaultPingInterval = 500 * time.Millisecond
	defaultPingTimeout  = 2500 * time.Millisecond

	handshakeTimeout = 5 * time.Second
	dialTimeout      = 3 * time.Second
	// maxHandshakes bounds the strangers that are listened to at once.
	maxHandshakes         = 128
	defaultMaxConnections = 4096
	// closeWait is how long Close waits for handlers that do not notice that their context has ended.
	closeWait = 10 * time.Second
)

// Link is one node's end of the peer link. All methods are safe for concurrent use.
type Link struct {
	cfg   Config
	log   *slog.Logger
	boot  uint64
	start time.Time // zero of the link clock

	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // every goroutine of the link
	stats  counters

	stopping   atomic.Bool
	generation atomic.Uint64
	handshakes chan struct{}
	logLimit   *rate.Limiter // what strangers can make this node log

	poke    chan struct{}     // capacity 1: the pulse should not wait for its next tick
	awake   int64             // owned by the pulse: link clock since when this process runs without a pause
	pulsed  atomic.Int64      // link clock of the pulse's last round
	resumed atomic.Int64      // see Awake; 0: it has not stood still
	polling []*GroupTransport // owned by the pulse

	// Lock order: a peer's mu, then a session's, then a connection's, a group's, a peer's signs or this one.
	mu      sync.Mutex
	closed  bool
	watched map[string]bool // replaced, never changed
	peers   map[string]*peerState
	groups  map[string]*GroupTransport
	// For the pulse: groups has changed since it looked, and which were closed since.
	regrouped bool
	leaving   []*GroupTransport
	conns     map[*conn]struct{}
	onDown    []func(identity string)
}

// New starts a link. It panics if Self is empty or too long: that is a mistake of the program.
func New(cfg Config) *Link {
	if cfg.Self == "" || len(cfg.Self) > maxIdentity {
		panic(fmt.Sprintf("peer: identity of %d bytes, want 1 to %d", len(cfg.Self), maxIdentity))
	}
	if cfg.ClusterID == nil {
		cfg.ClusterID = func() string { return "" }
	}
	if cfg.Resolve == nil {
		cfg.Resolve = func(string) (string, bool) { return "", false }
	}
	if cfg.Dial == nil {
		var d net.Dialer
		cfg.Dial = func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	setDefault(&cfg.MaxMessageBytes, defaultMaxMessage)
	setDefault(&cfg.Timeout, defaultTimeout)
	setDefault(&cfg.MaxConnections, defaultMaxConnections)
	setDefault(&cfg.MaxInFlight, defaultInFlight)
	setDefault(&cfg.PingInterval, defaultPingInterval)
	setDefault(&cfg.PingTimeout, defaultPingTimeout)
	setDefault(&cfg.SignInterval, defaultSignInterval)
	setDefault(&cfg.SuspectAfter, defaultSuspectAfter)

	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails
	l := &Link{
		cfg:        cfg,
		log:        cfg.Logger,
		boot:       binary.BigEndian.Uint64(seed[:]),
		start:      time.Now(),
		handshakes: make(chan struct{}, maxHandshakes),
		logLimit:   rate.NewLimiter(1, 20),
		poke:       make(chan struct{}, 1),
		peers:      make(map[string]*peerState),
		groups:     make(map[string]*GroupTransport),
		conns:      make(map[*conn]struct{}),
	}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	if cfg.Listener != nil {
		l.wg.Go(l.acceptLoop)
	}
	l.wg.Go(l.keepalive)
	if cfg.HeartbeatTimeout > 0 {
		l.wg.Go(l.pulse)
	}
	return l
}

func setDefault[T int | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// now is the link clock: nanoseconds since New, monotonic.
func (l *Link) now() int64 { return int64(time.Since(l.start)) }

// StopAccepting makes this node refuse forwarded requests from now on, with an error
// that is ErrNotSent and ErrStopping at the caller. Raft's messages go on.
func (l *Link) StopAccepting() { l.stopping.Store(true) }

// Close ends everything: the listener, all connections, the contexts of all handlers and
// all transports. It waits for what it started, for handlers at most 10 seconds.
func (l *Link) Close() error {
	l.stopping.Store(true)
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	conns := make([]*conn, 0, len(l.conns))
	for c := range l.conns {
		conns = append(conns, c)
	}
	groups := make([]*GroupTransport, 0, len(l.groups))
	for _, g := range l.groups {
		groups = append(groups, g)
	}
	l.mu.Unlock()

	l.cancel(ErrClosed)
	if l.cfg.Listener != nil {
		_ = l.cfg.Listener.Close()
	}
	for _, c := range conns {
		c.close(ErrClosed)
	}
	for _, g := range groups {
		_ = g.Close()
	}
	done := make(chan struct{})
	go func() { l.wg.Wait(); close(done) }()
	timer := time.NewTimer(closeWait)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		l.log.Error("peer link closed, but handlers are still running")
		return errors.New("peer: handlers still running after Close")
	}
}

// track makes the keepalive and Close know c.
func (l *Link) track(c *conn) {
	l.mu.Lock()
	closed := l.closed
	if !closed {
		l.conns[c] = struct{}{}
	}
	l.mu.Unlock()
	if closed {
		c.close(ErrClosed)
	}
	if c.ctx.Err() != nil { // it was over before it began, and has untracked itself already
		l.untrack(c)
	}
}

func (l *Link) connections() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

func (l *Link) untrack(c *conn) {
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
}

// acceptLoop takes connections until the listener is closed.
func (l *Link) acceptLoop() {
	var delay time.Duration
	for {
		nc, err := l.cfg.Listener.Accept()
		if err != nil {
			if l.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors, for instance: others would be turned away as well if this one gave up.
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			l.log.Error("peer listener cannot accept", "error", err)
			select {
			case <-time.After(delay):
				continue
			case <-l.ctx.Done():
				return
			}
		}
		delay = 0
		select {
		case l.handshakes <- struct{}{}:
			l.wg.Go(func() {
				defer func() { <-l.handshakes }()
				l.welcome(nc)
			})
		default:
			l.stats.refused.Add(1)
			_ = nc.Close()
		}
	}
}

// keepalive tries every connection in turn and ends those that are silent.
func (l *Link) keepalive() {
	tick := time.NewTicker(l.cfg.PingInterval)
	defer tick.Stop()
	last := l.now()
	for seq := uint64(1); ; seq++ {
		select {
		case <-tick.C:
		case <-l.ctx.Done():
			return
		}
		now := l.now()
		// When this process itself was stopped, silence says nothing about others: give them one more round.
		paused := now-last > int64(l.cfg.PingTimeout)/2
		last = now
		l.mu.Lock()
		conns := make([]*conn, 0, len(l.conns))
		for c := range l.conns {
			conns = append(conns, c)
		}
		l.mu.Unlock()
		for _, c := range conns {
			c.check(now, seq, paused)
		}
	}
}

// check is one round of the keepalive. The dialing side pings and both sides listen. A bulk connection
// whose bytes are being taken is alive even if the pong stands behind them.
func (c *conn) check(now int64, seq uint64, paused bool) {
	heard := c.lastRead.Load()
	if c.class == classBulk {
		heard = max(heard, c.lastWrite.Load())
	}
	if silent := time.Duration(now - heard); silent > c.link.cfg.PingTimeout && !paused {
		c.close(fmt.Errorf("%w: nothing heard for %v", ErrBroken, silent.Round(time.Millisecond)))
		return
	}
	if c.dialed {
		c.sendUrgent(newMessage(framePing, 0, seq))
	}
}
