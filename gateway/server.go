package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/gateway/audit"
	"github.com/trimaran-io/trimaran/gateway/listen"
	"github.com/trimaran-io/trimaran/gateway/login"
	"github.com/trimaran-io/trimaran/gateway/order"
	"github.com/trimaran-io/trimaran/gateway/session"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/security"
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
	// Login is how clients log in; the zero value is that nobody can and nobody has to.
	Login login.Config
	// Strangers bounds those who have not, and says which shims are believed.
	Strangers listen.Strangers
	// Audit writes down who was refused what; nil: to Logger.
	Audit *audit.Log
	// MaxRequestBytes bounds one request; default 100 MiB. It also bounds one
	// fetch's answer and what one produced record set decompresses to.
	MaxRequestBytes int
	// MaxConnections bounds connections of all kinds; default 10,000.
	MaxConnections int
	// MaxInflightBytes bounds the memory of the node's larger requests, as they come and as
	// they are decoded, between their first byte and their answer, and once more that of
	// fetched records between reading and sending. Default 1 GiB, at least MaxRequestBytes.
	MaxInflightBytes int64
	// AutoCreateTopics creates a topic when Metadata names it, as 0.8 does.
	AutoCreateTopics bool
	// ListGateways shows clients the nodes as brokers, ShowReplicas the replicas of partitions,
	// too. All nodes should have the same.
	ListGateways, ShowReplicas bool
	// TopicDefaults are topic configurations, Kafka's names, for topics that do not
	// set them; nil: Kafka's defaults. They bound what is produced and are shown.
	TopicDefaults map[string]string
	// BrokerConfigs are numbers among the broker's configurations that this package knows
	// nothing of, Kafka's names. They are shown as they are.
	BrokerConfigs map[string]string
	Version       string // for the page at "/", "" for none
	Console       bool   // browsers get the console at "/"
	Logger        *slog.Logger
	Registry      *prometheus.Registry // what /metrics shows; nil: one of its own
	Access        Access

	// identify says in tests who a client is. nil: its login does.
	identify func(listen.Client) security.Identity
}

const (
	defaultMaxRequestBytes  = 100 << 20
	defaultMaxConnections   = 10_000
	defaultMaxInflightBytes = 1 << 30
)

// Server is the gateway of a node. It serves any number of listeners.
type Server struct {
	parts
	cfg        Config
	log        *slog.Logger
	refusals   *listen.Refusals
	metrics    *metrics
	listener   *listen.Server
	topics     *topicMaker
	access     *access // nil: everybody may do everything
	neighbours *neighbours
	denials    *prometheus.CounterVec // by API and operation

	// What the sessions and the queues of all connections have in common.
	sessions session.Config
	queues   order.Config
	login    *login.Server

	answerBytes *session.Budget
	checks      *semaphore.Weighted // comparisons of replicas, one at a time
	conversions *semaphore.Weighted // bounds the memory and cores that record sets take at once
}

// listening is the configuration of what listens, as far as it follows from this one.
func (cfg Config) listening() listen.Config {
	return listen.Config{
		Advertise: cfg.Advertise, AllowHosts: cfg.AllowHosts, AllowOrigins: cfg.AllowOrigins, TLS: cfg.TLS, Strangers: cfg.Strangers,
		MaxRequestBytes: cfg.MaxRequestBytes, MaxConnections: cfg.MaxConnections, Version: cfg.Version,
		Node: cfg.Cluster, Registry: cfg.Registry, Logger: cfg.Logger,
	}
}

// Check tells what in the configuration cannot be, before there is a cluster.
func (cfg Config) Check() error {
	if err := cfg.listening().Check(); err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	if cfg.Cluster == nil {
		return nil // credentials come with it
	}
	if err := cfg.Login.Check(); err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	return nil
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
	if cfg.Audit == nil {
		cfg.Audit = audit.New(cfg.Logger)
	}
	if cfg.Registry == nil {
		cfg.Registry = prometheus.NewRegistry()
	}
	s := &Server{
		cfg: cfg, parts: partsOf(cfg.Cluster), log: cfg.Logger, access: cfg.Access.compile(), denials: newDenied(),
		refusals:    listen.NewRefusals(cfg.Logger),
		answerBytes: session.NewBudget(cfg.MaxInflightBytes),
		checks:      semaphore.NewWeighted(1),
		conversions: semaphore.NewWeighted(int64(2 * runtime.GOMAXPROCS(0))),
	}
	s.sessions = session.Config{Requests: session.NewBudget(cfg.MaxInflightBytes), Logger: s.log, Refused: s.refusals.Log}
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	s.neighbours = &neighbours{catalog: s.catalog, nodes: s.nodes, last: map[fsm.NodeID]string{}}
	var err error
	if s.metrics, err = newMetrics(cfg.Registry, s.catalog, s.sessions.Requests, s.answerBytes); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	if err := cfg.Registry.Register(s.denials); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	cfg.Login.Audit, cfg.Login.Registry, cfg.Login.ClusterID = cfg.Audit, cfg.Registry, s.nodes.ClusterID
	cfg.Login.Known = s.awaitCatalog
	if s.login, err = login.New(cfg.Login); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	listening := cfg.listening()
	listening.Login, listening.Observes = s.login, s.observes
	listening.Metrics, listening.Refusals, listening.Session = s.metrics, s.refusals, s.newSession
	if cfg.Console {
		listening.Gateways = s.neighbours.addresses
	}
	if s.listener, err = listen.New(listening); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	if cfg.Console {
		s.listener.Go(func() { s.neighbours.watch(s.listener.Leaving()) })
	}
	if s.login.Takes() {
		s.listener.Go(func() { s.login.Run(s.listener.Leaving()) })
	}
	s.sessions.Context, s.sessions.Go = s.listener.Context(), s.listener.Go
	s.sessions.Read, s.sessions.Written = s.metrics.networkIn, s.metrics.networkOut
	s.queues = order.Config{Appender: s.appender, Go: s.listener.Go, After: s.listener.After, Context: s.listener.Context(), Logger: s.log}
	s.topics = &topicMaker{
		changes: s.changes, unknown: s.unknownTopic, enabled: cfg.AutoCreateTopics,
		leaving: s.listener.Leaving(), run: s.listener.Go, log: s.log, making: map[string]*making{},
	}
	return s, nil
}

// Serve accepts connections until the listener fails or Shutdown is called, then
// with an error that is net.ErrClosed. It closes the listener.
func (s *Server) Serve(l net.Listener) error { return s.listener.Serve(l) }

// Shutdown stops accepting and reading, lets every session answer what it has
// read, without waiting for records that are not there yet, and closes the
// connections. When ctx ends first, the rest is cut off and ctx's error returned.
func (s *Server) Shutdown(ctx context.Context) error { return s.listener.Shutdown(ctx) }
