package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
	"github.com/trimaran-io/trimaran/outcome"
)

// oldBatch is a batch as it stood in a log, at an offset and of a leader epoch.
func oldBatch(b kafkaproto.Batch, base int64, epoch int32) kafkaproto.Batch {
	b = b.Clone()
	b.Stamp(base, epoch)
	return b
}

// readAll gives the headers of all batches that a replica itself has.
func readAll(t *testing.T, n *Node, id fsm.PartitionID) (headers []kafkaproto.BatchHeader) {
	t.Helper()
	r := n.records(id)
	if r == nil {
		t.Fatal("the replica does not run")
	}
	from, end := r.Bounds()
	for from < end {
		slice, ok, err := r.ReadHere(from, 100, fsm.ReadUncommitted)
		if err != nil || !ok {
			t.Fatalf("offset %d: %v, %v", from, ok, err)
		}
		got := headersOf(t, slice.Batches)
		headers = append(headers, got...)
		from = fsm.Offset(got[len(got)-1].NextOffset())
	}
	return headers
}

// A topic is restored: its log begins in the middle, in a term that is above the old one's, with
// batches of older leader epochs and holes between them, on all replicas alike, whoever dies; what
// was open of transactions is aborted; and clients go on behind it.
func TestATopicIsRestored(t *testing.T) { inBubble(t, testATopicIsRestored) }

