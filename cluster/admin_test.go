package cluster

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// Partitions that a topic gets later are placed, get leaders and take records, and
// those that were there keep theirs.
func TestATopicGetsMorePartitions(t *testing.T) { inBubble(t, testATopicGetsMorePartitions) }

func testATopicGetsMorePartitions(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	topic := c.topic("a", 1, 3)
	c.mustAppend(0, fsm.PartitionID{Topic: topic.ID}, "before")
	ctx := within(t)
	if err := c.nodes[1].CreatePartitions(ctx, topic.ID, 5, true); err != nil {
		t.Fatal(err)
	}
	if now, _ := c.nodes[1].Topics().ByID(topic.ID); len(now.Partitions) != 1 {
		t.Fatalf("%d partitions after a mere question", len(now.Partitions))
	}
	if err := c.nodes[2].CreatePartitions(ctx, topic.ID, 4, false); err != nil {
		t.Fatal(err)
	}
	for p := range int32(4) {
		id := fsm.PartitionID{Topic: topic.ID, Partition: p}
		c.mustAppend(int(p)%3, id, fmt.Sprint("in ", p))
	}
	c.wantEverywhere(fsm.PartitionID{Topic: topic.ID}, []string{"before", "in 0"})
	c.wantEverywhere(fsm.PartitionID{Topic: topic.ID, Partition: 3}, []string{"in 3"})
	for _, count := range []int{4, 3, 0, -1, fsm.MaxPartitions + 1} {
		if err := c.nodes[0].CreatePartitions(ctx, topic.ID, count, false); outcome.Code(err) != outcome.ErrInvalidPartitions {
			t.Errorf("%d partitions: %v", count, err)
		}
	}
	if err := c.nodes[0].CreatePartitions(ctx, fsm.TopicID{1}, 5, false); outcome.Code(err) != outcome.ErrUnknownTopicOrPartition {
		t.Error(err)
	}
}

// What is changed through one node is known at the others when that is answered: a client behind a
// shim, or with the addresses of several nodes, may ask another one next.
func TestAChangeIsKnownAtAllNodesWhenItIsAnswered(t *testing.T) {
	inBubble(t, testAChangeIsKnownAtAllNodesWhenItIsAnswered)
}

func testAChangeIsKnownAtAllNodesWhenItIsAnswered(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.topic("ready", 1, 3)
	ctx := within(t)
	for round := range 9 {
		node, name := c.nodes[round%3], fmt.Sprint("t", round)
		everywhere := func(what string, is func(topic *fsm.Topic, ok bool) bool) {
			t.Helper()
			for i := range c.nodes {
				if topic, ok := c.nodes[i].Topics().Lookup(name); !is(topic, ok) {
					t.Errorf("round %d, through node %d: node %d does not know that %s", round, round%3+1, i+1, what)
				}
			}
		}
		if err := node.CreateTopic(ctx, fsm.TopicSpec{Name: name, Partitions: 1, ReplicationFactor: 1}, false); err != nil {
			t.Fatal(err)
		}
		everywhere("the topic is there", func(_ *fsm.Topic, ok bool) bool { return ok })
		topic, _ := node.Topics().Lookup(name)
		if err := node.CreatePartitions(ctx, topic.ID, 2, false); err != nil {
			t.Fatal(err)
		}
		everywhere("it has two partitions", func(topic *fsm.Topic, ok bool) bool { return ok && len(topic.Partitions) == 2 })
		change := []fsm.ConfigChange{{Name: "max.message.bytes", Op: fsm.SetConfig, Value: "77"}}
		if err := node.AlterConfigs(ctx, fsm.AlterConfigs{Topic: topic.ID, Changes: change}, false); err != nil {
			t.Fatal(err)
		}
		everywhere("its configuration is another", func(topic *fsm.Topic, ok bool) bool { return ok && topic.MaxMessageBytes(nil) == 77 })
		if err := node.DeleteTopic(ctx, name); err != nil {
			t.Fatal(err)
		}
		everywhere("it is gone", func(_ *fsm.Topic, ok bool) bool { return !ok })
	}
}

// A node that has just died gets no new partitions: with one replica they would have no leader
// until it is back.
func TestNothingIsPlacedOnANodeThatHasJustDied(t *testing.T) {
	inBubble(t, testNothingIsPlacedOnANodeThatHasJustDied)
}

func testNothingIsPlacedOnANodeThatHasJustDied(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.topic("before", 1, 3)
	c.kill(2)
	if err := c.any().CreateTopic(within(t), fsm.TopicSpec{Name: "after", Partitions: 6, ReplicationFactor: 1}, false); err != nil {
		t.Fatal(err)
	}
	topic, _ := c.any().Topics().Lookup("after")
	for p, partition := range topic.Partitions {
		if slices.Contains(partition.Replicas, c.nodes[2].nodeID) {
			t.Errorf("partition %d is on the dead node", p)
		}
	}
}

// A configuration that is changed through one node holds at all.
func TestConfigsAreAlteredEverywhere(t *testing.T) { inBubble(t, testConfigsAreAlteredEverywhere) }

