package cluster

import (
	"fmt"
	"testing"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
)

// A node that leaves gives its shards to another one, with what is in them.
func TestShardsLeaveWithTheirNode(t *testing.T) { inBubble(t, testShardsLeaveWithTheirNode) }

func testShardsLeaveWithTheirNode(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.topic("a", 1, 3)
	groups := groupNames()
	for i, g := range groups {
		c.commit(i%3, g, "a", int64(i))
	}
	c.add(0)
	c.nodes[3].cfg.NoAutoBalance = true
	c.start(3)
	c.ready()
	c.administer(3, admin.Request{Op: admin.OpDecommission, Node: c.nodes[0].NodeID()})
	eventually(t, "the node ends", func() error {
		if err := c.nodes[0].Err(); err == nil {
			return fmt.Errorf("it goes on")
		}
		return nil
	})
	c.kill(0)
	for s := range coordinator.Shards {
		c.replicasAre(shardID(s), 3, "n2", "n3", "n4")
	}
	for i, g := range groups {
		c.wantCommitted(g, "a", int64(i))
		c.commit(1+i%3, g, "a", int64(100+i))
		c.wantCommitted(g, "a", int64(100+i))
	}
}

// The shards of a cluster that began with one node get more replicas when there are
// more nodes, and then do without the first.
func TestShardsGetMoreReplicas(t *testing.T) { inBubble(t, testShardsGetMoreReplicas) }

func testShardsGetMoreReplicas(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	c.topic("a", 1, 1)
	groups := groupNames()
	for i, g := range groups {
		c.commit(0, g, "a", int64(i))
	}
	for range 2 {
		c.start(c.add(0))
	}
	c.ready()
	c.administer(0, admin.Request{Op: admin.OpReplicationFactor, Topic: "a", Factor: 3})
	c.administer(0, admin.Request{Op: admin.OpReplicationFactor, Topic: fsm.GroupShardsName, Factor: 3})
	for s := range coordinator.Shards {
		c.replicasAre(shardID(s), 1, "n1", "n2", "n3")
	}
	c.kill(0)
	for i, g := range groups {
		c.wantCommitted(g, "a", int64(i))
	}
}
