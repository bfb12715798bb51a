package listen

import (
	"container/list"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/trimaran-io/trimaran/gateway/login"
	"github.com/trimaran-io/trimaran/security"
)

// Strangers bounds what those can take of whom is not known who they are.
type Strangers struct {
	// Most is how many connections may be open of clients that have to log in and have not. For one
	// more the oldest goes. 0: as many as connections.
	Most int
	// PerAddress bounds all connections of one address, of IPv6 of one network of 64 bits, but
	// those of Proxies; 0: no bound.
	PerAddress int
	// Proxies are addresses of shims that are believed where their clients come from.
	Proxies []netip.Prefix
	// CertificateName is how a client's certificate names its principal, as package security has
	// it; "" is its subject.
	CertificateName string
}

var errStrangers = errors.New("there are too many connections that have not logged in, and this is the oldest")

// strangers counts. The server's mu guards it.
type strangers struct {
	order     list.List      // of *conn, the oldest first
	addresses map[string]int // by login.Network
}

func (t *strangers) init() { t.addresses = map[string]int{} }

// add counts a connection in. oldest is one that has to go for it.
func (t *strangers) add(c *conn, cfg Config) (oldest *conn, err error) {
	ip, _ := ipOf(c.RemoteAddr())
	if cfg.Strangers.trusts(ip) { // its own bound is the shim's, which watches this node as well
		return nil, nil
	}
	if cfg.Strangers.PerAddress > 0 {
		if ip.IsValid() {
			from := login.Network(ip.String())
			if t.addresses[from] >= cfg.Strangers.PerAddress {
				return nil, fmt.Errorf("there are %d connections of this address already", t.addresses[from])
			}
			t.addresses[from]++
		}
	}
	if !cfg.Login.Required() || cfg.Strangers.Most <= 0 {
		return nil, nil
	}
	if t.order.Len() >= cfg.Strangers.Most {
		oldest = t.order.Front().Value.(*conn)
		t.known(oldest)
	}
	c.stranger = t.order.PushBack(c)
	return oldest, nil
}

// known: it is known who the client is.
func (t *strangers) known(c *conn) {
	if c.stranger != nil {
		t.order.Remove(c.stranger)
		c.stranger = nil
	}
}

// remove: the connection is closed.
func (t *strangers) remove(c *conn, cfg Config) {
	t.known(c)
	ip, _ := ipOf(c.RemoteAddr())
	from := login.Network(ip.String())
	if n := t.addresses[from]; n > 1 {
		t.addresses[from]--
	} else if n == 1 {
		delete(t.addresses, from)
	}
}

func (t Strangers) trusts(ip netip.Addr) bool {
	return slices.ContainsFunc(t.Proxies, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// proven: it is known who the client of a connection is.
func (s *Server) proven(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.strangers.known(c)
}

// principalOf is whose a connection is that comes with a principal, as those of the node's own Unix
// socket do: its type has a method Principal. nil: nobody's.
func principalOf(c *conn) *security.Principal {
	if known, ok := c.Conn.(interface{ Principal() security.Principal }); ok {
		p := known.Principal()
		return &p
	}
	return nil
}

// localHost is where connections of the Unix socket come from.
const localHost = "local"

// facts are what a connection shows before anything is said over it.
func (s *Server) facts(c *conn, state *tls.ConnectionState) (login.Facts, error) {
	f := login.Facts{Proven: func() { s.proven(c) }, Cut: func() { c.Close() }}
	if p := principalOf(c); p != nil {
		f.Host, f.Who = localHost, &login.Who{Principal: *p, Local: true}
		return f, nil
	}
	if ip, _ := ipOf(c.RemoteAddr()); ip.IsValid() {
		f.Host = ip.String()
	} else {
		f.Host = c.RemoteAddr().String() // of a test
	}
	f.Clear = state == nil && !isLoopback(c.RemoteAddr())
	if state != nil && len(state.VerifiedChains) > 0 {
		how := s.cfg.Strangers.CertificateName
		if how == "" {
			how = security.ByDN
		}
		p, err := security.OfCertificate(state.PeerCertificates[0], how)
		if err != nil {
			return f, err
		}
		f.Who = &login.Who{Principal: p}
	}
	return f, nil
}
