package login

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/trimaran-io/trimaran/gateway/audit"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/jwt"
	"github.com/trimaran-io/trimaran/security/scram"
	"github.com/trimaran-io/trimaran/security/token"
)

// The mechanisms, by their names in SASL.
const (
	Plain       = "PLAIN"
	OAuthBearer = "OAUTHBEARER"
)

// Mechanisms are all that are known, in the order in which clients are told.
var Mechanisms = []string{security.ScramSHA512, security.ScramSHA256, OAuthBearer, Plain}

// Bounds of a connection that has not logged in.
const (
	MaxFrame    = 512 << 10        // bytes: Kafka's sasl.server.max.receive.size
	MaxRequests = 10               // that may come before
	Within      = 30 * time.Second // from the connection's beginning
)

// FailureDelay is how long after its beginning a login that fails is answered (KIP-306): who
// guesses waits, and how long the check took cannot be seen.
const FailureDelay = 100 * time.Millisecond

// Failed is what a client is told whatever the reason.
const Failed = "Authentication failed."

// Config is what a Server needs.
type Config struct {
	// Mechanisms are those that clients may log in by; none: nobody can.
	Mechanisms []string
	// Required: who has neither logged in nor come with a principal may do nothing else.
	Required bool
	// Credentials are needed for SCRAM and PLAIN. Where they have a method LoginSecret() []byte,
	// what unknown users are shown comes from it, and is the same on all nodes.
	Credentials security.Credentials
	// Tokens has the cluster's own keys, nil: none are issued or taken.
	Tokens token.Keys
	// ClusterID names the cluster, "" as long as that is not known.
	ClusterID func() string
	// OAuth judges tokens of an identity provider, whose keys are in Keys; both or none.
	OAuth *jwt.Verifier
	Keys  *KeySet
	// MaxSession is after how long a client has to log in again (KIP-368); 0: as long as its token
	// lasts, or without end.
	MaxSession time.Duration
	// Known waits until this node knows the cluster's users and keys, and says whether it does;
	// nil: it does.
	Known    func(ctx context.Context) bool
	Audit    *audit.Log
	Registry prometheus.Registerer
}

// Check tells what in the configuration cannot be.
func (cfg Config) Check() error {
	for _, m := range cfg.Mechanisms {
		if !slices.Contains(Mechanisms, m) {
			return fmt.Errorf("SASL mechanism %q: want some of %v", m, Mechanisms)
		}
		switch {
		case m == OAuthBearer:
			if cfg.OAuth == nil && cfg.Tokens == nil {
				return errors.New("SASL mechanism OAUTHBEARER: neither an identity provider nor tokens of the cluster are there")
			}
		case cfg.Credentials == nil:
			return fmt.Errorf("SASL mechanism %s: there are no users", m)
		}
	}
	if (cfg.OAuth == nil) != (cfg.Keys == nil) {
		return errors.New("an identity provider without keys, or keys without one")
	}
	if cfg.MaxSession != 0 && cfg.MaxSession < time.Minute {
		return errors.New("clients cannot be asked to log in again more often than once a minute")
	}
	return nil
}

// Server is what all connections of a node have in common.
type Server struct {
	cfg     Config
	secret  []byte
	limit   *limiter
	checks  *semaphore.Weighted // passwords that are hashed at a time
	metrics *metrics
	// check is scram.Check, but for tests, which count its work.
	check func(mechanism, password string, c security.ScramCredential) bool

	mu    locks.Mutex[Server] // guards conns
	conns map[*Conn]struct{}  // those that are logged in
}

// New makes a server. Run has to run.
func New(cfg Config) (*Server, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, limit: newLimiter(), check: scram.Check, conns: map[*Conn]struct{}{}}
	// Half of the cores: who asks for many checks at once does not keep the node from its work.
	s.checks = semaphore.NewWeighted(int64(max(1, runtime.GOMAXPROCS(0)/2)))
	s.secret = make([]byte, 32)
	_, _ = rand.Read(s.secret) // never fails (crypto/rand)
	if cfg.OAuth != nil {
		cfg.OAuth.Keys = cfg.Keys.Known
	}
	var err error
	s.metrics, err = newMetrics(cfg.Registry, cfg.Required)
	return s, err
}

// secretNow is what unknown users are shown comes from: the cluster's, and as long as that has
// none, which is before its first user, the node's own.
func (s *Server) secretNow() []byte {
	if shared, ok := s.cfg.Credentials.(interface{ LoginSecret() []byte }); ok {
		if secret := shared.LoginSecret(); len(secret) > 0 {
			return secret
		}
	}
	return s.secret
}

// known says whether this node knows who may log in. One that has just started may have to wait.
func (s *Server) known(ctx context.Context) bool { return s.cfg.Known == nil || s.cfg.Known(ctx) }

// lookEvery is how often sessions are held against what they rest on.
const lookEvery = 250 * time.Millisecond

// Run fetches keys, and ends sessions that rest on what is no more, until ctx ends.
func (s *Server) Run(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if s.cfg.Keys != nil {
			s.cfg.Keys.Run(ctx)
		}
	}()
	defer func() { <-done }()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.look()
		case <-ctx.Done():
			return
		}
	}
}

// look ends the sessions of users that were changed or deleted and of tokens that were revoked. It
// asks the node's own catalog and waits for nobody: with 10,000 sessions it takes some
// milliseconds.
func (s *Server) look() {
	var over []*Conn
	s.mu.Lock()
	for c := range s.conns {
		over = append(over, c)
	}
	s.mu.Unlock()
	over = slices.DeleteFunc(over, func(c *Conn) bool {
		who := c.who.Load()
		return who == nil || s.stands(*who) == nil
	})
	for _, c := range over {
		s.leave(c) // it ends once
		s.metrics.ended.Inc()
		c.facts.End()
	}
}

func (s *Server) enter(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
}

func (s *Server) leave(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// Required reports whether clients have to log in.
func (s *Server) Required() bool { return s.cfg.Required }

// Mechanisms are those that clients may log in by.
func (s *Server) Mechanisms() []string { return s.cfg.Mechanisms }

// Takes reports whether credentials are looked at at all.
func (s *Server) Takes() bool { return len(s.cfg.Mechanisms) > 0 }
