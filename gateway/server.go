package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/trimaran-io/trimaran/gateway/order"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// Config is what a Server needs. Cluster is required; the zero value of the rest
// is usable, but for AutoCreateTopics and MaxRequestBytes, whose zero means off
// and the default.
type Config struct {
	Cluster Cluster
	// Advertise is the host:port that Metadata names; "" is the address that the
	// client used.
	Advertise string
	// AllowHosts and AllowOrigins are names and origins that HTTP and WebSocket
	// requests may carry beyond loopback names, the connection's own local IP,
	// Advertise and, over TLS, the names of the certificates.
	AllowHosts, AllowOrigins []string
	// TLS, if set, makes the port take TLS, and plaintext only from loopback.
	TLS *tls.Config
	// MaxRequestBytes bounds one request; default 100 MiB. It also bounds one
	// fetch's answer and what one produced record set decompresses to.
	MaxRequestBytes int
	// MaxConnections bounds connections of all kinds; default 10,000.
	MaxConnections int
	// MaxInflightBytes bounds the memory of the node's larger requests, as they come and
	// as they are decoded, between their first byte and their answer, and once more that of fetched records
	// between reading and sending. Default 1 GiB, at least MaxRequestBytes.
	MaxInflightBytes int64
	// AutoCreateTopics creates a topic when Metadata names it, as 0.8 does.
	AutoCreateTopics bool
	// ListGateways shows clients the nodes as brokers, ShowReplicas the replicas of partitions, too. All
	// nodes should have the same.
	ListGateways, ShowReplicas bool
	// TopicDefaults are topic configurations, Kafka's names, for topics that do not
	// set them; nil: Kafka's defaults. They bound what is produced and are shown.
	TopicDefaults map[string]string
	// BrokerConfigs are numbers among the broker's configurations that this package knows nothing
	// of, Kafka's names. They are shown as they are.
	BrokerConfigs map[string]string
	Version       string // for the page at "/", "" for none
	Logger        *slog.Logger
	Registry      *prometheus.Registry // what /metrics shows; nil: one of its own
}

const (
	defaultMaxRequestBytes  = 100 << 20
	defaultMaxConnections   = 10_000
	defaultMaxInflightBytes = 1 << 30
)

// Server is the gateway of a node. It serves any number of listeners.
type Server struct {
	cfg Config
	parts
	log       *slog.Logger
	refusals  *refusals
	metrics   *metrics
	tls       *tls.Config // nil: none
	advertise *address    // nil: none
	allow     *allowList
	topics    *topicMaker
	lines     order.Config
	serving   serving

	web      *http.Server
	webConns *connListener

	requestBytes *budget
	answerBytes  *budget
	conversions  *semaphore.Weighted // bounds the memory and cores that record sets take at once

	ctx  context.Context // ends when Shutdown gives up waiting, or is done
	stop context.CancelFunc
	// leaving ends when Shutdown begins: nobody waits for records any more.
	leaving context.Context
	leave   context.CancelFunc

	wg sync.WaitGroup // everything that runs, but Serve itself

	mu        sync.Mutex
	stopping  bool // no connection is added and no listener served any more
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
}

// Check tells what in the configuration cannot be, before there is a cluster.
func (cfg Config) Check() error {
	_, _, err := cfg.names()
	return err
}

// names are those that the server is called by; the address is nil if none is advertised.
func (cfg Config) names() (*address, *allowList, error) {
	var advertise *address
	if cfg.Advertise != "" {
		a, err := parseAddress(cfg.Advertise)
		if err != nil {
			return nil, nil, fmt.Errorf("gateway: advertised %w", err)
		}
		advertise = &a
	}
	allow, err := newAllowList(cfg, advertise)
	if err != nil {
		return nil, nil, fmt.Errorf("gateway: %w", err)
	}
	return advertise, allow, nil
}

