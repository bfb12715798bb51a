package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
	"github.com/trimaran-io/trimaran/outcome"
)

// The disk of a leader hangs. Another replica leads before it moves again, through whichever node
// it is asked for; what was acknowledged is there once, what has an unknown fate once or not at
// all, and when the disk moves all replicas agree.
func TestALeaderWhoseDiskHangsIsReplaced(t *testing.T) {
	inRealTime(t, testALeaderWhoseDiskHangsIsReplaced)
}

func testALeaderWhoseDiskHangsIsReplaced(t *testing.T) {
	c := newTestCluster(t, 3)
	disks := make([]*hangs, len(c.nodes))
	for i := range c.nodes {
		disks[i] = c.disk(i)
	}
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	c.mustAppend(0, id, "before")
	c.everywhere(id, 1)
	leader := c.leaderOf(id)
	disks[leader].begin(func(op, _ string) bool { return op == "write" || op == "sync" || op == "allocate" })
	began := time.Now()
	// Whoever has proposed there hears that nobody knows its fate.
	const hung = "in the disk that hangs"
	_, err := c.nodes[leader].records(id).Append(within(t), 0, []kafkaproto.Batch{prototest.Batch(hung)})
	if outcome.Code(err) != outcome.ErrUnknownFate {
		t.Errorf("what waits for the disk: %v", err)
	}
	want := []string{"before"}
	for i := range c.nodes {
		value := fmt.Sprintf("through node %d", i)
		eventually(t, "records are taken "+value, func() error {
			_, err := c.nodes[i].Append(within(t), id, batchList{prototest.Batch(value)})
			if err != nil && !outcome.NotAppended(err) {
				t.Fatal(err)
			}
			return err
		})
		want = append(want, value)
		t.Logf("%s after %v", value, time.Since(began).Round(time.Millisecond))
	}
	for i := range c.nodes {
		got, err := valuesFrom(within(t), c.nodes[i].Node, id)
		if i == 0 && slices.Contains(got, hung) {
			want = slices.Insert(want, 1, hung) // it went ahead to the others, who have it
		}
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("node %d serves %q, %v", i, got, err)
		}
	}
	if _, err := c.nodes[leader].records(id).Leads(); err == nil {
		t.Error("the one whose disk hangs still answers as the leader")
	}
	disks[leader].end()
	c.mustAppend(leader, id, "after")
	c.wantEverywhere(id, append(want, "after"))
}

// A voter that answers and whose disk hangs is given no leadership: the leader leads on in its
// term, and takes records.
func TestALeadershipThatIsNotTakenStays(t *testing.T) {
	inRealTime(t, testALeadershipThatIsNotTakenStays)
}

func testALeadershipThatIsNotTakenStays(t *testing.T) {
	c := newTestCluster(t, 3)
	disks := make([]*hangs, len(c.nodes))
	for i := range c.nodes {
		disks[i] = c.disk(i)
		c.nodes[i].cfg.NoAutoBalance = true
	}
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	c.mustAppend(0, id, "before")
	c.everywhere(id, 1)
	leader := c.leaderOf(id)
	target, other := (leader+1)%3, (leader+2)%3
	g := c.nodes[leader].replica(id).Member
	term := g.Raft.CurrentTerm()
	disks[target].begin(func(op, _ string) bool { return op == "write" || op == "sync" })
	c.mustAppend(leader, id, "the target's disk hangs in it")
	to := c.nodes[target].identity
	if err := c.nodes[leader].handOverTo(g, func(identity string) bool { return identity == to }); err == nil {
		t.Error("the leadership was given to a node whose disk hangs")
	}
	c.mustAppend(leader, id, "goes on")
	if at := g.Raft.CurrentTerm(); at != term {
		t.Errorf("term %d instead of %d", at, term)
	}
	// Whom it is given to is the first that takes it.
	if err := c.nodes[leader].handOver(g); err != nil {
		t.Errorf("the other does not take it: %v", err)
	}
	if now := c.leaderOf(id); now != other {
		t.Errorf("node %d leads, want %d", now, other)
	}
	disks[target].end()
	c.wantEverywhere(id, []string{"before", "the target's disk hangs in it", "goes on"})
}

// Records are written all the time while leadership goes round. Nobody hears of an unknown fate,
// and each record is there once.
func TestAHandOverLosesNoProposal(t *testing.T) { inBubble(t, testAHandOverLosesNoProposal) }

func testAHandOverLosesNoProposal(t *testing.T) {
	c := newTestCluster(t, 3)
	for i := range c.nodes {
		c.nodes[i].cfg.NoAutoBalance = true
	}
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	c.mustAppend(0, id, "first")
	var stop atomic.Bool
	written := make(chan []string)
	for w := range 4 {
		go func() {
			var mine []string
			for i := 0; !stop.Load(); i++ {
				value := fmt.Sprintf("%d-%d", w, i)
				for {
					_, err := c.nodes[w%3].Append(context.Background(), id, batchList{prototest.Batch(value)})
					if err == nil {
						break
					}
					if !outcome.NotAppended(err) {
						t.Errorf("%s: %v", value, err)
						break
					}
				}
				mine = append(mine, value)
			}
			written <- mine
		}()
	}
	for range 6 {
		leader := c.leaderOf(id)
		g := c.nodes[leader].replica(id).Member
		eventually(t, "it is handed over", func() error { return c.nodes[leader].handOver(g) })
	}
	stop.Store(true)
	all := map[string]bool{"first": true}
	for range 4 {
		for _, v := range <-written {
			all[v] = true
		}
	}
	got, err := valuesFrom(within(t), c.nodes[0].Node, id)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, v := range got {
		if seen[v] {
			t.Errorf("%s is there twice", v)
		}
		seen[v] = true
	}
	if len(seen) != len(all) {
		t.Errorf("%d records, want %d", len(seen), len(all))
	}
}
