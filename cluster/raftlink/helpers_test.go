package raftlink_test

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/link/peertest"
	"github.com/trimaran-io/trimaran/cluster/raftlink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a link with the transports over it.
type node struct {
	*link.Link
	rafts *raftlink.Transports
}

// Transport opens a group.
func (n node) Transport(group string) raft.Transport { return n.rafts.Open(group, nil) }

// linkOn starts a link of node self, which listens at its own name in a network of the test.
func linkOn(t *testing.T, n *peertest.Network, self string, change ...func(*raftlink.Config)) node {
	t.Helper()
	var cfg raftlink.Config
	for _, f := range change {
		f(&cfg)
	}
	return startOn(t, n, self, cfg, nil)
}

// hostedOn is linkOn for a node that hears beacons.
func hostedOn(t *testing.T, n *peertest.Network, self string, host raftlink.Host) node {
	t.Helper()
	return startOn(t, n, self, raftlink.Config{}, host)
}

func startOn(t *testing.T, n *peertest.Network, self string, cfg raftlink.Config, host raftlink.Host) node {
	t.Helper()
	ln, err := n.Listen(self, self)
	if err != nil {
		t.Fatal(err)
	}
	return startWith(t, link.Config{
		Self: self, Listener: ln, Dial: n.Dial(self),
		Resolve: func(id string) (string, bool) { return id, true },
	}, cfg, host)
}

// startWith starts a link, and the transports over it.
func startWith(t *testing.T, links link.Config, cfg raftlink.Config, host raftlink.Host) node {
	t.Helper()
	l := link.New(links)
	rafts := raftlink.New(l, cfg)
	if host != nil {
		rafts.Consult(host, 300*time.Millisecond)
	}
	l.Start()
	t.Cleanup(func() { _ = l.Close() })
	return node{l, rafts}
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
