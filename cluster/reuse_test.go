package cluster

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/fsm"
)

// Names of nodes are used again here: a node leaves for good, and another one comes under its name,
// with a data directory of its own.

// again makes a node under the name of another one, with an empty data directory.
func (c *testCluster) again(i int) int {
	next := c.add(0)
	cfg := &c.nodes[next].cfg
	cfg.NodeID = c.nodes[i].cfg.NodeID
	cfg.DataDir = filepath.Join(c.base, fmt.Sprintf("%s-again-%d", cfg.NodeID, next))
	cfg.NoAutoBalance = true
	return next
}

// leave has a node leave through another one, and waits until it is gone from the cluster.
func (c *testCluster) leave(i, through int) {
	c.t.Helper()
	id := c.nodes[i].cfg.NodeID
	c.administer(through, admin.Request{Op: admin.OpDecommission, Node: id})
	eventually(c.t, fmt.Sprintf("%s has left", id), func() error {
		if _, ok := c.nodes[through].Topics().Node(id); ok {
			return errors.New("it is in the catalog")
		}
		for _, s := range c.nodes[through].catalog.Member().Raft.GetConfiguration().Configuration().Servers {
			if strings.HasPrefix(string(s.ID), string(id)+".") {
				return errors.New("it is in the catalog's group")
			}
		}
		return nil
	})
	c.kill(i)
}

