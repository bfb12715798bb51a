package cluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// small gives topics segments of some kilobytes.
func small(c *testCluster, configs map[string]string) {
	for _, node := range c.nodes {
		node.cfg.TopicDefaults = configs
		node.cfg.RetentionInterval = 100 * time.Millisecond
	}
}

// fill appends values of about a kilobyte and gives them.
func (c *testCluster) fill(node int, id fsm.PartitionID, name string, n int) []string {
	c.t.Helper()
	var values []string
	for i := range n {
		value := fmt.Sprintf("%s-%d-%s", name, i, strings.Repeat("x", 1000))
		c.mustAppend(node, id, value)
		values = append(values, value)
	}
	return values
}

// localValues reads what a replica itself has, from its log start on.
func localValues(t *testing.T, n *Node, id fsm.PartitionID) (start fsm.Offset, values int) {
	t.Helper()
	r := n.records(id)
	if r == nil {
		t.Fatal("the replica does not run")
	}
	start, end := r.Bounds()
	for from := start; from < end; {
		slice, ok, err := r.ReadHere(from, 1<<20, fsm.ReadUncommitted)
		if err != nil || !ok {
			t.Fatalf("offset %d: %v, %v", from, ok, err)
		}
		before := from
		for _, header := range headersOf(t, slice.Batches) {
			from = fsm.Offset(header.NextOffset())
			values += int(header.Records)
		}
		if from == before {
			t.Fatalf("offset %d: nothing was read", from)
		}
	}
	return start, values
}

// A follower that is away while the others go on past what Raft still has of their
// log copies what it lacks; then, with the others stopped, it serves everything.
func TestAFollowerFarBehindCopiesAndThenLeads(t *testing.T) {
	inBubble(t, testAFollowerFarBehindCopiesAndThenLeads)
}

func testAFollowerFarBehindCopiesAndThenLeads(t *testing.T) {
	c := newTestCluster(t, 3)
	small(c, map[string]string{"segment.bytes": "20000"})
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	want := c.fill(0, id, "before", 50)
	away := (c.leaderOf(id) + 1) % 3
	there := []int{(away + 1) % 3, (away + 2) % 3}
	c.kill(away)
	want = append(want, c.fill(there[0], id, "meanwhile", 150)...)
	c.outOfWindow(there, id, 60)

	c.start(away)
	c.rebuilt(away, id, fsm.Offset(len(want)))
	c.mustAppend(away, id, "the last one")
	want = append(want, "the last one")
	c.rebuilt(away, id, fsm.Offset(len(want)))
	if start, n := localValues(t, c.nodes[away].Node, id); start != 0 || n != len(want) {
		t.Errorf("it has %d records from offset %d on, want %d", n, start, len(want))
	}
	// Only it and one other are left: then it leads, and what it has is all there is.
	for _, other := range there {
		c.kill(other)
		c.leaderOf(id) // what is on its way to a leader that dies has no fate
		c.mustAppend(away, id, "and another")
		want = append(want, "and another")
		c.wantEverywhere(id, want)
		c.start(other)
		c.rebuilt(other, id, fsm.Offset(len(want)))
	}
}

// outOfWindow waits until the leader among nodes no longer has the entry for Raft.
func (c *testCluster) outOfWindow(nodes []int, id fsm.PartitionID, index uint64) {
	c.t.Helper()
	eventually(c.t, "snapshots have moved Raft's window", func() error {
		for _, i := range nodes {
			r := c.nodes[i].records(id)
			if r == nil {
				return errors.New("not there")
			}
			if first, _ := r.Log.FirstIndex(); first <= index {
				return fmt.Errorf("node %d: window from %d", i, first)
			}
		}
		return nil
	})
}

// toBeCopied is outOfWindow, and the leader starts again: an AppendEntries with older entries that
// it had put together for a node that is gone would wait for it (raftlink, park).
func (c *testCluster) toBeCopied(nodes []int, id fsm.PartitionID, index uint64) {
	c.t.Helper()
	c.outOfWindow(nodes, id, index)
	leader := c.leaderOf(id)
	c.kill(leader)
	c.start(leader)
	c.leaderOf(id)
}

// The same when retention has deleted meanwhile what the follower had: it begins
// where the others begin.
func TestAFollowerIsAwayWhileRetentionTrimsPastIt(t *testing.T) {
	inBubble(t, testAFollowerIsAwayWhileRetentionTrimsPastIt)
}