func testConfigsAreAlteredEverywhere(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	topic := c.topic("a", 1, 3)
	set := func(name, value string) fsm.AlterConfigs {
		return fsm.AlterConfigs{Topic: topic.ID, Changes: []fsm.ConfigChange{{Name: name, Op: fsm.SetConfig, Value: value}}}
	}
	ctx := within(t)
	if err := c.nodes[0].AlterConfigs(ctx, set("max.message.bytes", "5"), true); err != nil {
		t.Fatal(err)
	}
	if err := c.nodes[1].AlterConfigs(ctx, set("max.message.bytes", "77"), false); err != nil {
		t.Fatal(err)
	}
	for i := range c.nodes {
		if now, _ := c.nodes[i].Topics().ByID(topic.ID); now.MaxMessageBytes(nil) != 77 {
			t.Errorf("node %d has %d", i+1, now.MaxMessageBytes(nil))
		}
	}
	if err := c.nodes[2].AlterConfigs(ctx, set("max.message.bytes", "-1"), false); outcome.Code(err) != outcome.ErrInvalidConfig {
		t.Error(err)
	}
}

// Deleted records are gone on all replicas, whichever node is asked, and stay gone.
func TestRecordsAreDeletedEverywhere(t *testing.T) { inBubble(t, testRecordsAreDeletedEverywhere) }

func testRecordsAreDeletedEverywhere(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	for i := range 10 {
		c.mustAppend(0, id, fmt.Sprint(i))
	}
	ctx := within(t)
	remove := func(node int, before fsm.Offset) (low fsm.Offset, err error) {
		eventually(t, "delete records", func() error {
			if low, err = c.nodes[node].DeleteRecords(ctx, id, before); outcome.NotAppended(err) {
				return err
			}
			return nil
		})
		return low, err
	}
	for node, want := range map[int]fsm.Offset{0: 3, 1: 4, 2: 5} {
		if low, err := remove(node, want); err != nil || low < want {
			t.Errorf("node %d: %d, %v", node+1, low, err)
		}
	}
	if low, err := remove(0, 2); err != nil || low != 5 {
		t.Errorf("below the start: %d, %v", low, err)
	}
	for _, bad := range []fsm.Offset{11, -2} {
		if _, err := remove(1, bad); outcome.Code(err) != outcome.ErrOffsetOutOfRange {
			t.Errorf("%d: %v", bad, err)
		}
	}
	for i := range c.nodes {
		eventually(t, "the log start", func() error {
			if start, next := c.nodes[i].replica(id).Bounds(); start != 5 || next != 10 {
				return fmt.Errorf("node %d has %d to %d", i+1, start, next)
			}
			return nil
		})
		if _, err := c.nodes[i].Read(ctx, id, 4, 100, fsm.ReadUncommitted); outcome.Code(err) != outcome.ErrOffsetOutOfRange {
			t.Errorf("node %d reads what is deleted: %v", i+1, err)
		}
	}
	if low, err := remove(2, -1); err != nil || low != 10 {
		t.Errorf("all: %d, %v", low, err)
	}
	c.mustAppend(0, id, "after")
	for i := range c.nodes {
		slice, err := c.nodes[i].Read(ctx, id, 10, 100, fsm.ReadUncommitted)
		if err != nil || len(slice.Batches) == 0 {
			t.Errorf("node %d: %v", i+1, err)
		}
	}
	compact := fsm.AlterConfigs{Topic: topic.ID, Changes: []fsm.ConfigChange{{Name: "cleanup.policy", Op: fsm.SetConfig, Value: "compact"}}}
	if err := c.nodes[0].AlterConfigs(ctx, compact, false); err != nil {
		t.Fatal(err)
	}
	if _, err := c.nodes[0].DeleteRecords(ctx, id, -1); outcome.Code(err) != outcome.ErrPolicy {
		t.Error(err)
	}
}

// Every node tells who produces.
func TestProducersAreTold(t *testing.T) { inBubble(t, testProducersAreTold) }

func testProducersAreTold(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	ctx := within(t)
	for _, b := range []kafkaproto.Batch{batchFrom(9, 2, 4, "x", "y"), batchFrom(7, 0, 0, "z")} {
		if _, err := c.nodes[0].Append(ctx, id, batchList{b}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range c.nodes {
		producers, err := c.nodes[i].Producers(ctx, id)
		for j := range producers {
			producers[j].LastTimestamp = 0
		}
		if err != nil || !slices.Equal(producers, []fsm.ActiveProducer{{ID: 9, Epoch: 2, LastSequence: 5}, {ID: 7}}) {
			t.Errorf("node %d: %+v, %v", i+1, producers, err)
		}
	}
}

// The status says how large logs and disks are, and an id names one topic for ever.
func TestTopicsAreDeletedByID(t *testing.T) { inBubble(t, testTopicsAreDeletedByID) }

func testTopicsAreDeletedByID(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	topic := c.topic("a", 1, 1)
	c.mustAppend(0, fsm.PartitionID{Topic: topic.ID}, "x")
	ctx := within(t)
	status, err := c.nodes[0].Status(ctx)
	if err != nil || status.Topics[0].Partitions[0].Replicas[0].Bytes == 0 || status.Nodes[0].DiskTotal == 0 {
		t.Errorf("%+v, %v", status, err)
	}
	if err := c.nodes[0].DeleteTopicByID(ctx, topic.ID); err != nil {
		t.Fatal(err)
	}
	if _, there := c.nodes[0].Topics().Lookup("a"); there {
		t.Error(errors.New("the topic is there"))
	}
	c.topic("a", 1, 1)
	if err := c.nodes[0].DeleteTopicByID(ctx, topic.ID); outcome.Code(err) != outcome.ErrUnknownTopicOrPartition {
		t.Error(err)
	}
}
