package cluster

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// TestWhoHasJustDiedIsChosenForNothing: gossip holds it for alive for seconds, its connections
// broke at once.
func TestWhoHasJustDiedIsChosenForNothing(t *testing.T) {
	inBubble(t, testWhoHasJustDiedIsChosenForNothing)
}

func testWhoHasJustDiedIsChosenForNothing(t *testing.T) {
	c := newTestCluster(t, 4)
	for _, n := range c.nodes {
		n.cfg.NoAutoBalance = true
		n.cfg.ClientAddress = "127.0.0.1:1"
	}
	c.startAll()
	c.allKnow()
	spec := fsm.TopicSpec{Name: "three", Assignment: [][]fsm.NodeID{{"n1", "n2", "n3"}}}
	if err := c.nodes[0].CreateTopic(within(t), spec, false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all are shown", func() error {
		if got := c.nodes[0].Gateways(); len(got) != 4 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
	c.kill(3)
	identity := c.nodes[3].identity
	leader := c.nodes[0].Node
	eventually(t, "the catalog's leader misses it", func() error {
		for i := range 3 {
			if g := c.nodes[i].catalog.Member(); g.Raft.State() == raft.Leader {
				leader = c.nodes[i].Node
			}
		}
		if leader.connected(identity) || !leader.health.CatalogLed() || leader.catalog.Member().Raft.State() != raft.Leader {
			return errors.New("not yet")
		}
		return nil
	})
	for what, request := range map[string]admin.Request{
		"a fourth replica":                       {Op: admin.OpReplicationFactor, Topic: "three", Factor: 4},
		"its replicas for a dead successor":      {Op: admin.OpReplace, Node: "n3", Successor: "n4"},
		"a node of which nobody is to take over": {Op: admin.OpDecommission, Node: "n3"},
	} {
		err := leader.Administer(within(t), request)
		if code := outcome.Code(err); code != outcome.ErrInvalidAssignment && code != outcome.ErrInvalidReplicationFactor {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got := leader.Gateways(); len(got) != 3 {
		t.Errorf("clients are sent to %v", got)
	}
}

// TestWhoIsRegisteredIsReachedSoon, whether or not anything is asked of it: a node that had a
// session with one of the two others alone would send its clients away as soon as that one died.
func TestWhoIsRegisteredIsReachedSoon(t *testing.T) {
	inBubble(t, testWhoIsRegisteredIsReachedSoon)
}

func testWhoIsRegisteredIsReachedSoon(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	for _, n := range c.nodes {
		eventually(t, "all are registered", func() error {
			if got := len(n.Topics().Nodes()); got != 3 {
				return fmt.Errorf("%d", got)
			}
			return nil
		})
	}
	const soon = 200 * time.Millisecond // of virtual time
	for start := time.Now(); ; <-time.After(5 * time.Millisecond) {
		var unheard []string
		for _, n := range c.nodes {
			for _, other := range c.nodes {
				if other != n && !n.nodes.Reached(other.identity) {
					unheard = append(unheard, n.identity+" does not reach "+other.identity)
				}
			}
		}
		if len(unheard) == 0 {
			return
		}
		if time.Since(start) > soon {
			t.Fatalf("after %s: %v", soon, unheard)
		}
	}
}

// TestNoStepLeavesAGroupWithoutAMajority that is there: neither a plan nor what carries it out.
func TestNoStepLeavesAGroupWithoutAMajority(t *testing.T) {
	inBubble(t, testNoStepLeavesAGroupWithoutAMajority)
}

func testNoStepLeavesAGroupWithoutAMajority(t *testing.T) {
	c := newTestCluster(t, 4)
	for _, n := range c.nodes {
		n.cfg.NoAutoBalance = true
	}
	c.startAll()
	c.allKnow()
	n := c.nodes[0].Node
	for _, spec := range []fsm.TopicSpec{
		{Name: "pair", Assignment: [][]fsm.NodeID{{"n1", "n4"}}},
		{Name: "only", Assignment: [][]fsm.NodeID{{"n4"}}},
	} {
		if err := n.CreateTopic(within(t), spec, false); err != nil {
			t.Fatal(err)
		}
	}
	ids := make([]string, 4)
	for i, node := range c.nodes {
		ids[i] = node.identity
	}
	c.kill(3)
	eventually(t, "it is missed, and another leads the catalog", func() error {
		for i := range 3 {
			if c.nodes[i].connected(ids[3]) || !c.nodes[i].health.CatalogLed() {
				return fmt.Errorf("not yet at node %d", i+1)
			}
		}
		return nil
	})
	for what, request := range map[string]admin.Request{
		"a third replica beside one of two":        {Op: admin.OpReplicationFactor, Topic: "pair", Factor: 3},
		"one replica of two, of which one is gone": {Op: admin.OpReplicationFactor, Topic: "pair", Factor: 1},
		"a node with the only replica":             {Op: admin.OpReplace, Node: "n4"},
	} {
		if err := n.Administer(within(t), request); err == nil {
			t.Errorf("%s: granted", what)
		} else {
			t.Logf("%s: %v", what, err)
		}
	}
	voters := func(of ...int) (servers []raft.Server) {
		for _, i := range of {
			servers = append(servers, raft.Server{ID: raft.ServerID(ids[i]), Suffrage: raft.Voter})
		}
		return servers
	}
	for _, test := range []struct {
		servers   []raft.Server
		with, out int // a node, -1: none
		may       bool
	}{
		{voters(0, 1, 3), 2, -1, true},
		{voters(0, 3), 1, -1, true},
		{voters(0, 1, 2), 3, -1, false}, // it is not there
		{voters(0, 1, 3), -1, 3, true},
		{voters(0, 1, 3), -1, 1, false},
		{voters(0, 3), -1, 3, true},
	} {
		may := false
		if test.with >= 0 {
			may = n.nodes.MajorityWith(test.servers, ids[test.with])
		} else {
			may = n.nodes.MajorityWithout(test.servers, ids[test.out])
		}
		if may != test.may {
			t.Errorf("%v with %d, without %d: %v", test.servers, test.with+1, test.out+1, may)
		}
	}
}

// TestANodeThatLeavesVotesAsLongAsItIsNeeded: it has nothing, and would end when it hears that it
// has left.
func TestANodeThatLeavesVotesAsLongAsItIsNeeded(t *testing.T) {
	inBubble(t, testANodeThatLeavesVotesAsLongAsItIsNeeded)
}

func testANodeThatLeavesVotesAsLongAsItIsNeeded(t *testing.T) {
	c := newTestCluster(t, 3)
	logs := c.logged()
	c.startAll()
	c.allKnow()
	c.kill(2)
	leader := -1
	eventually(t, "it is missed", func() error {
		for i := range 2 {
			if n := c.nodes[i].Node; n.catalog.Member().Raft.State() == raft.Leader && n.health.CatalogLed() && !n.connected(c.nodes[2].identity) {
				leader = i
				return nil
			}
		}
		return errors.New("not yet")
	})
	other, n := c.nodes[1-leader], c.nodes[leader].Node
	// It was granted when all were there.
	command := fsm.CatalogCommand{SetNodeState: &fsm.SetNodeState{ID: other.NodeID(), State: fsm.NodeLeaving}}
	if _, err := n.catalog.Change(within(t), command); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a turn of the planner, which would be enough, leaves it as it is", func() error {
		if logs[leader].with("the catalog would have no majority") == 0 {
			return fmt.Errorf("it has left: %v", other.Err())
		}
		return nil
	})
	c.topic("served", 1, 1)
	if err := other.Err(); err != nil {
		t.Errorf("it has ended: %v", err)
	}
	c.start(2)
	eventually(t, "it leaves when it is needed no more", func() error {
		if err := other.Err(); !errors.Is(err, ErrLeft) {
			return fmt.Errorf("it goes on: %v", err)
		}
		return nil
	})
	if servers, err := n.catalog.Member().Servers(); err != nil || slices.ContainsFunc(servers, func(s raft.Server) bool {
		return string(s.ID) == other.identity && s.Suffrage == raft.Voter
	}) {
		t.Errorf("it has ended with a vote: %v, %v", servers, err)
	}
}
