package gateway

import (
	"net"

	"github.com/trimaran-io/trimaran/gateway/listen"
	"github.com/trimaran-io/trimaran/gateway/order"
	"github.com/trimaran-io/trimaran/gateway/session"
)

// connection is what the handlers know of the connection that requests come over.
type connection struct {
	server *Server
	client listen.Client

	queues order.Queues // produces in order
	order  order.Order  // what a request sees of those before it
	turns  order.Turns  // what is asked about consumer groups in order
	// fetchSent is closed when the answer of the last fetch that was read is sent.
	// Only the reader uses it.
	fetchSent chan struct{}
}

// newSession makes the session of a client.
func (s *Server) newSession(client listen.Client, framer session.Framer) listen.Session {
	c := &connection{server: s, client: client}
	c.queues.Init(&s.queues)
	return session.New(&s.sessions, framer, c, client.Peer)
}

// Handle implements session.Handler.
func (c *connection) Handle(reply *session.Reply, frame []byte) error {
	r := &request{conn: c, reply: reply}
	return r.serve(frame)
}

// remoteHost is the address that the connection comes from, without its port.
func (c *connection) remoteHost() string {
	addr := c.client.Peer.String()
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}
