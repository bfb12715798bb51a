package cluster

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
)

// everyReplicaHas waits until exactly these nodes hold the partition, none is leaving, and the
// group votes alike.
func (c *testCluster) replicasAre(id fsm.PartitionID, at int, want ...fsm.NodeID) {
	c.t.Helper()
	slices.Sort(want)
	eventually(c.t, fmt.Sprintf("replicas on %q", want), func() error {
		p, ok := c.nodes[at].Topics().Partition(id)
		if !ok {
			return fmt.Errorf("no such partition")
		}
		have := slices.Sorted(slices.Values(p.Replicas))
		if !slices.Equal(have, want) || len(p.Leaving) > 0 {
			return fmt.Errorf("on %q, leaving %q", p.Replicas, p.Leaving)
		}
		// Each replica knows the group as it is to be. If its leader alone did, the group could be
		// another one when that dies.
		leaders := 0
		for _, node := range c.nodes {
			if !node.running {
				continue
			}
			r := node.Node.replica(id)
			if !slices.Contains(want, node.NodeID()) {
				if r != nil {
					return fmt.Errorf("%s has one still", node.NodeID())
				}
				continue
			}
			if r == nil {
				return fmt.Errorf("%s has none", node.NodeID())
			}
			if _, err := r.Leads(); err == nil {
				leaders++
			}
			var voters []string
			for _, s := range r.Member.Raft.GetConfiguration().Configuration().Servers {
				voters = append(voters, fmt.Sprint(s.Suffrage, string(s.ID)[:2]))
			}
			slices.Sort(voters)
			if !slices.EqualFunc(voters, want, func(v string, id fsm.NodeID) bool { return v == "Voter"+string(id) }) {
				return fmt.Errorf("the group is %q by %s", voters, node.NodeID())
			}
		}
		if leaders != 1 {
			return fmt.Errorf("%d lead", leaders)
		}
		return nil
	})
}

func (c *testCluster) administer(at int, request admin.Request) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("%+v", request), func() error { return c.nodes[at].Administer(within(c.t), request) })
}

// TestDecommissionUnderLoad moves everything of a node to a fourth one, among it the leadership,
// and the node goes.
func TestDecommissionUnderLoad(t *testing.T) { inBubble(t, testDecommissionUnderLoad) }

func testDecommissionUnderLoad(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	topic := c.topic("moved", 2, 3)
	ids := []fsm.PartitionID{{Topic: topic.ID}, {Topic: topic.ID, Partition: 1}}
	c.add(0)
	c.nodes[3].cfg.NoAutoBalance = true
	c.start(3)
	c.ready()
	victim := c.leaderOf(ids[0])
	var through []int
	for i := range 4 {
		if i != victim {
			through = append(through, i)
		}
	}
	load := c.load(ids[0], "x", through...)
	load.more(t, 20)
	c.administer(3, admin.Request{Op: admin.OpDecommission, Node: c.nodes[victim].NodeID()})
	var want []fsm.NodeID
	for _, i := range through {
		want = append(want, c.nodes[i].NodeID())
	}
	for _, id := range ids {
		c.replicasAre(id, 3, want...)
	}
	load.more(t, 20)
	eventually(t, "the node ends", func() error {
		if err := c.nodes[victim].Err(); err == nil {
			return fmt.Errorf("it goes on")
		}
		return nil
	})
	c.kill(victim)
	if _, err := Start(c.nodes[victim].cfg); !errors.Is(err, ErrLeft) {
		t.Errorf("started again: %v", err)
	}
	eventually(t, "the node is gone from the catalog and its group", func() error {
		if nodes := c.nodes[3].Topics().Nodes(); len(nodes) != 3 {
			return fmt.Errorf("%v", nodes)
		}
		servers := c.nodes[3].catalog.Member().Raft.GetConfiguration().Configuration().Servers
		if len(servers) != 3 {
			return fmt.Errorf("%v", servers)
		}
		return nil
	})
	load.more(t, 20)
	load.check(c, ids[0])
}

// TestReplacedWhileAway takes a dead node out of the cluster. When it is back, with all its data,
// it hears of that and ends, and does not start another time.
func TestReplacedWhileAway(t *testing.T) { inBubble(t, testReplacedWhileAway) }