func testATopicIsRestored(t *testing.T) {
	c := newTestCluster(t, 3)
	small(c, map[string]string{"segment.bytes": "1000"})
	c.startAll()
	const first, term = 1000, 57
	id := fsm.PartitionID{Topic: fsm.TopicID{7}}
	spec := fsm.TopicSpec{Name: "old", Partitions: 1, ReplicationFactor: 3, Restore: &fsm.RestoreSpec{ID: id.Topic, Origin: "a backup", Begin: []fsm.Begin{{Offset: first, Term: term}}}}
	eventually(t, "the topic", func() error { return c.nodes[0].CreateTopic(within(t), spec, false) })
	// Nothing stands in the logs yet. The machines lose their power.
	for i := range 3 {
		c.crash(i, true)
	}
	for i := range 3 {
		c.start(i)
	}
	c.ready()
	eventually(t, "the topic", func() error { return c.nodes[0].CreateTopic(within(t), spec, false) })
	other := spec
	other.Restore = &fsm.RestoreSpec{ID: id.Topic, Origin: "another backup", Begin: spec.Restore.Begin}
	if err := c.nodes[0].CreateTopic(within(t), other, false); outcome.Code(err) != outcome.ErrTopicExists {
		t.Errorf("restored from another backup: %v", err)
	}

	var want []kafkaproto.BatchHeader
	var old []kafkaproto.Batch
	put := func(b kafkaproto.Batch) {
		old = append(old, b)
		want = append(want, b.Header())
	}
	at := int64(first)
	for i := range 40 {
		b := oldBatch(prototest.Batch(fmt.Sprintf("value-%d", i), "x"), at, int32(3+i/10))
		if i == 20 {
			b = oldBatch(prototest.Of(b, 9, 2, 0, true), at, 5) // stays open
		}
		if i == 22 {
			b = oldBatch(prototest.Of(b, 8, 1, 4, true), at, 5)
		}
		put(b)
		if at += 2; i%7 == 0 {
			at += 5 // was compacted
		}
	}
	// Nothing is left of some offsets: an empty batch stands for them.
	put(kafkaproto.NewEmpty(at, 5, 8))
	at += 5
	put(oldBatch(kafkaproto.NewMarker(kafkaproto.Marker{Commit: true, CoordinatorEpoch: 6}, 8, 1, 1), at, 30))

	if _, err := c.append(0, id, "too early"); !outcome.NotAppended(err) {
		t.Errorf("a client appended while it is being restored: %v", err)
	}
	restore := func(node int, batches []kafkaproto.Batch, last bool) {
		t.Helper()
		eventually(t, "restore", func() error {
			_, err := c.nodes[node].RestoreBatches(within(t), id, batches, last)
			return err
		})
	}
	// Batches that are out of place are refused, and nothing else is harmed.
	if _, err := c.nodes[1].RestoreBatches(within(t), id, []kafkaproto.Batch{oldBatch(old[0], first, 99)}, false); outcome.Code(err) != outcome.ErrCorruptMessage {
		t.Errorf("a leader epoch that is to come: %v", err)
	}
	restore(0, old[:10], false)
	leader := c.leaderOf(id)
	c.kill(leader)
	there := (leader + 1) % 3
	restore(there, old[5:30], false) // some of them are there
	c.start(leader)
	restore(leader, old[30:], true)
	restore(there, old, true) // all of them are
	end := fsm.EndRestore{Topic: id.Topic, Producers: 5000}
	eventually(t, "the end", func() error { return c.nodes[there].EndRestore(within(t), end) })
	if _, err := c.nodes[there].RestoreBatches(within(t), id, old[:1], false); outcome.Code(err) != outcome.ErrInvalidConfig && !outcome.NotAppended(err) {
		t.Errorf("it was restored into when that was over: %v", err)
	}

	// A client goes on.
	base := c.mustAppend(there, id, "new")
	if wanted := fsm.Offset(at + 2); base != wanted { // one for what was open
		t.Errorf("the first new record is at %d, want %d", base, wanted)
	}
	if pid, err := c.nodes[there].NewProducerID(within(t)); err != nil || pid <= end.Producers {
		t.Errorf("producer id %d, %v: it may be in what was restored", pid, err)
	}
	check := func(what string, i int) {
		t.Helper()
		eventually(t, what, func() error {
			r := c.nodes[i].records(id)
			if r == nil {
				return errors.New("the replica does not run")
			}
			if start, next := r.Bounds(); start != first || next != base+1 {
				return fmt.Errorf("%d to %d, want %d to %d", start, next, first, base+1)
			}
			return nil
		})
		got := readAll(t, c.nodes[i].Node, id)
		if n := len(want); len(got) != n+2 || !slices.Equal(got[:n], want) {
			t.Errorf("%s: %v, want %v and two more", what, got, want)
		} else if marker, new := got[n], got[n+1]; !marker.Control() || marker.ProducerID != 9 || new.LeaderEpoch <= term || marker.LeaderEpoch <= term {
			t.Errorf("%s: behind what was restored there is %+v, %+v", what, marker, new)
		}
	}
	for i := range 3 {
		check(fmt.Sprint("node ", i), i)
	}
	// What was open is aborted for readers, what was committed is not.
	slice, err := c.nodes[there].Read(within(t), id, first, 1<<20, fsm.ReadCommitted)
	if err != nil || len(slice.Aborted) != 1 || slice.Aborted[0].ProducerID != 9 {
		t.Errorf("aborted are %+v, %v", slice.Aborted, err)
	}
	// A reader that begins in a hole gets what follows.
	if slice, err := c.nodes[there].Read(within(t), id, first+3, 10, fsm.ReadUncommitted); err != nil || headersOf(t, slice.Batches)[0] != want[1] {
		t.Errorf("in a hole: %v", err)
	}
	// Epochs are found as they were.
	if epoch, to, err := c.nodes[there].EpochEnd(within(t), id, 3); err != nil || epoch != 3 || to != fsm.Offset(want[10].BaseOffset) {
		t.Errorf("epoch 3 is %d and ends at %d, %v, want %d", epoch, to, err, want[10].BaseOffset)
	}
	// All three crash, one of them loses what it has, and all are the same again.
	for i := range 3 {
		c.kill(i)
	}
	for i := range 3 {
		c.start(i)
	}
	for i := range 3 {
		check(fmt.Sprint("after a crash, node ", i), i)
	}
	var sum *[32]byte
	for i := range 3 {
		r := c.nodes[i].records(id)
		h, err := r.Digest(context.Background(), first, base+1, 1<<30)
		if err != nil || sum != nil && *sum != h.Sum {
			t.Errorf("node %d has another log: %v", i, err)
		}
		sum = &h.Sum
	}
}