func testAFollowerIsAwayWhileRetentionTrimsPastIt(t *testing.T) {
	c := newTestCluster(t, 3)
	small(c, map[string]string{"segment.bytes": "20000", "retention.bytes": "60000"})
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	c.fill(0, id, "before", 30)
	away := (c.leaderOf(id) + 1) % 3
	there := []int{(away + 1) % 3, (away + 2) % 3}
	c.kill(away)
	total := fsm.Offset(30 + len(c.fill(there[0], id, "meanwhile", 200)))
	var start fsm.Offset
	eventually(t, "retention has freed segments everywhere", func() error {
		for _, i := range there {
			r := c.nodes[i].records(id)
			if start, _ = r.Bounds(); start < 100 {
				return fmt.Errorf("node %d begins at %d", i, start)
			}
			if first := r.Log.Segments()[0]; fsm.Offset(first.Start) < 60 {
				return fmt.Errorf("node %d has a segment from %d on", i, first.Start)
			}
		}
		return nil
	})
	eventually(t, "a read below the log start is refused", func() error {
		if _, err := c.nodes[there[0]].Read(within(t), id, 5, 1000, fsm.ReadUncommitted); outcome.Code(err) != outcome.ErrOffsetOutOfRange {
			return fmt.Errorf("a read below the log start: %v", err)
		}
		return nil
	})
	c.start(away)
	c.rebuilt(away, id, total)
	for _, other := range there {
		c.kill(other)
		eventually(t, "all retained records are there", func() error {
			begins, n := localValues(t, c.nodes[away].Node, id)
			if begins < start || fsm.Offset(n) != total-begins {
				return fmt.Errorf("%d records from offset %d on, the log ends at %d", n, begins, total)
			}
			return nil
		})
		c.leaderOf(id)
		c.mustAppend(away, id, "and another")
		total++
		c.start(other)
		c.rebuilt(other, id, total)
	}
}

// An idle partition with records that are too old ends empty on all replicas, and
// goes on from its offsets.
func TestAnIdlePartitionIsEmptiedByRetention(t *testing.T) {
	inBubble(t, testAnIdlePartitionIsEmptiedByRetention)
}

func testAnIdlePartitionIsEmptiedByRetention(t *testing.T) {
	c := newTestCluster(t, 3)
	small(c, map[string]string{"retention.ms": "1500"})
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	c.fill(0, id, "old", 20)
	eventually(t, "all is freed everywhere", func() error {
		for i, n := range c.nodes {
			r := n.records(id)
			if start, next := r.Bounds(); start != 20 || next != 20 {
				return fmt.Errorf("node %d: %d to %d", i, start, next)
			}
			if bytes := r.Log.Bytes(); bytes > 5000 {
				return fmt.Errorf("node %d has %d bytes", i, bytes)
			}
		}
		return nil
	})
	if base := c.mustAppend(1, id, "new"); base != 20 {
		t.Errorf("offset %d, want 20", base)
	}
	for i := range c.nodes {
		c.kill(i)
	}
	for i := range c.nodes {
		c.start(i)
	}
	c.ready()
	if base := c.mustAppend(2, id, "newer"); base != 21 {
		t.Errorf("offset %d after a restart, want 21", base)
	}
	eventually(t, "all is freed again", func() error {
		for i, n := range c.nodes {
			r := n.replica(id)
			if start, next := r.Bounds(); start != 22 || next != 22 || r.Log.Segments()[0].Base <= r.Log.SnapshotIndex() {
				return fmt.Errorf("node %d: %d to %d, from entry %d on, snapshot at %d", i, start, next, r.Log.Segments()[0].Base, r.Log.SnapshotIndex())
			}
		}
		return nil
	})
	for i := range c.nodes {
		c.kill(i)
	}
	for i := range c.nodes {
		c.start(i)
	}
	c.ready()
	if base := c.mustAppend(0, id, "newest"); base != 22 {
		t.Errorf("offset %d after a restart of empty logs, want 22", base)
	}
}

// Nothing at all is to be kept where retention.bytes is 0, as in Kafka.
func TestRetentionOfNoBytes(t *testing.T) { inBubble(t, testRetentionOfNoBytes) }

func testRetentionOfNoBytes(t *testing.T) {
	c := newTestCluster(t, 1)
	small(c, map[string]string{"retention.bytes": "0"})
	c.startAll()
	topic := c.topic("a", 1, 1)
	id := fsm.PartitionID{Topic: topic.ID}
	c.fill(0, id, "old", 20)
	eventually(t, "all is freed", func() error {
		if start, next := c.nodes[0].records(id).Bounds(); start != 20 || next != 20 {
			return fmt.Errorf("%d to %d", start, next)
		}
		return nil
	})
	if base := c.mustAppend(0, id, "new"); base != 20 {
		t.Errorf("offset %d, want 20", base)
	}
}

// A record that came with a time far ahead, in microseconds where milliseconds are meant, is in the
// log from before the topic refused such: it goes with the others of its time.
func TestATimeFarAheadDoesNotEndRetention(t *testing.T) {
	inBubble(t, testATimeFarAheadDoesNotEndRetention)
}

