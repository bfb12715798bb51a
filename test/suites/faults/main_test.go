// Package faults breaks clusters on purpose: nodes are killed, paused, started
// in odd orders, with other ports, with the wrong data. A ledger kept outside
// says afterwards whether anything acknowledged was lost, moved or doubled.
//
// You are here: the outside. Each test owns its cluster; nothing is shared.
package faults

import (
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// patience is how long a cluster may take to serve again after a fault. Under
// the race detector on two busy cores everything is several times slower; the
// figures that users may expect are checked by scripts/durability.sh.
const patience = 2 * time.Minute

func verify(t *testing.T, c *harness.Cluster, l *harness.Load) {
	t.Helper()
	if err := l.Stop(); err != nil {
		t.Errorf("an acknowledgement that cannot be: %v", err)
	}
	t.Log(l)
	addrs := c.Addrs()
	if c.Shim != nil {
		addrs = append(addrs, c.ShimAddr())
	}
	for _, addr := range addrs {
		if err := l.Verify(addr, patience); err != nil {
			t.Error(err)
		}
	}
}

func create(t *testing.T, c *harness.Cluster, topic string, partitions int32) {
	t.Helper()
	if err := c.CreateTopic(t.Context(), topic, partitions, 3); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// status is what a node says of the cluster, as soon as it says something.
func status(t *testing.T, n *harness.Node) (s *harness.Status) {
	t.Helper()
	var last error
	err := harness.Eventually(patience, func() bool {
		s, last = n.Status()
		return last == nil
	})
	if err != nil {
		t.Fatalf("%s says no status: %v", n.ID, last)
	}
	return s
}

func leader(t *testing.T, c *harness.Cluster, topic string, partition int32) *harness.Node {
	t.Helper()
	n, err := c.Leader(topic, partition, patience)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
