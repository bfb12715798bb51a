package gateway

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/trimaran-io/trimaran/gateway/listen"
	"github.com/trimaran-io/trimaran/gateway/login"
	"github.com/trimaran-io/trimaran/gateway/order"
	"github.com/trimaran-io/trimaran/gateway/session"
	"github.com/trimaran-io/trimaran/security"
)

// connection is what the handlers know of the connection that requests come over.
type connection struct {
	server *Server
	client listen.Client

	login *login.Conn
	bound func(most int, until time.Time, raw bool) // of what is read; nil: the transport has none
	until time.Time                                 // when a client must have logged in

	queues order.Queues // produces in order
	order  order.Order  // what a request sees of those before it
	turns  order.Turns  // what is asked about consumer groups in order
	// fetchSent is closed when the answer of the last fetch that was read is sent.
	// Only the reader uses it.
	fetchSent chan struct{}
	passed    passed
}

// newSession makes the session of a client.
func (s *Server) newSession(client listen.Client, framer session.Framer) listen.Session {
	c := &connection{server: s, client: client}
	c.queues.Init(&s.queues, c.clientNumber)
	n := session.New(&s.sessions, framer, c, client.Peer)
	c.begin(framer, n)
	return &leaving{n, c.login}
}

// Handle implements session.Handler.
func (c *connection) Handle(reply *session.Reply, frame []byte) error {
	r := &request{conn: c, reply: reply}
	if c.until.IsZero() && !c.login.LoggedIn() {
		c.until = time.Now().Add(login.Within) // it was not known that it would ask for anything
		c.bounds()
	}
	if c.login.Raw() {
		return r.serveToken(frame)
	}
	return r.serve(frame)
}

// clientNumber is the same for all connections of one client, to whichever node: of whoever has
// logged in as it, else from one address, which is one network of IPv6. Two clients may happen to
// have the same. Where there are or were users none can find out whose it has.
func (c *connection) clientNumber() uint16 {
	id := c.login.Identity()
	name := id.Principal.String()
	if id.Principal == security.Anonymous {
		name = id.Host
		if addr, err := netip.ParseAddr(id.Host); err == nil && addr.Is6() && !addr.Is4In6() {
			network, _ := addr.WithZone("").Prefix(64)
			name = network.String()
		}
	}
	h := hmac.New(sha256.New, c.server.catalog.Topics().Security().Secret())
	h.Write([]byte(c.server.nodes.ClusterID()))
	h.Write([]byte{0})
	h.Write([]byte(name))
	return binary.BigEndian.Uint16(h.Sum(nil))
}

// remoteHost is the address that the client comes from, without its port; behind a shim that is
// trusted, the one that the shim says.
func (c *connection) remoteHost() string {
	if host := c.client.Facts.Host; host != "" {
		return host
	}
	addr := c.client.Peer.String()
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}