// formedWith gives the identities in the first entry of a group's log at a node, "" of none.
func formedWith(g *raftgroup.Member) string {
	var entry raft.Log
	if g.Log.GetLog(1, &entry) != nil || entry.Type != raft.LogConfiguration {
		return ""
	}
	var ids []string
	for _, s := range raft.DecodeConfiguration(entry.Data).Servers {
		ids = append(ids, string(s.ID))
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}

// formedOnce holds what all running nodes have of a group's beginning against who should have
// formed it.
func (c *testCluster) formedOnce(id fsm.PartitionID, want string) {
	c.t.Helper()
	found := 0
	for i, node := range c.nodes {
		if !node.running {
			continue
		}
		r := node.Node.replica(id)
		if r == nil {
			continue
		}
		switch got := formedWith(r.Member); got {
		case want:
			found++
		case "": // it began with a snapshot
		default:
			c.t.Errorf("node %d has a group of %s that was formed with %s; it was formed with %s", i+1, id, got, want)
		}
	}
	if found == 0 {
		c.t.Errorf("nobody knows how the group of %s was formed", id)
	}
}

// A cluster that has grown from one node: its name is alone in what the groups were formed with.
// The node goes, and another one comes under the name and gets replicas. It must not take itself
// for the majority that the first one was.
func TestANameIsUsedAgainInAClusterGrownFromOneNode(t *testing.T) {
	inBubble(t, testANameIsUsedAgainInAClusterGrownFromOneNode)
}

func testANameIsUsedAgainInAClusterGrownFromOneNode(t *testing.T) {
	c := newTestCluster(t, 1)
	c.nodes[0].cfg.NoAutoBalance = true
	c.startAll()
	c.allKnow()
	id := fsm.PartitionID{Topic: c.topic("grown", 1, 1).ID}
	c.mustAppend(0, id, "a")
	c.commit(0, "readers", "grown", 7)
	for range 2 {
		i := c.add(0)
		c.nodes[i].cfg.NoAutoBalance = true
		c.start(i)
	}
	c.ready()
	first := c.nodes[0].identity
	c.leave(0, 1)
	c.mustAppend(1, id, "b")

	again := c.again(0)
	c.start(again)
	c.ready()
	if c.nodes[again].identity == first {
		t.Fatal("it is the same node")
	}
	c.reassign(1, id, "n1")
	for shard := range c.nodes[1].Topics().Placed()[1].Partitions {
		c.reassign(1, shardID(shard), "n1")
	}
	c.replicasAre(id, 1, "n1")
	c.mustAppend(2, id, "c")
	c.wantEverywhere(id, []string{"a", "b", "c"})
	c.formedOnce(id, first)
	for shard := range c.nodes[1].Topics().Placed()[1].Partitions {
		c.replicasAre(shardID(shard), 1, "n1")
		c.formedOnce(shardID(shard), first)
	}
	c.wantCommitted("readers", "grown", 7)
	eventually(t, "it is a member of the catalog's group", func() error {
		if got := formedWith(c.nodes[again].catalog.Member()); got != first {
			return fmt.Errorf("formed with %q", got)
		}
		return nil
	})
}

// Three replicas; one node is replaced while it is dead, another has been away since before the
// partition was created. Then a node comes under the name of the dead one. Neither begins with a
// configuration that never was.
func TestANameIsUsedAgainWhileAnotherNodeIsAway(t *testing.T) {
	inBubble(t, testANameIsUsedAgainWhileAnotherNodeIsAway)
}

func testANameIsUsedAgainWhileAnotherNodeIsAway(t *testing.T) {
	c := newTestCluster(t, 3)
	for _, n := range c.nodes {
		n.cfg.NoAutoBalance = true
	}
	c.startAll()
	c.allKnow()
	c.kill(1)
	id := fsm.PartitionID{Topic: c.topic("three", 1, 3).ID}
	identities := []string{c.nodes[0].identity, c.nodes[1].identity, c.nodes[2].identity}
	slices.Sort(identities)
	first := strings.Join(identities, " ")
	c.mustAppend(0, id, "a")
	fourth := c.add(0)
	c.nodes[fourth].cfg.NoAutoBalance = true
	c.start(fourth)
	c.ready()
	c.reassign(0, id, "n1", "n2", "n4")
	eventually(t, "n3 is out of the group", func() error {
		if p, _ := c.nodes[0].Topics().Partition(id); len(p.Leaving) > 0 {
			return fmt.Errorf("leaving: %q", p.Leaving)
		}
		return nil
	})
	// Not as an operator would, with so many away.
	gone, _ := c.nodes[0].Topics().Node("n3")
	if _, err := c.nodes[0].catalog.Change(within(t), fsm.CatalogCommand{RemoveNode: &fsm.RemoveNode{ID: "n3", Incarnation: gone.Incarnation}}); err != nil {
		t.Fatal(err)
	}
	c.kill(2)
	c.mustAppend(0, id, "b")

	again := c.again(2)
	c.start(again)
	c.start(1)
	c.ready()
	c.reassign(0, id, "n1", "n2", "n3")
	c.replicasAre(id, 0, "n1", "n2", "n3")
	c.mustAppend(again, id, "c")
	c.wantEverywhere(id, []string{"a", "b", "c"})
	c.formedOnce(id, first)
}

// While one node's program takes a name for who had it first, nobody gets the name of a node on
// which groups were created. Whoever asks waits, and is let in when the last node has been
// upgraded.
func TestANameIsUsedAgainOnceAllNodesAreUpgraded(t *testing.T) {
	inBubble(t, testANameIsUsedAgainOnceAllNodesAreUpgraded)
}

func testANameIsUsedAgainOnceAllNodesAreUpgraded(t *testing.T) {
	c := newTestCluster(t, 3)
	for _, n := range c.nodes {
		n.cfg.featureLevel, n.cfg.NoAutoBalance = 2, true
	}
	c.startAll()
	eventually(t, "level 2", func() error {
		if level := c.any().Topics().FeatureLevel(); level != 2 {
			return fmt.Errorf("level %d", level)
		}
		return nil
	})
	spec := fsm.TopicSpec{Name: "mixed", Assignment: [][]fsm.NodeID{{"n3"}}}
	if err := c.nodes[0].CreateTopic(within(t), spec, false); err != nil {
		t.Fatal(err)
	}
	topic, _ := c.nodes[0].Topics().Lookup("mixed")
	id, first := fsm.PartitionID{Topic: topic.ID}, c.nodes[2].identity
	c.mustAppend(0, id, "a")
	c.leave(2, 0)
	again := c.again(2)
	c.start(again)
	eventually(t, "it waits", func() error {
		if err := c.nodes[again].Ready(); err == nil || !strings.Contains(err.Error(), "can be used again when all nodes run this program") {
			return fmt.Errorf("it says %v", err)
		}
		return nil
	})
	for i := range 2 { // one after the other is upgraded
		c.kill(i)
		c.nodes[i].cfg.featureLevel = 0
		c.start(i)
		eventually(t, "it is back", func() error { return c.nodes[i].Ready() })
		c.mustAppend(i, id, fmt.Sprint("b", i))
	}
	c.allKnow()
	c.ready()
	c.reassign(0, id, "n3")
	c.replicasAre(id, 0, "n3")
	c.mustAppend(1, id, "c")
	c.wantEverywhere(id, []string{"a", "b0", "b1", "c"})
	c.formedOnce(id, first)
}

// A node that formed its cluster alone and has lost what it voted and its catalog knows who it is
// and that it formed it. The cluster goes on elsewhere.
func TestANodeThatFormedItsClusterDoesNotFormItAgain(t *testing.T) {
	inBubble(t, testANodeThatFormedItsClusterDoesNotFormItAgain)
}

func testANodeThatFormedItsClusterDoesNotFormItAgain(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	dir := c.nodes[0].dir
	c.kill(0)
	for _, name := range []string{"votes", "catalog", "partitions"} {
		if err := c.nodes[0].on().RemoveAll(dir.Join(name)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := Start(c.nodes[0].cfg); err == nil || !strings.Contains(err.Error(), "has lost votes") {
		t.Errorf("the node starts: %v", err)
		if err == nil {
			n.stop()
		}
	}
}

// A node alone that is told of others waits for them: its disk may be gone, and its cluster be
// there.
func TestANodeThatIsToldOfOthersFormsNoClusterAlone(t *testing.T) {
	inBubble(t, testANodeThatIsToldOfOthersFormsNoClusterAlone)
}

func testANodeThatIsToldOfOthersFormsNoClusterAlone(t *testing.T) {
	c := newTestCluster(t, 1)
	c.nodes[0].cfg.NoAutoBalance = true
	c.startAll()
	c.add(0)
	c.start(1)
	c.ready()
	cluster := c.nodes[1].ClusterID()
	c.leave(0, 1)
	_, gossip := c.nodes[1].Addresses()
	c.nodes[1].fixed = true
	c.kill(1)

	again := c.again(0)
	c.nodes[again].cfg.BootstrapExpect, c.nodes[again].cfg.Join = 1, []string{gossip}
	c.addresses(again)
	n, err := Start(c.nodes[again].cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.nodes[again].Node, c.nodes[again].running = n, true
	eventually(t, "it waits", func() error {
		if err := n.Ready(); err == nil || !strings.Contains(err.Error(), "waiting to meet another node") {
			return fmt.Errorf("it says %v", err)
		}
		return nil
	})
	c.start(1)
	c.ready()
	if got := n.ClusterID(); got != cluster {
		t.Errorf("it is in cluster %s, the others are in %s", got, cluster)
	}
}
