package cluster

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
	"github.com/trimaran-io/trimaran/outcome"
)

// appendAt appends one record per value, all with that time.
func (c *testCluster) appendAt(id fsm.PartitionID, at int64, values ...string) {
	c.t.Helper()
	batch := prototest.Batch(values...)
	if at >= 0 {
		batch.StampLogAppendTime(at)
	}
	eventually(c.t, "append", func() error {
		_, err := c.any().Append(within(c.t), id, batchList{batch})
		return err
	})
}

// Every node finds the same record for a time, whether it holds a replica or asks.
func TestOffsetForTime(t *testing.T) { inBubble(t, testOffsetForTime) }

func testOffsetForTime(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	topic := c.topic("events", 1, 1)
	id := fsm.PartitionID{Topic: topic.ID}
	ask := func(timestamp int64) string {
		answer := ""
		for i, node := range c.nodes {
			eventually(t, fmt.Sprintf("answer of node %d", i+1), func() error {
				offset, at, epoch, ok, err := node.OffsetForTime(within(t), id, timestamp)
				if err != nil {
					return err
				}
				said := fmt.Sprintf("%d at %d %v", offset, at, ok)
				if answer == "" {
					answer = said
				}
				if said != answer || (epoch > 0) != ok {
					t.Errorf("time %d: node %d says %s in epoch %d, another %s", timestamp, i+1, said, epoch, answer)
				}
				return nil
			})
		}
		return answer
	}
	const none = "-1 at -1 false"
	if got := ask(0); got != none {
		t.Errorf("an empty log: %s", got)
	}
	if got := ask(-3); got != none {
		t.Errorf("an empty log, the largest time: %s", got)
	}
	c.appendAt(id, 5000, "a", "b") // 0, 1
	c.appendAt(id, -1, "no time")  // 2
	c.appendAt(id, 3000, "c")      // 3: times may go back
	c.appendAt(id, 9000, "d", "e") // 4, 5
	c.appendAt(id, 9000, "f")      // 6
	for timestamp, want := range map[int64]string{
		0: "0 at 5000 true", 5000: "0 at 5000 true", 5001: "4 at 9000 true", 9000: "4 at 9000 true", 9001: none, -3: "4 at 9000 true",
	} {
		if got := ask(timestamp); got != want {
			t.Errorf("time %d: %s, want %s", timestamp, got, want)
		}
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, _, ok, err := c.nodes[c.leaderOf(id)].OffsetForTime(cancelled, id, 0); ok || err == nil {
		t.Errorf("a search that nobody waits for: %v, %v", ok, err)
	}
	if _, _, _, _, err := c.any().OffsetForTime(within(t), fsm.PartitionID{Topic: fsm.TopicID{1}}, 0); !errors.Is(err, outcome.ErrUnknownTopicOrPartition) {
		t.Error(err)
	}
}

// Compressed batches are unpacked few at a time, since a small one may become a
// hundred megabytes. Those that are not compressed do not wait for it, nor those
// whose header says that they have no such time.
func TestFewBatchesAreUnpackedAtOnce(t *testing.T) { inBubble(t, testFewBatchesAreUnpackedAtOnce) }

func testFewBatchesAreUnpackedAtOnce(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("events", 1, 1).ID}
	packed := prototest.Batch("a", "b").Bytes()
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	_, _ = w.Write(packed[kafkaproto.BatchHeaderSize:])
	_ = w.Close()
	packed = append(packed[:kafkaproto.BatchHeaderSize], zipped.Bytes()...)
	binary.BigEndian.PutUint32(packed[8:], uint32(len(packed)-12))
	packed[22] = byte(kafkaproto.Gzip)
	batch, err := kafkaproto.ParseBatch(packed)
	if err != nil {
		t.Fatal(err)
	}
	batch.StampLogAppendTime(1000)
	eventually(t, "append", func() error {
		_, err := c.any().Append(within(t), id, batchList{batch})
		return err
	})
	c.appendAt(id, 2000, "c")
	node := c.nodes[0]
	all := int64(runtime.GOMAXPROCS(0))
	if !node.replicas.Unpacking().TryAcquire(all) {
		t.Fatal("something is being unpacked already")
	}
	if offset, _, _, ok, err := node.OffsetForTime(within(t), id, 1500); err != nil || !ok || offset != 2 {
		t.Errorf("what needs no unpacking: %d, %v, %v", offset, ok, err)
	}
	short, cancel := context.WithTimeout(within(t), 50*time.Millisecond)
	defer cancel()
	if offset, _, _, ok, err := node.OffsetForTime(short, id, 500); outcome.Code(err) != outcome.ErrTimeout {
		t.Errorf("all that may be unpacked at once is: %d, %v, %v", offset, ok, err)
	}
	node.replicas.Unpacking().Release(all)
	if offset, _, _, ok, err := node.OffsetForTime(within(t), id, 500); err != nil || !ok || offset != 0 {
		t.Errorf("%d, %v, %v", offset, ok, err)
	}
	if !node.replicas.Unpacking().TryAcquire(all) {
		t.Error("something is still being unpacked")
	}
}

