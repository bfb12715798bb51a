package link

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"golang.org/x/time/rate"
)

// Config says who this node is and how others are reached.
type Config struct {
	// Self is the identity of this process, 1 to 255 bytes. It is Raft's ServerID and ServerAddress
	// alike.
	Self string
	// ClusterID gives the id of the cluster this node belongs to, "" until formed (nil is the
	// same). Two nodes with different non-empty ids refuse each other. It is called from many
	// goroutines.
	ClusterID func() string
	// Listener takes connections of other nodes; Close closes it. Nil: this link only dials. Its
	// connections may be Secured, and so may those of Dial.
	Listener net.Listener
	// Dial opens a connection to an address; nil is TCP. Tests inject faults here.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Resolve is the address book: where the node with this identity listens now.
	// It is asked before every dial and must not block.
	Resolve func(identity string) (addr string, ok bool)
	// Elsewhere gives further addresses at which that node may be: they are tried a moment later,
	// whichever it answers at first is taken. It must not block; nil: none.
	Elsewhere func(identity string) []string
	// Reached is told where a session to that node was opened. It must not block; nil: nobody is.
	Reached func(identity, addr string)
	// Handler works on forwarded requests; nil refuses them all.
	Handler Handler
	// Outbox has what Session.BeginHeld begins. Nil: that is sent as anything else is.
	Outbox *Outbox
	// Logger gets one line per event: a node reached, lost, refused. Nil discards.
	Logger *slog.Logger
	// MaxMessageBytes bounds every message, both ways. Default 256 MiB.
	MaxMessageBytes int
	// MaxConnections bounds what is open in all; a cluster needs four per other node. Default 4096.
	MaxConnections int
	// Timeout bounds the silence of the other side about a stream, and of a stream's source.
	// Default 10 s.
	Timeout time.Duration
	// PingInterval is how often every connection is tried. Default 500 ms.
	PingInterval time.Duration
	// PingTimeout is after how much silence a connection counts as dead. Default 2.5 s.
	PingTimeout time.Duration
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
	defaultPingInterval = 500 * time.Millisecond
	defaultPingTimeout  = 2500 * time.Millisecond

	handshakeTimeout = 5 * time.Second
	dialTimeout      = 3 * time.Second
	// maxHandshakes bounds the strangers that are listened to at once.
	maxHandshakes         = 128
	defaultMaxConnections = 4096
	// closeWait is how long Close waits for handlers that do not sign that their context has ended.
	closeWait = 10 * time.Second
)

// Link is one node's end of the connections between nodes. All methods are safe for concurrent use.
type Link struct {
	*base
	peers      peers
	handshakes chan struct{} // at most so many goroutines, those of strangers that go among them
	strangers  strangers
	closing    []func() // set before Start
}

// New makes a link, which does nothing before Start. It panics if Self is empty or too long: that
// is a mistake of the program.
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
	setDefault(&cfg.PingInterval, defaultPingInterval)
	setDefault(&cfg.PingTimeout, defaultPingTimeout)

	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails
	b := &base{
		cfg:      cfg,
		log:      cfg.Logger,
		boot:     binary.BigEndian.Uint64(seed[:]),
		start:    time.Now(),
		logLimit: rate.NewLimiter(1, 20),
		observer: nobody{},
	}
	b.ctx, b.cancel = context.WithCancelCause(context.Background())
	return &Link{
		base:       b,
		peers:      peers{base: b, byName: make(map[string]*Peer)},
		handshakes: make(chan struct{}, 2*maxHandshakes),
	}
}

// Observe names who is told of sessions and takes beacons. It must be called before Start.
func (l *Link) Observe(o Observer) { l.observer = o }

// Serve names who takes requests of others that are no calls, on the reading goroutine: it must not
// block, and an error ends the session. It must be called before Start.
func (l *Link) Serve(f func(*Request) error) { l.requests = f }

// OnClose adds what Close calls before it waits for goroutines. It must be called before Start.
func (l *Link) OnClose(f func()) { l.closing = append(l.closing, f) }

// Start begins to listen and to look after connections.
func (l *Link) Start() {
	if l.cfg.Listener != nil {
		l.Go(l.acceptLoop)
	}
	l.Go(l.keepalive)
}

func setDefault[T int | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// StopAccepting makes this node refuse calls from now on, with an error that is ErrNotSent and
// ErrStopping at the caller. Other requests go on.
func (l *Link) StopAccepting() { l.stopping.Store(true) }

// Close ends everything: the listener, all connections, the contexts of all handlers and
// what OnClose was told of. It waits for what it started, for handlers at most 10 seconds.
func (l *Link) Close() error {
	l.stopping.Store(true)
	if !l.tasks.close() {
		return nil
	}
	conns := l.conns.all(true)
	l.cancel(ErrClosed)
	if l.cfg.Listener != nil {
		_ = l.cfg.Listener.Close()
	}
	for _, c := range conns {
		c.close(ErrClosed)
	}
	for _, f := range l.closing {
		f()
	}
	done := make(chan struct{})
	go func() { l.tasks.wg.Wait(); close(done) }()
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