func testATimeFarAheadDoesNotEndRetention(t *testing.T) {
	c := newTestCluster(t, 3)
	small(c, map[string]string{"retention.ms": "1500", "message.timestamp.after.max.ms": "0"})
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	m := kmsg.MessageV1{Magic: 1, Timestamp: time.Now().UnixMicro(), Value: []byte("ahead")}
	batches, _, err := kafkaproto.FromMessageSet(messageWithCRC(m.AppendTo(nil)), kafkaproto.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is appended", func() error {
		_, err := c.nodes[0].Append(t.Context(), id, batches)
		return err
	})
	c.fill(0, id, "behind", 20)
	eventually(t, "all is freed everywhere", func() error {
		for i, n := range c.nodes {
			if start, next := n.records(id).Bounds(); start != 21 || next != 21 {
				return fmt.Errorf("node %d: %d to %d", i, start, next)
			}
		}
		return nil
	})
}

// A follower that is away while all that there is gets too old finds a leader whose
// log holds nothing at all.
func TestAFollowerIsAwayWhileRetentionFreesEverything(t *testing.T) {
	inBubble(t, testAFollowerIsAwayWhileRetentionFreesEverything)
}

func testAFollowerIsAwayWhileRetentionFreesEverything(t *testing.T) {
	c := newTestCluster(t, 3)
	small(c, map[string]string{"retention.ms": "1500"})
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	c.fill(0, id, "before", 5)
	away := (c.leaderOf(id) + 1) % 3
	there := []int{(away + 1) % 3, (away + 2) % 3}
	c.kill(away)
	c.fill(there[0], id, "meanwhile", 60)
	eventually(t, "all is freed", func() error {
		for _, i := range there {
			r := c.nodes[i].replica(id)
			if start, next := r.Bounds(); start != 65 || next != 65 || r.Log.Segments()[0].Base <= r.Log.SnapshotIndex() {
				return fmt.Errorf("node %d: %d to %d, from entry %d on, snapshot at %d", i, start, next, r.Log.Segments()[0].Base, r.Log.SnapshotIndex())
			}
		}
		return nil
	})
	c.start(away)
	c.rebuilt(away, id, 65)
	c.kill(there[0])
	c.mustAppend(away, id, "new")
	c.rebuilt(away, id, 66)
}

// TestAnEmptiedPartitionIsCopiedWhenNothingCanBeCommitted: of three replicas one is gone and one
// was away while all that there is was freed. It has to be copied before anything is committed.
func TestAnEmptiedPartitionIsCopiedWhenNothingCanBeCommitted(t *testing.T) {
	inBubble(t, testAnEmptiedPartitionIsCopiedWhenNothingCanBeCommitted)
}

func testAnEmptiedPartitionIsCopiedWhenNothingCanBeCommitted(t *testing.T) {
	c := newTestCluster(t, 3)
	small(c, map[string]string{"retention.ms": "1500"})
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	c.fill(0, id, "before", 5)
	leader := c.leaderOf(id)
	away, other := (leader+1)%3, (leader+2)%3
	c.kill(away)
	c.fill(leader, id, "meanwhile", 60)
	eventually(t, "all is freed", func() error {
		r := c.nodes[leader].replica(id)
		if start, next := r.Bounds(); start != 65 || next != 65 || r.Log.Segments()[0].Base <= r.Log.SnapshotIndex() {
			return fmt.Errorf("%d to %d, from entry %d on, snapshot at %d", start, next, r.Log.Segments()[0].Base, r.Log.SnapshotIndex())
		}
		return nil
	})
	c.kill(other)
	c.start(away)
	eventually(t, "an append", func() error {
		_, err := c.append(leader, id, "new")
		return err
	})
	c.start(other)
	c.ready()
}

// TestRecordsInFrontOfALeaderChangeGetTooOld: the entry of a new leader begins a segment of its own
// when the one before is old enough. What is in front of it expires all the same, though nothing
// else is written.
func TestRecordsInFrontOfALeaderChangeGetTooOld(t *testing.T) {
	inBubble(t, testRecordsInFrontOfALeaderChangeGetTooOld)
}

func testRecordsInFrontOfALeaderChangeGetTooOld(t *testing.T) {
	c := newTestCluster(t, 3)
	small(c, map[string]string{"segment.ms": "100", "retention.ms": "3000"})
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	c.fill(0, id, "old", 5)
	leader := c.leaderOf(id)
	c.kill(leader)
	next := c.leaderOf(id)
	c.start(leader)
	eventually(t, "a segment of the new leader's own", func() error {
		if s := c.nodes[next].replica(id).Log.Segments(); len(s) < 2 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	eventually(t, "all is freed", func() error {
		for i, n := range c.nodes {
			r := n.records(id)
			if r == nil {
				return fmt.Errorf("node %d has no replica yet", i+1)
			}
			if start, end := r.Bounds(); start != 5 || end != 5 || r.Log.Bytes() > 1000 {
				return fmt.Errorf("node %d: %d to %d, segments %+v", i+1, start, end, r.Log.Segments())
			}
		}
		return nil
	})
}
