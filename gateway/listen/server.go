package listen

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trimaran-io/trimaran/gateway/login"
	"github.com/trimaran-io/trimaran/gateway/session"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/internal/soon"
	"github.com/trimaran-io/trimaran/security"
)

// Config is what a Server needs. All of it is required but Advertise, AllowHosts, AllowOrigins,
// TLS, Version and Gateways.
type Config struct {
	// Advertise is the host:port that clients are told; "" is the address that the client used.
	Advertise string
	// AllowHosts and AllowOrigins are names and origins that HTTP and WebSocket
	// requests may carry beyond loopback names, the connection's own local IP,
	// Advertise and, over TLS, the names of the certificates.
	AllowHosts, AllowOrigins []string
	// TLS, if set, makes the port take TLS, and plaintext only from loopback.
	TLS *tls.Config
	// Login judges who comes; required.
	Login *login.Server
	// Strangers is what is done about clients of which is not known who they are.
	Strangers Strangers
	// MaxRequestBytes bounds one request, MaxConnections connections of all kinds.
	MaxRequestBytes, MaxConnections int
	Version                         string // for the page at "/", "" for none
	// Gateways gives the addresses at which the cluster's nodes take clients, those that are away
	// included as far as they are known. It is asked for each page and must not wait. nil: there is
	// no console.
	Gateways func() []Address

	Node     Node
	Metrics  Metrics
	Registry *prometheus.Registry // what /metrics shows
	Refusals *Refusals
	Logger   *slog.Logger
	// Observes says who is shown metrics that name topics, where clients have to log in; nil: who
	// has.
	Observes func(security.Identity) bool
	// Session makes the session of a client over one of its transports.
	Session func(client Client, framer session.Framer) Session
}

// Client is a connection that speaks Kafka, as its session knows it.
type Client struct {
	Peer   net.Addr
	Broker Address // the one broker, as this connection came to it
	Named  bool    // a shim says that it is the broker
	Told   bool    // it is told whether this node serves, and may have nothing to ask
	Facts  login.Facts
}

// Session is what is served over a connection.
type Session interface {
	// Drain ends it in good order and does not wait. It may be called before Run and more than
	// once.
	Drain()
	// Run serves the connection until it ends, and closes it.
	Run()
}

// Metrics counts connections.
type Metrics interface {
	// Refused counts a connection or an HTTP request that was refused by the listener.
	Refused(reason string)
	// Connection changes the number of open connections of a kind.
	Connection(kind string, change float64)
}

// Server serves any number of listeners.
type Server struct {
	cfg       Config
	tls       *tls.Config // nil: none
	advertise *Address    // nil: none
	allow     *allowList
	serving   serving

	web      *http.Server
	webConns *connListener

	ctx  context.Context // ends when Shutdown gives up waiting, or is done
	stop context.CancelFunc
	// leaving ends when Shutdown begins: nobody waits for records any more.
	leaving context.Context
	leave   context.CancelFunc

	wg    sync.WaitGroup // everything that runs, but Serve itself
	clock soon.Clock     // of After

	// mu guards what follows, and the kind and drain of connections. Nothing is taken and
	// nobody waits under it; listeners may be closed under it, connections may not.
	mu        locks.Mutex[Server]
	stopping  bool // no connection is added and no listener served any more
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	strangers strangers
}

// Check tells what in the configuration cannot be.
func (cfg Config) Check() error {
	_, _, err := cfg.names()
	return err
}

// names are those that the server is called by; the address is nil if none is advertised.
func (cfg Config) names() (*Address, *allowList, error) {
	var advertise *Address
	if cfg.Advertise != "" {
		a, err := ParseAddress(cfg.Advertise)
		if err != nil {
			return nil, nil, fmt.Errorf("advertised %w", err)
		}
		advertise = &a
	}
	allow, err := newAllowList(cfg, advertise)
	if err != nil {
		return nil, nil, err
	}
	return advertise, allow, nil
}

// New makes a server that does not serve yet. The error tells what in the
// configuration cannot be.
func New(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, listeners: map[net.Listener]struct{}{}, conns: map[*conn]struct{}{}}
	var err error
	if s.advertise, s.allow, err = cfg.names(); err != nil {
		return nil, err
	}
	if cfg.TLS != nil {
		s.tls = cfg.TLS.Clone()
		s.tls.NextProtos = nil // HTTP/2 has no place for a WebSocket upgrade here
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.leaving, s.leave = context.WithCancel(s.ctx)
	s.serving.changed = make(chan struct{})
	s.strangers.init()
	s.startWeb()
	s.wg.Go(s.watchServing)
	return s, nil
}

// Context ends when Shutdown gives up waiting, or is done.
func (s *Server) Context() context.Context { return s.ctx }

// Leaving ends when Shutdown begins: nobody waits for records any more.
func (s *Server) Leaving() context.Context { return s.leaving }

// Go runs f beside. Shutdown waits for it.
func (s *Server) Go(f func()) { s.wg.Go(f) }

// After runs f when d is over, unless stop is called before; f must not wait. Shutdown waits for
// it, so it is called by what Shutdown waits for. d may be less than a millisecond.
func (s *Server) After(d time.Duration, f func()) (stop func()) {
	s.wg.Add(1)
	t := s.clock.After(d, func() {
		defer s.wg.Done()
		f()
	})
	return func() {
		if t.Stop() {
			s.wg.Done()
		}
	}
}

