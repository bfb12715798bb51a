package cluster

import (
	"fmt"
	"testing"

	"github.com/trimaran-io/trimaran/fsm"
)

// reassign tells the catalog where a partition's replicas shall be.
func (c *testCluster) reassign(at int, id fsm.PartitionID, to ...fsm.NodeID) {
	c.t.Helper()
	p, _ := c.nodes[at].Topics().Partition(id)
	command := fsm.CatalogCommand{Reassign: &fsm.Reassign{Topic: id.Topic, Moves: []fsm.Move{{Partition: id.Partition, From: p.Replicas, To: to}}}}
	if len(to) != len(p.Replicas) {
		command.Reassign.ReplicationFactor = len(to)
	}
	eventually(c.t, "the plan is made", func() error {
		_, err := c.nodes[at].catalog.apply(within(c.t), command)
		return err
	})
}

// TestAReplicaThatMissedAMoveElectsTheNewOne: while it was away another replica moved to a node that it does not know as a
// member. Then the leader dies: the two that are left are a majority, and the one that was away must help the other.
func TestAReplicaThatMissedAMoveElectsTheNewOne(t *testing.T) {
	c := newTestCluster(t, 3)
	for _, n := range c.nodes {
		n.cfg.NoAutoBalance = true
	}
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("missed", 1, 3).ID}
	c.add(0)
	c.nodes[3].cfg.NoAutoBalance = true
	c.start(3)
	c.ready()
	load := c.load(id, "x", 0, 1, 3)
	load.more(t, 20)
	c.kill(2)
	c.reassign(0, id, "n1", "n3", "n4")
	eventually(t, "the replica has moved", func() error {
		p, _ := c.nodes[0].Topics().Partition(id)
		if len(p.Leaving) > 0 {
			return fmt.Errorf("leaving: %q", p.Leaving)
		}
		return nil
	})
	load.more(t, 20)
	load.stop()
	load.done.Wait()
	c.kill(0)
	c.kill(3)
	c.start(2)
	c.start(3)
	if leader := c.leaderOf(id); leader != 3 {
		t.Errorf("node %d leads, without what was acknowledged meanwhile", leader+1)
	}
	load.acked["after"] = c.mustAppend(2, id, "after")
	load.check(c, id)
}
