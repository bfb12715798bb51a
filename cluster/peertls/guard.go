package peertls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/trimaran-io/trimaran/security/certs"
)

// ALPN is what both sides must offer, so that no other service with a certificate of the same CA
// is taken for a node, nor a node for it.
const ALPN = "trimaran-peer/1"

// Mode says what a node takes and what it offers. From a cluster without TLS to one that takes
// nothing else lead three rolling restarts: Accept on all nodes, Prefer on all, Require on all.
type Mode int

const (
	// Require takes TLS and dials TLS.
	Require Mode = iota
	// Prefer takes TLS and plaintext. It dials TLS, and plaintext where the other side does not
	// know TLS: whoever is between the two nodes can make it so.
	Prefer
	// Accept takes TLS and plaintext, and dials plaintext.
	Accept
)

var modes = []string{Require: "require", Prefer: "prefer", Accept: "accept"}

func (m Mode) String() string { return modes[m] }

// ParseMode reads accept, prefer or require.
func ParseMode(s string) (Mode, error) {
	for m, name := range modes {
		if s == name {
			return Mode(m), nil
		}
	}
	return 0, fmt.Errorf("mode %q: want accept, prefer or require", s)
}

var (
	// ErrPlaintext: the other side spoke plaintext, and TLS is required.
	ErrPlaintext = errors.New("plaintext, and TLS is required between nodes")
	// ErrName: the certificate is not that of the node that the other side says it is.
	ErrName = errors.New("the certificate is not that node's")
	// ErrTooMuch: the other side sent more than a handshake takes.
	ErrTooMuch = errors.New("too many bytes before the hello")
)

// Config says how a node is secured.
type Config struct {
	Files certs.Files
	Mode  Mode
	// RequireIdentity refuses certificates that name no node. Without it whoever has a certificate
	// of the CA can be any node: the CA must then sign for nobody else.
	RequireIdentity bool
	// Logger gets a line when certificates were read again, or could not be. Nil discards.
	Logger *slog.Logger
}

// Guard secures the connections of one node. All methods are safe for concurrent use.
type Guard struct {
	mode            Mode
	requireIdentity bool
	log             *slog.Logger
	logLimit        *rate.Limiter
	files           *certs.Watched
}

// New reads the files. An error says what is wrong with them.
func New(cfg Config) (*Guard, error) {
	g := &Guard{mode: cfg.Mode, requireIdentity: cfg.RequireIdentity, log: cfg.Logger, logLimit: rate.NewLimiter(rate.Every(10*time.Second), 3)}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	var own string
	var err error
	g.files, err = certs.Watch(cfg.Files, func(b *certs.Bundle) error {
		name, err := certs.NodeOf(b.Leaf)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", cfg.Files.Cert, err)
		case name == "" && cfg.RequireIdentity:
			return fmt.Errorf("%s names no node: it needs %s among its alternative names", cfg.Files.Cert, certs.NodeURI("<node id>"))
		case g.files != nil && name != own:
			return fmt.Errorf("%s is now that of node %q, and was that of %q", cfg.Files.Cert, name, own)
		}
		own = name
		return nil
	})
	if err != nil {
		return nil, err
	}
	return g, nil
}

// CheckNode gives an error if the node's own certificate is another node's.
func (g *Guard) CheckNode(nodeID string) error {
	name, err := certs.NodeOf(g.files.Now().Leaf)
	if err == nil && name != "" && name != nodeID {
		err = fmt.Errorf("%w: the certificate for the peer link is that of node %s, this is node %s", ErrName, name, nodeID)
	}
	return err
}

// Mode is Config.Mode.
func (g *Guard) Mode() Mode { return g.mode }

// Expires is when the node's certificate does.
func (g *Guard) Expires() time.Time { return g.files.Now().Leaf.NotAfter }

// Roots are the CAs that nodes are verified against now.
func (g *Guard) Roots() []*x509.Certificate { return g.files.Now().Roots }

// Reload reads the files again. What they say counts for connections from now on; after an error,
// which is logged once, it is as before.
func (g *Guard) Reload() {
	switch changed, err := g.files.Reload(); {
	case err != nil:
		g.log.Error("certificates for the peer link were not read again; those read before are used on", "error", err)
	case changed:
		g.log.Info("certificates for the peer link were read again", "expires", g.Expires(), "cas", len(g.Roots()))
	}
}

// config is that of one connection, with what the files say now.
func (g *Guard) config(usage x509.ExtKeyUsage) *tls.Config {
	b := g.files.Now()
	return &tls.Config{
		Certificates: []tls.Certificate{b.Pair},
		MinVersion:   tls.VersionTLS13,
		NextProtos:   []string{ALPN},
		ClientAuth:   tls.RequireAnyClientCert,
		// A name or an address tells nothing of who a node is: VerifyConnection does, for both
		// sides alike.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if state.NegotiatedProtocol != ALPN {
				return fmt.Errorf("it does not speak %s", ALPN)
			}
			return b.Verify(state.PeerCertificates, usage, time.Now())
		},
		// Each connection proves anew who is there.
		SessionTicketsDisabled: true,
		// What is written is gathered already.
		DynamicRecordSizingDisabled: true,
	}
}

// prove gives an error unless the certificate is that of the node with that identity, which is
// "<node id>.<incarnation>".
func (g *Guard) prove(cert *x509.Certificate, identity string) error {
	name, err := certs.NodeOf(cert)
	if err != nil {
		return err
	}
	if name == "" {
		if g.requireIdentity {
			return fmt.Errorf("%w: it names no node", ErrName)
		}
		return nil
	}
	dot := strings.LastIndexByte(identity, '.')
	if dot < 0 || identity[:dot] != name {
		return fmt.Errorf("%w: it is that of %s", ErrName, name)
	}
	return nil
}
