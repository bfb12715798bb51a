package gateway

import (
	"net"
	"testing"

	"github.com/trimaran-io/trimaran/gateway/login"
)

// linesOf is a cluster that says for whose connections lines are made.
type linesOf struct {
	*fakeCluster
	clients chan uint16
}

func (l linesOf) NewLine(client uint16) uint64 {
	l.clients <- client
	return 1
}

// TestConnectionsOfOneClientHaveOneNumber: what a client may have open in a partition is counted
// over all its connections, to whichever node: else it had as many shares as there are nodes. Who
// has not logged in is known by its address.
func TestConnectionsOfOneClientHaveOneNumber(t *testing.T) {
	clients := make(chan uint16, 1)
	number := func(t *testing.T, g *gatewayOf, from string, password string) uint16 {
		t.Helper()
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		conn, err := dialer.Dial("tcp", g.addr)
		if err != nil {
			t.Skipf("no second loopback address: %v", err)
		}
		c := newClient(t, conn)
		if password != "" {
			logIn(t, c)
		}
		c.do(produce(1, "events", 0, "a"))
		return <-clients
	}
	t.Run("addresses", func(t *testing.T) {
		g := serve(t, linesOf{newFake(t, "events:2"), clients}, nil)
		first, again, other := number(t, g, "127.0.0.1", ""), number(t, g, "127.0.0.1", ""), number(t, g, "127.0.0.2", "")
		if first != again || first == other {
			t.Errorf("%d and %d from one address, %d from another", first, again, other)
		}
		if elsewhere := number(t, serve(t, linesOf{newFake(t, "events:2"), clients}, nil), "127.0.0.1", ""); elsewhere != first {
			t.Errorf("%d at one node, %d at another", first, elsewhere)
		}
	})
	t.Run("users", func(t *testing.T) {
		s := serveSecured(t, func(cfg *Config) { cfg.Cluster = linesOf{newFake(t, "events:2"), clients} })
		if first, again := number(t, s.gatewayOf, "127.0.0.1", login.Plain), number(t, s.gatewayOf, "127.0.0.2", login.Plain); first != again {
			t.Errorf("%d and %d of one user", first, again)
		}
		other := serveSecured(t, func(cfg *Config) { cfg.Cluster = linesOf{newFake(t, "events:2"), clients} })
		if first, elsewhere := number(t, s.gatewayOf, "127.0.0.1", login.Plain), number(t, other.gatewayOf, "127.0.0.1", login.Plain); first != elsewhere {
			t.Errorf("%d at one node, %d at another of one user", first, elsewhere)
		}
	})
}