// New makes a server that does not serve yet. The error tells what in the
// configuration cannot be.
func New(cfg Config) (*Server, error) {
	if cfg.Cluster == nil {
		return nil, errors.New("gateway: no cluster")
	}
	if cfg.MaxRequestBytes <= 0 {
		cfg.MaxRequestBytes = defaultMaxRequestBytes
	}
	cfg.MaxRequestBytes = min(cfg.MaxRequestBytes, kafkaproto.FrameLimit-1)
	if cfg.MaxConnections <= 0 {
		cfg.MaxConnections = defaultMaxConnections
	}
	if cfg.MaxInflightBytes <= 0 {
		cfg.MaxInflightBytes = defaultMaxInflightBytes
	}
	cfg.MaxInflightBytes = max(cfg.MaxInflightBytes, int64(cfg.MaxRequestBytes))
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Registry == nil {
		cfg.Registry = prometheus.NewRegistry()
	}
	s := &Server{
		cfg: cfg, parts: partsOf(cfg.Cluster), log: cfg.Logger,
		refusals:     newRefusals(cfg.Logger),
		requestBytes: newBudget(cfg.MaxInflightBytes),
		answerBytes:  newBudget(cfg.MaxInflightBytes),
		conversions:  semaphore.NewWeighted(int64(2 * runtime.GOMAXPROCS(0))),
		listeners:    map[net.Listener]struct{}{},
		conns:        map[*conn]struct{}{},
	}
	var err error
	if s.advertise, s.allow, err = cfg.names(); err != nil {
		return nil, err
	}
	if cfg.TLS != nil {
		s.tls = cfg.TLS.Clone()
		s.tls.NextProtos = nil // HTTP/2 has no place for a WebSocket upgrade here
	}
	if s.metrics, err = newMetrics(cfg.Registry, s); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.leaving, s.leave = context.WithCancel(s.ctx)
	s.topics = newTopicMaker(s)
	s.lines = order.Config{Appender: s.appender, Go: func(f func()) { s.wg.Go(f) }, Context: s.ctx, Logger: s.log}
	s.serving.changed = make(chan struct{})
	s.startWeb()
	s.wg.Go(s.watchServing)
	return s, nil
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
			// Out of file descriptors, mostly: closing connections helps, trying at once does not.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.refusals.log("accept failed", err)
			select {
			case <-time.After(pause):
			case <-s.leaving.Done():
				return net.ErrClosed
			}
			continue
		}
		pause = 0
		c := &conn{Conn: raw, server: s}
		if why := s.add(c); why != nil {
			s.refusals.log("connection refused", why, "peer", raw.RemoteAddr())
			s.metrics.refused("too many connections")
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
		s.log.Error("a connection's handler panicked; the connection is closed", "panic", v, "stack", string(debug.Stack()))
		c.Close()
	}
}

// conn is one accepted connection until it is closed.
type conn struct {
	net.Conn
	server *Server
	once   sync.Once

	kind  string // "": not known yet. Guarded by server.mu
	drain func() // ends it in good order; nil: by closing it. Guarded by server.mu
	named bool   // its client says where the broker is. Set before drain is
	told  bool   // its client is told whether this node serves. Set before drain is
}

// Close closes the connection and forgets it. It may be called again.
func (c *conn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		err = c.Conn.Close()
		c.server.remove(c)
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

func (s *Server) add(c *conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stopping:
		return net.ErrClosed
	case len(s.conns) >= s.cfg.MaxConnections:
		return fmt.Errorf("there are %d connections already", len(s.conns))
	}
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	return nil
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.metrics.connection(c.kind, -1)
}

// become notes what a connection turned out to be, and how to end it in good
// order. False: the server is stopping, and the connection should too.
func (s *Server) become(c *conn, kind string, drain func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, open := s.conns[c]; open {
		s.metrics.connection(c.kind, -1)
		s.metrics.connection(kind, +1)
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
		case c.kind == kindHTTP: // below, when it has answered
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
	return err
}