// Serve accepts connections until the listener fails or Shutdown is called, then
// with an error that is net.ErrClosed. It closes the listener.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		return net.ErrClosed
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()
	var pause time.Duration
	for {
		raw, err := l.Accept()
		if err != nil {
			if s.leaving.Err() != nil {
				return net.ErrClosed
			}
			if !acceptAgain(err) {
				return fmt.Errorf("accept: %w", err)
			}
			// Out of file descriptors, mostly: closing connections helps, trying at
			// once does not.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.cfg.Refusals.Log("accept failed", err)
			select {
			case <-time.After(pause):
			case <-s.leaving.Done():
				return net.ErrClosed
			}
			continue
		}
		pause = 0
		c := &conn{Conn: raw, gone: s.remove}
		oldest, why := s.add(c)
		if oldest != nil {
			s.refuse(oldest, "unproven", errStrangers)
		}
		if why != nil {
			s.cfg.Refusals.Log("connection refused", why, "peer", raw.RemoteAddr())
			s.cfg.Metrics.Refused("too many connections")
			raw.Close()
			continue
		}
		go func() {
			defer s.wg.Done()
			defer s.survive(c)
			s.handle(c)
		}()
	}
}

func acceptAgain(err error) bool {
	var temporary interface{ Temporary() bool }
	return errors.As(err, &temporary) && temporary.Temporary()
}

// survive ends what a connection's goroutine was doing when it panicked: that
// connection pays, no other.
func (s *Server) survive(c io.Closer) {
	if v := recover(); v != nil {
		s.cfg.Logger.Error("a connection's handler panicked; the connection is closed", "panic", v, "stack", string(debug.Stack()))
		c.Close()
	}
}

// conn is one accepted connection until it is closed.
type conn struct {
	net.Conn
	gone func(*conn) // called when it is closed
	once sync.Once

	kind  string // "": not known yet. Guarded by the server's mu
	drain func() // ends it in good order; nil: by closing it. Guarded by the server's mu
	named bool   // its client says where the broker is. Set before drain is
	told  bool   // its client is told whether this node serves. Set before drain is

	stranger *list.Element // in the server's strangers; nil: not among them. Guarded by mu
}

// Close closes the connection and forgets it. It may be called again.
func (c *conn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		err = c.Conn.Close()
		c.gone(c)
	})
	return err
}

// CloseWrite ends the sending half, if the transport has halves.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// counts tells the metrics of a connection that is known to be of a kind.
func (s *Server) counts(kind string, change float64) {
	if kind != "" {
		s.cfg.Metrics.Connection(kind, change)
	}
}

// add counts a connection in, or says why not. oldest is one that has to go for it.
func (s *Server) add(c *conn) (oldest *conn, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stopping:
		return nil, net.ErrClosed
	case len(s.conns) >= s.cfg.MaxConnections:
		return nil, fmt.Errorf("there are %d connections already", len(s.conns))
	}
	if oldest, err = s.strangers.add(c, s.cfg); err != nil {
		return nil, err
	}
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	return oldest, nil
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.conns[c]; there {
		s.strangers.remove(c, s.cfg)
	}
	delete(s.conns, c)
	s.counts(c.kind, -1)
}

// become notes what a connection turned out to be, and how to end it in good
// order. False: the server is stopping, and the connection should too.
func (s *Server) become(c *conn, kind string, drain func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, open := s.conns[c]; open {
		s.counts(c.kind, -1)
		s.counts(kind, +1)
	}
	c.kind, c.drain = kind, drain
	return !s.stopping
}

// Shutdown stops accepting and reading, lets every session answer what it has
// read, without waiting for records that are not there yet, and closes the
// connections. When ctx ends first, the rest is cut off and ctx's error returned.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.stopping = true
	for l := range s.listeners {
		l.Close()
	}
	var drains []func()
	for c := range s.conns {
		switch {
		case c.drain != nil:
			drains = append(drains, c.drain)
		case c.kind == KindHTTP: // below, when it has answered
		default:
			drains = append(drains, func() { c.Close() })
		}
	}
	s.mu.Unlock()
	s.leave()
	for _, drain := range drains {
		drain()
	}
	err := s.stopWeb(ctx)
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
		s.stop()
		s.mu.Lock()
		for c := range s.conns {
			go c.Close() // which takes the lock
		}
		s.mu.Unlock()
		<-done
	}
	s.stop()
	s.clock.Close()
	return err
}

// serveSession serves a connection that speaks Kafka until it ends.
func (s *Server) serveSession(c *conn, kind string, f session.Framer, broker Address, facts login.Facts) {
	n := s.cfg.Session(Client{Peer: c.RemoteAddr(), Broker: broker, Named: c.named, Told: c.told, Facts: facts}, f)
	stays := s.become(c, kind, n.Drain)
	// After that: either this sees that the node is cut off, or sendAway sees the session.
	if elsewhere, _, _ := s.serving.now(); elsewhere && !c.told {
		s.cfg.Metrics.Refused("not serving")
		stays = false
	}
	if !stays {
		n.Drain()
	}
	n.Run()
}
