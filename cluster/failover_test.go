package cluster

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/leading"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
)

// TestManyGroupsElectAtOnceWhenANodeDies: by their own timers they would take half a minute.
func TestManyGroupsElectAtOnceWhenANodeDies(t *testing.T) {
	inBubble(t, testManyGroupsElectAtOnceWhenANodeDies)
}

func testManyGroupsElectAtOnceWhenANodeDies(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	const partitions = 40
	topic := c.topic("many", partitions, 3)
	led := map[int]int{}
	for p := range int32(partitions) {
		led[c.leaderOf(fsm.PartitionID{Topic: topic.ID, Partition: p})]++
	}
	victim := 0
	if led[victim] == 0 {
		t.Fatalf("node 1 leads nothing: %v", led)
	}
	c.kill(victim)
	died := time.Now()
	for p := range int32(partitions) {
		c.leaderOf(fsm.PartitionID{Topic: topic.ID, Partition: p})
	}
	if took := time.Since(died); took > 7*time.Second {
		t.Errorf("%d groups had a leader again after %v", led[victim], took)
	}
}

// TestTheLeaderThatIsRememberedMayAskForAnElection: a leader that was restarted leads no more, and
// the others still take it for theirs for some seconds. When it finds that one of them should
// stand, that one does; another node that asks for the same is not believed.
func TestTheLeaderThatIsRememberedMayAskForAnElection(t *testing.T) {
	inBubble(t, testTheLeaderThatIsRememberedMayAskForAnElection)
}

func testTheLeaderThatIsRememberedMayAskForAnElection(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("ask", 1, 3).ID}
	leader := c.leaderOf(id)
	next, other := (leader+1)%3, (leader+2)%3
	g := c.nodes[next].replica(id).Member
	eventually(t, "the follower knows its leader", func() error {
		if s := c.nodes[next].handovers.Of(leading.Of(g), c.nodes[other].identity); !s.Led || !s.Voter {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	ask := func(from int) error {
		ask := []calls.StandRequest{{Group: g.Name, Term: g.Raft.CurrentTerm()}}
		_, err := c.nodes[next].failover.Told(within(t), c.nodes[from].identity, ask)
		return err
	}
	f := c.nodes[next].failover
	stood := func() bool { return f.Rests(g.Name) }
	// It may have stood when the partition was new, and would rest from that.
	f.Rouse(g.Name)
	if err := ask(other); err != nil || stood() {
		t.Errorf("asked by another node: %v, stood: %v", err, stood())
	}
	term := g.Raft.CurrentTerm()
	if err := ask(leader); err != nil || !stood() {
		t.Errorf("asked by the leader itself: %v, stood: %v", err, stood())
	}
	// On a busy machine another one may be quicker in the end.
	eventually(t, "somebody is elected", func() error {
		if leader, now := g.Leader(); now <= term || leader == "" {
			return fmt.Errorf("term %d after %d, led by %q", now, term, leader)
		}
		return nil
	})
}

// TestALonelySuspicionChangesNothing: two nodes lose sight of each other and the third sees both.
func TestALonelySuspicionChangesNothing(t *testing.T) {
	inBubble(t, testALonelySuspicionChangesNothing)
}

func testALonelySuspicionChangesNothing(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	const partitions = 12
	topic := c.topic("calm", partitions, 3)
	leaders, terms := map[int32]int{}, map[int32]uint64{}
	counts := map[int]int{}
	for p := range int32(partitions) {
		id := fsm.PartitionID{Topic: topic.ID, Partition: p}
		leaders[p] = c.leaderOf(id)
		counts[leaders[p]]++
		_, terms[p] = c.nodes[leaders[p]].replica(id).Member.Leader()
	}
	a, b, third := 0, 1, 2
	if counts[a]+counts[b] == 0 {
		t.Fatalf("neither node leads anything: %v", counts)
	}
	c.net.pair(a, b, true)
	var surveys [2]uint64
	eventually(t, "both hold each other for gone", func() error {
		if !c.nodes[a].election.Gone(c.nodes[b].identity) || !c.nodes[b].election.Gone(c.nodes[a].identity) {
			return fmt.Errorf("not yet")
		}
		surveys[0], surveys[1] = c.nodes[a].failover.Surveys(), c.nodes[b].failover.Surveys()
		return nil
	})
	eventually(t, "they asked the third again and again", func() error {
		na, nb := c.nodes[a].failover.Surveys()-surveys[0], c.nodes[b].failover.Surveys()-surveys[1]
		if (counts[b] > 0 && na < 8) || (counts[a] > 0 && nb < 8) {
			return fmt.Errorf("%d and %d surveys", na, nb)
		}
		return nil
	})
	ctx := within(t)
	for p := range int32(partitions) {
		id := fsm.PartitionID{Topic: topic.ID, Partition: p}
		if _, err := c.nodes[third].Append(ctx, id, batchList{prototest.Batch("still")}); err != nil {
			t.Errorf("partition %d: %v", p, err)
		}
		r := c.nodes[leaders[p]].replica(id)
		if _, term := r.Member.Leader(); term != terms[p] || r.Member.Raft.State() != raft.Leader {
			t.Errorf("partition %d is in term %d, was in %d", p, term, terms[p])
		}
	}
	c.net.pair(a, b, false)
	eventually(t, "they see each other again", func() error {
		if c.nodes[a].election.Gone(c.nodes[b].identity) || c.nodes[b].election.Gone(c.nodes[a].identity) {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	for p := range int32(partitions) {
		id := fsm.PartitionID{Topic: topic.ID, Partition: p}
		if _, term := c.nodes[leaders[p]].replica(id).Member.Leader(); term != terms[p] {
			t.Errorf("partition %d is in term %d after the cut, was in %d", p, term, terms[p])
		}
	}
}

// TestAGroupThatEndedOnALiveNodeIsLedByAnother: nothing is wrong with the node, so it is not held
// for gone.
func TestAGroupThatEndedOnALiveNodeIsLedByAnother(t *testing.T) {
	inBubble(t, testAGroupThatEndedOnALiveNodeIsLedByAnother)
}

func testAGroupThatEndedOnALiveNodeIsLedByAnother(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	topic := c.topic("one", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	first := c.leaderOf(id)
	g := c.nodes[first].replica(id).Member
	if err := g.Raft.Shutdown().Error(); err != nil {
		t.Fatal(err)
	}
	ended := time.Now()
	other := c.nodes[(first+1)%3]
	eventually(t, "records are taken again", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_, err := other.Append(ctx, id, batchList{prototest.Batch("on")})
		return err
	})
	if took := time.Since(ended); took > 10*time.Second {
		t.Errorf("another led after %v", took)
	}
}