func testReplacedWhileAway(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	topic := c.topic("away", 2, 3)
	c.add(0)
	c.start(3)
	c.ready()
	const victim = 1
	c.kill(victim)
	c.administer(0, admin.Request{Op: admin.OpReplace, Node: c.nodes[victim].NodeID()})
	var want []fsm.NodeID
	for _, i := range []int{0, 2, 3} {
		want = append(want, c.nodes[i].NodeID())
	}
	for p := range topic.Partitions {
		c.replicasAre(fsm.PartitionID{Topic: topic.ID, Partition: int32(p)}, 0, want...)
	}
	eventually(t, "the catalog's group is without it", func() error {
		for _, i := range []int{0, 2, 3} {
			servers := c.nodes[i].catalog.Member().Raft.GetConfiguration().Configuration().Servers
			if len(servers) != 3 {
				return fmt.Errorf("%v", servers)
			}
		}
		return nil
	})
	c.start(victim)
	eventually(t, "the node ends", func() error {
		if err := c.nodes[victim].Err(); !errors.Is(err, ErrLeft) {
			return fmt.Errorf("it goes on: %v", err)
		}
		return nil
	})
	c.kill(victim)
	if _, err := Start(c.nodes[victim].cfg); !errors.Is(err, ErrLeft) {
		t.Errorf("started again: %v", err)
	}
}

// TestAMoveGoesOnWhereItWasCut stops the source, the target and the leader while replicas are on
// the move.
func TestAMoveGoesOnWhereItWasCut(t *testing.T) { inBubble(t, testAMoveGoesOnWhereItWasCut) }