// Leaderships end where the next one's records begin, and nodes know the newest.
func TestEpochEnd(t *testing.T) { inBubble(t, testEpochEnd) }

func testEpochEnd(t *testing.T) {
	c := newTestCluster(t, 4)
	c.startAll()
	topic := c.topic("events", 1, 3) // one node has no replica
	id := fsm.PartitionID{Topic: topic.ID}
	type span struct {
		epoch fsm.LeaderEpoch
		end   fsm.Offset
	}
	var spans []span
	for i := range 3 {
		leader := c.leaderOf(id)
		for range 1 + i {
			c.mustAppend(leader, id, "x", "y")
		}
		slice, err := c.nodes[leader].Read(within(t), id, 0, 1<<20, fsm.ReadUncommitted)
		if err != nil {
			t.Fatal(err)
		}
		var last kafkaproto.BatchHeader
		for batch, err := range kafkaproto.Batches(slice.Batches) {
			if err != nil {
				t.Fatal(err)
			}
			last = batch.Header()
		}
		spans = append(spans, span{fsm.LeaderEpoch(last.LeaderEpoch), fsm.Offset(last.NextOffset())})
		if err := c.nodes[leader].records(id).Member.Raft.LeadershipTransfer().Error(); err != nil {
			t.Fatal(err)
		}
	}
	leader := c.leaderOf(id)
	proposer, err := c.nodes[leader].records(id).Leads()
	if err != nil {
		t.Fatal(err)
	}
	current, next := proposer.InTerm().Epoch(), spans[2].end
	for i, node := range c.nodes {
		ask := func(epoch fsm.LeaderEpoch, want span) {
			t.Helper()
			eventually(t, "epoch end", func() error {
				found, end, err := node.EpochEnd(within(t), id, epoch)
				if err == nil && (span{found, end}) != want {
					t.Errorf("node %d, epoch %d: %d ends at %d, want %+v", i+1, epoch, found, end, want)
				}
				return err
			})
		}
		ask(0, span{0, 0})
		for j, s := range spans {
			ask(s.epoch, s)
			if j > 0 && s.epoch > spans[j-1].epoch+1 {
				ask(s.epoch-1, spans[j-1])
			}
		}
		ask(current, span{current, next})
		ask(current+1, span{-1, -1})
		if r := node.records(id); r != nil {
			eventually(t, "the leader's epoch", func() error {
				if epoch, newest := node.LeaderEpoch(id); epoch != current || !newest {
					return fmt.Errorf("node %d knows %d, %v", i+1, epoch, newest)
				}
				return nil
			})
		} else if epoch, newest := node.LeaderEpoch(id); epoch > current || newest {
			t.Errorf("node %d remembers %d, %v", i+1, epoch, newest)
		}
	}
}
