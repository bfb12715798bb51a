package election_test

import (
	"net"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/trimaran-io/trimaran/cluster/election"
	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/link/peertest"
	"github.com/trimaran-io/trimaran/cluster/raftlink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type (
	linkConfig     = link.Config
	electionConfig = election.Config
	beacons        = election.Beacons
)

// config is what tests change of a node: Timeout counts for Raft's messages, too.
type config struct {
	linkConfig
	electionConfig
	MaxInFlight, MaxAppendEntries int
	Answered                      func(group string, req, resp any)
}

// node is a link, the transports over it, and its part in elections.
type node struct {
	*link.Link
	*beacons
	rafts *raftlink.Transports
}

func start(c config) node {
	l := link.New(c.linkConfig)
	rafts := raftlink.New(l, raftlink.Config{
		Timeout: c.Timeout, MaxInFlight: c.MaxInFlight, MaxAppendEntries: c.MaxAppendEntries, Answered: c.Answered,
	})
	n := node{l, election.New(l, rafts, c.electionConfig), rafts}
	l.Start()
	return n
}

// stats are the counters that tests look at.
type stats struct {
	link.Stats
	RaftOut, HeartbeatsSpared, AppendsSwallowed uint64
	Groups                                      int
}

func (n node) Stats() stats {
	r, e := n.rafts.Stats(), n.beacons.Stats()
	return stats{n.Link.Stats(), r.Out, e.HeartbeatsSpared, r.Swallowed, r.Groups}
}

// Transport opens a group.
func (n node) Transport(group string) raft.Transport { return n.Open(group) }

// linkOn starts a node self, which listens at its own name in a network of the test.
func linkOn(t *testing.T, n *peertest.Network, self string, change ...func(*config)) node {
	t.Helper()
	ln, err := n.Listen(self, self)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config{linkConfig: link.Config{
		Self: self, Listener: ln, Dial: n.Dial(self),
		Resolve: func(id string) (string, bool) { return id, true },
	}}
	for _, f := range change {
		f(&cfg)
	}
	l := start(cfg)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// tcpLink starts a node over real sockets; all nodes of a test share one address book.
func tcpLink(t testing.TB, self string, book map[string]string) node {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	book[self] = ln.Addr().String()
	l := start(config{linkConfig: link.Config{
		Self: self, Listener: ln,
		Resolve: func(id string) (string, bool) { a, ok := book[id]; return a, ok },
	}})
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func closeAll(nodes ...node) {
	for _, n := range nodes {
		_ = n.Close()
	}
}

// until waits for a condition.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
