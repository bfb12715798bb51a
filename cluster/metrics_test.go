package cluster

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// A partition with a replica on a node that is away is counted, by the node that leads it, until
// that is back.
func TestUnderReplicatedPartitionsAreCounted(t *testing.T) {
	inBubble(t, testUnderReplicatedPartitionsAreCounted)
}

func testUnderReplicatedPartitionsAreCounted(t *testing.T) {
	c := newTestCluster(t, 3)
	registries := make([]*prometheus.Registry, len(c.nodes))
	for i := range c.nodes {
		registries[i] = prometheus.NewRegistry()
		c.nodes[i].cfg.Registry = registries[i]
	}
	c.startAll()
	c.topic("everywhere", 3, 3)
	c.topic("single", 3, 1)
	want := func(what string, n float64) {
		t.Helper()
		eventually(t, what, func() error {
			sum := 0.0
			for i := range c.nodes {
				families, err := registries[i].Gather()
				if err != nil {
					return err
				}
				for _, f := range families {
					if f.GetName() == "trimaran_under_replicated_partitions" {
						sum += f.Metric[0].GetGauge().GetValue()
					}
				}
			}
			if sum != n {
				return fmt.Errorf("%v are counted, want %v", sum, n)
			}
			return nil
		})
	}
	want("all nodes are there", 0)
	c.kill(2)
	want("one node is away", 3)
	c.start(2)
	want("it is back", 0)
}