func testAMoveGoesOnWhereItWasCut(t *testing.T) {
	c := newTestCluster(t, 3)
	for _, n := range c.nodes {
		n.cfg.NoAutoBalance = true
	}
	c.startAll()
	topic := c.topic("cut", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	c.add(0)
	c.start(3)
	c.ready()
	load := c.load(id, "x", 0, 1, 2, 3)
	load.more(t, 50)
	source := c.leaderOf(id)
	for round, cut := range []func() int{
		func() int { return 3 },
		func() int { return source },
		func() int { return c.leaderOf(id) },
	} {
		from, to := source, 3
		if round%2 == 1 {
			from, to = 3, source
		}
		p, _ := c.nodes[from].Topics().Partition(id)
		next := slices.Clone(p.Replicas)
		next[slices.Index(next, c.nodes[from].NodeID())] = c.nodes[to].NodeID()
		command := fsm.CatalogCommand{Reassign: &fsm.Reassign{Topic: id.Topic, Moves: []fsm.Move{{From: p.Replicas, To: next}}}}
		eventually(t, "the plan is made", func() error {
			_, err := c.nodes[from].catalog.Change(within(t), command)
			return err
		})
		victim := cut()
		load.stop()
		load.done.Wait()
		c.kill(victim)
		var others []int
		for i := range c.nodes {
			if i != victim {
				others = append(others, i)
			}
		}
		again := c.load(id, fmt.Sprint("r", round), others...)
		again.more(t, 20)
		c.start(victim)
		c.ready()
		c.replicasAre(id, to, next...)
		again.more(t, 20)
		again.stop()
		again.done.Wait()
		for value, offset := range load.acked {
			again.acked[value] = offset
		}
		again.check(c, id)
		load = again
	}
}

// TestADeadNodeIsReplaced: its replicas go to another one by themselves, and when it comes back it
// holds none.
func TestADeadNodeIsReplaced(t *testing.T) { inBubble(t, testADeadNodeIsReplaced) }

func testADeadNodeIsReplaced(t *testing.T) {
	c := newTestCluster(t, 3)
	c.add(0)
	for _, n := range c.nodes {
		n.cfg.ReplaceAfter = 2 * time.Second
		n.cfg.NoAutoBalance = true
	}
	for i := range 3 {
		c.start(i)
	}
	c.ready()
	topic := c.topic("dead", 2, 3)
	ids := []fsm.PartitionID{{Topic: topic.ID}, {Topic: topic.ID, Partition: 1}}
	load := c.load(ids[0], "x", 0, 1)
	load.more(t, 20)
	c.start(3)
	c.ready()
	c.kill(2)
	for _, id := range ids {
		c.replicasAre(id, 0, "n1", "n2", "n4")
	}
	load.more(t, 20)
	c.start(2)
	c.ready()
	eventually(t, "it has deleted what it had", func() error {
		if n := len(c.nodes[2].runningReplicas()); n > 0 {
			return fmt.Errorf("%d replicas run", n)
		}
		return nil
	})
	load.check(c, ids[0])
}

// TestReplicationFactorGoesDownAndUp, and a new node gets its share.
func TestReplicationFactorGoesDownAndUp(t *testing.T) {
	inBubble(t, testReplicationFactorGoesDownAndUp)
}

func testReplicationFactorGoesDownAndUp(t *testing.T) {
	c := newTestCluster(t, 3)
	for _, n := range c.nodes {
		n.cfg.NoAutoBalance = true
	}
	c.startAll()
	topic := c.topic("factor", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	load := c.load(id, "x", 0, 1, 2)
	load.more(t, 20)
	p, _ := c.nodes[0].Topics().Partition(id)
	c.administer(0, admin.Request{Op: admin.OpReplicationFactor, Topic: "factor", Factor: 1})
	c.replicasAre(id, 0, p.Replicas[0])
	load.more(t, 20)
	c.administer(0, admin.Request{Op: admin.OpReplicationFactor, Topic: "factor", Factor: 3})
	c.replicasAre(id, 0, "n1", "n2", "n3")
	load.more(t, 20)
	load.check(c, id)
}

// TestANewNodeGetsItsShare of replicas and of leaders.
func TestANewNodeGetsItsShare(t *testing.T) { inBubble(t, testANewNodeGetsItsShare) }

func testANewNodeGetsItsShare(t *testing.T) {
	c := newTestCluster(t, 3)
	c.add(0)
	for _, n := range c.nodes {
		n.cfg.steadyFor = time.Second
	}
	for i := range 3 {
		c.start(i)
	}
	c.ready()
	topic := c.topic("share", 8, 3)
	load := c.load(fsm.PartitionID{Topic: topic.ID}, "x", 0, 1, 2)
	load.more(t, 20)
	c.start(3)
	c.ready()
	eventually(t, "replicas and leaders are even", func() error {
		replicas, leaders := map[fsm.NodeID]int{}, map[fsm.NodeID]int{}
		topic, _ := c.nodes[0].Topics().ByID(topic.ID)
		for p := range topic.Partitions {
			if len(topic.Partitions[p].Leaving) > 0 {
				return fmt.Errorf("partition %d is on the move", p)
			}
			for _, id := range topic.Partitions[p].Replicas {
				replicas[id]++
			}
			for _, node := range c.nodes {
				if !node.running {
					continue
				}
				if r := node.Node.replica(fsm.PartitionID{Topic: topic.ID, Partition: int32(p)}); r != nil {
					if _, err := r.Leads(); err == nil {
						leaders[node.NodeID()]++
					}
				}
			}
		}
		for _, node := range c.nodes {
			if id := node.NodeID(); replicas[id] != 6 || leaders[id] < 1 || leaders[id] > 3 {
				return fmt.Errorf("replicas %v, leaders %v", replicas, leaders)
			}
		}
		return nil
	})
	load.more(t, 20)
	load.check(c, fsm.PartitionID{Topic: topic.ID})
}

// TestADrainedNodeLeadsNothing until it is told to work again.
func TestADrainedNodeLeadsNothing(t *testing.T) { inBubble(t, testADrainedNodeLeadsNothing) }

func testADrainedNodeLeadsNothing(t *testing.T) {
	c := newTestCluster(t, 3)
	for _, n := range c.nodes {
		n.cfg.steadyFor = time.Second
	}
	c.startAll()
	topic := c.topic("drained", 6, 3)
	led := func(i int) (n int) {
		for p := range int32(6) {
			if r := c.nodes[i].Node.replica(fsm.PartitionID{Topic: topic.ID, Partition: p}); r != nil {
				if _, err := r.Leads(); err == nil {
					n++
				}
			}
		}
		return n
	}
	c.administer(0, admin.Request{Op: admin.OpDrain, Node: "n2"})
	eventually(t, "it leads nothing", func() error {
		if n := led(1); n > 0 || led(0)+led(2) < 6 {
			return fmt.Errorf("it leads %d, the others %d and %d", n, led(0), led(2))
		}
		return nil
	})
	c.administer(0, admin.Request{Op: admin.OpActivate, Node: "n2"})
	eventually(t, "it leads what it prefers to", func() error {
		if n := led(1); n != 2 {
			return fmt.Errorf("it leads %d", n)
		}
		return nil
	})
}
