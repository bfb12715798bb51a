package cluster

import (
	"errors"
	"fmt"
	"testing"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
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
		_, err := c.nodes[at].catalog.Change(within(c.t), command)
		return err
	})
}

// TestAReplicaThatMissedAMoveElectsTheNewOne: while it was away another replica moved to a node
// that it does not know as a member. Then the leader dies: the two that are left are a majority,
// and the one that was away must help the other.
func TestAReplicaThatMissedAMoveElectsTheNewOne(t *testing.T) {
	inBubble(t, testAReplicaThatMissedAMoveElectsTheNewOne)
}

func testAReplicaThatMissedAMoveElectsTheNewOne(t *testing.T) {
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

// allKnow waits until the cluster uses what its nodes' program knows.
func (c *testCluster) allKnow() {
	c.t.Helper()
	eventually(c.t, "all have said what they know", func() error {
		if level := c.any().Topics().FeatureLevel(); level < fsm.FeatureLevel {
			return fmt.Errorf("level %d", level)
		}
		return nil
	})
}

// TestFewerReplicasWhileOneIsDead: it is taken out of the group first. Were it another, the leader
// would need the dead one for everything from then on.
func TestFewerReplicasWhileOneIsDead(t *testing.T) { inBubble(t, testFewerReplicasWhileOneIsDead) }

func testFewerReplicasWhileOneIsDead(t *testing.T) {
	c := newTestCluster(t, 3)
	for _, n := range c.nodes {
		n.cfg.NoAutoBalance = true
	}
	c.startAll()
	c.allKnow()
	id := fsm.PartitionID{Topic: c.topic("fewer", 1, 3).ID}
	leader := c.leaderOf(id)
	dead := 2
	if leader == dead {
		dead = 1
	}
	c.kill(dead)
	c.reassign(leader, id, c.nodes[leader].NodeID())
	c.replicasAre(id, leader, c.nodes[leader].NodeID())
	c.mustAppend(3-leader-dead, id, "a")
}

// TestNodesLeaveWhileOneOfThemIsDead: as TestFewerReplicasWhileOneIsDead, for the catalog's group.
func TestNodesLeaveWhileOneOfThemIsDead(t *testing.T) {
	inBubble(t, testNodesLeaveWhileOneOfThemIsDead)
}

func testNodesLeaveWhileOneOfThemIsDead(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.allKnow()
	c.kill(2)
	eventually(t, "the leader misses it, and keeps the one that it needs", func() error {
		if err := c.nodes[0].Administer(within(t), admin.Request{Op: admin.OpDecommission, Node: "n2"}); outcome.Code(err) != outcome.ErrInvalidAssignment {
			// It may have been granted for a moment, or the leader may be new.
			c.administer(0, admin.Request{Op: admin.OpActivate, Node: "n2"})
			return fmt.Errorf("the answer is %v", err)
		}
		return nil
	})
	for _, node := range []fsm.NodeID{"n3", "n2"} {
		c.administer(0, admin.Request{Op: admin.OpDecommission, Node: node})
	}
	eventually(t, "one node is left", func() error {
		servers := c.nodes[0].catalog.Member().Raft.GetConfiguration().Configuration().Servers
		if nodes := c.nodes[0].Topics().Nodes(); len(nodes) != 1 || len(servers) != 1 {
			return fmt.Errorf("nodes %v, servers %v", nodes, servers)
		}
		return nil
	})
	c.kill(1)
	id := fsm.PartitionID{Topic: c.topic("alone", 1, 1).ID}
	c.mustAppend(0, id, "a")
}

// TestANodeThatNobodyReachesDoesNotVote: it asks to be admitted and is gone, or cannot be reached
// where it says it is. The catalog must not need it.
func TestANodeThatNobodyReachesDoesNotVote(t *testing.T) {
	inBubble(t, testANodeThatNobodyReachesDoesNotVote)
}

func testANodeThatNobodyReachesDoesNotVote(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	ghost := fsm.Node{ID: "ghost", Incarnation: "00000000", FeatureLevel: fsm.FeatureLevel}
	if _, err := c.nodes[0].catalog.Change(within(t), fsm.CatalogCommand{RegisterNode: &ghost}); err != nil {
		t.Fatal(err)
	}
	id := fsm.PartitionID{Topic: c.topic("unharmed", 1, 1).ID}
	c.mustAppend(0, id, "a")
	c.add(0)
	c.start(1)
	c.ready()
	eventually(t, "the next one votes", func() error {
		servers := c.nodes[0].catalog.Member().Raft.GetConfiguration().Configuration().Servers
		if len(servers) != 2 {
			return fmt.Errorf("%v", servers)
		}
		return nil
	})
}

// TestReplicasThatComeBackWithNothingFormNoGroupOfTheirOwn: two of the first three replicas are
// taken away, one of them before it was ever there. When both are wanted again and the only one
// that has the records is cut off, they must not take themselves for the majority that they once
// were.
func TestReplicasThatComeBackWithNothingFormNoGroupOfTheirOwn(t *testing.T) {
	inBubble(t, testReplicasThatComeBackWithNothingFormNoGroupOfTheirOwn)
}

func testReplicasThatComeBackWithNothingFormNoGroupOfTheirOwn(t *testing.T) {
	c := newTestCluster(t, 3)
	for _, n := range c.nodes {
		n.cfg.NoAutoBalance = true
	}
	c.startAll()
	c.allKnow()
	c.kill(2)
	id := fsm.PartitionID{Topic: c.topic("back", 1, 3).ID}
	c.mustAppend(0, id, "a")
	c.mustAppend(1, id, "b")
	c.reassign(0, id, "n1")
	c.replicasAre(id, 0, "n1")
	c.mustAppend(0, id, "c")
	c.start(2)
	c.ready()

	c.net.isolate(0, len(c.nodes), true)
	c.reassign(1, id, "n1", "n2", "n3")
	eventually(t, "both are open", func() error {
		for _, i := range []int{1, 2} {
			r := c.nodes[i].Node.replica(id)
			if r == nil {
				return errors.New("not yet open")
			}
			if servers := r.Member.Raft.GetConfiguration().Configuration().Servers; len(servers) > 0 {
				t.Fatalf("node %d, which has no record, believes in %v", i+1, servers)
			}
		}
		return nil
	})
	c.net.isolate(0, len(c.nodes), false)
	c.replicasAre(id, 1, "n1", "n2", "n3")
	c.mustAppend(1, id, "d")
	c.wantEverywhere(id, []string{"a", "b", "c", "d"})
}

// TestANodeIsReadyWithoutAPartitionThatCannotBeLed: the other half of its replicas is gone, perhaps
// for good, and this node has been restarted.
func TestANodeIsReadyWithoutAPartitionThatCannotBeLed(t *testing.T) {
	inBubble(t, testANodeIsReadyWithoutAPartitionThatCannotBeLed)
}

func testANodeIsReadyWithoutAPartitionThatCannotBeLed(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	spec := fsm.TopicSpec{Name: "half", Assignment: [][]fsm.NodeID{{"n1", "n2"}}}
	if err := c.nodes[0].CreateTopic(within(t), spec, false); err != nil {
		t.Fatal(err)
	}
	c.kill(0)
	c.kill(1)
	c.start(0)
	c.ready()
}
