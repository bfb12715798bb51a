package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
	"github.com/trimaran-io/trimaran/outcome"
)

// keyedLog writes records with keys and knows what a reader must find.
type keyedLog struct {
	*producerLog
	newest map[string]int64 // offset of the newest committed record of each key; -1: a tombstone
	open   map[int64]map[string]int64
}

func newKeyedLog(c *testCluster, id fsm.PartitionID) *keyedLog {
	return &keyedLog{newProducerLog(c, id), map[string]int64{}, map[int64]map[string]int64{}}
}

// put appends a batch of a producer, -1 for none, in its transaction or in none.
func (k *keyedLog) put(producer int64, transactional bool, records ...prototest.Keyed) {
	k.c.t.Helper()
	batch := prototest.KeyedBatch(records...)
	var txn fsm.Transaction
	if producer >= 0 {
		batch = prototest.Of(batch, producer, 0, k.sequences[producer], transactional)
		k.sequences[producer] += int32(len(records))
	}
	if transactional {
		txn = fsm.Transaction{ID: "t", Add: true}
	}
	k.through("append", func(ctx context.Context, n *Node) error {
		appended, err := n.AppendInLine(ctx, k.id, n.NewLine(0), txn, []kafkaproto.Batch{batch})
		switch {
		case err != nil:
			return err
		case appended[0].Err != 0:
			return appended[0].Err
		}
		if at := int64(appended[0].BaseOffset); at < k.next || producer >= 0 && at != k.next {
			k.c.t.Fatalf("it is at %d, the next offset is %d", at, k.next)
		} else {
			k.next = at
		}
		return nil
	})
	to := k.newest
	if transactional {
		if k.open[producer] == nil {
			k.open[producer] = map[string]int64{}
			k.producerLog.open[producer] = &txnSpan{producer: producer, first: k.next, marker: -1}
		}
		to = k.open[producer]
	}
	for _, r := range records {
		to[r.Key] = k.next
		if r.Null {
			to[r.Key] = -1 - k.next
		}
		k.next++
	}
}

// finish ends a producer's transaction.
func (k *keyedLog) finish(producer int64, commit bool) {
	k.c.t.Helper()
	if k.open[producer] == nil {
		return
	}
	k.end(producer, commit)
	if commit {
		for key, at := range k.open[producer] {
			if old, ok := k.newest[key]; !ok || place(at) > place(old) {
				k.newest[key] = at
			}
		}
	}
	delete(k.open, producer)
}

// place gives the offset of a record that may be a tombstone.
func place(at int64) int64 {
	if at < 0 {
		return -1 - at
	}
	return at
}

// read gives what a consumer of committed records makes of what a node has, from an offset on: the
// newest offset of each key, negative for a tombstone.
func (k *keyedLog) read(i int, from fsm.Offset) (found map[string]int64, records int, err error) {
	r := k.c.nodes[i].records(k.id)
	if r == nil {
		return nil, 0, errors.New("it does not run")
	}
	found = map[string]int64{}
	start, _, end := r.Ends()
	last := int64(-1)
	for at := max(from, start); at < end; {
		slice, ok, err := r.ReadHere(at, 3000, fsm.ReadCommitted)
		if err != nil || !ok {
			return nil, 0, fmt.Errorf("node %d at %d of %d to %d: %v, %w", i+1, at, start, end, ok, err)
		}
		skipped := map[int64]bool{}
		rows := slice.Aborted
		before := at
		for batch, err := range kafkaproto.Batches(slice.Batches) {
			if err != nil {
				return nil, 0, err
			}
			if err := batch.CheckCRC(); err != nil {
				return nil, 0, err
			}
			h := batch.Header()
			for len(rows) > 0 && int64(rows[0].First) <= h.LastOffset() {
				skipped[rows[0].ProducerID], rows = true, rows[1:]
			}
			at = fsm.Offset(h.NextOffset())
			if h.Control() {
				if m, err := kafkaproto.ParseMarker(batch); err == nil && !m.Commit {
					delete(skipped, h.ProducerID)
				}
				continue
			}
			if h.Transactional() && skipped[h.ProducerID] {
				continue
			}
			err := batch.Records(func(record kafkaproto.Record) bool {
				if record.Offset <= last {
					k.c.t.Errorf("offset %d behind %d", record.Offset, last)
				}
				if last = record.Offset; record.Offset < int64(from) {
					return true
				}
				records++
				found[string(record.Key)] = record.Offset
				if record.Null {
					found[string(record.Key)] = -1 - record.Offset
				}
				return true
			})
			if err != nil {
				return nil, 0, err
			}
		}
		if slice.Done != nil {
			slice.Done()
		}
		if at <= before {
			return nil, 0, fmt.Errorf("node %d at %d: nothing is read", i+1, at)
		}
	}
	return found, records, nil
}

// check holds what all nodes have against what was written. whole: tombstones must be there, too.
func (k *keyedLog) check(whole bool) {
	k.c.t.Helper()
	for i, n := range k.c.nodes {
		if !n.running {
			continue
		}
		found, _, err := k.read(i, 0)
		if err != nil {
			k.c.t.Fatal(err)
		}
		for key, at := range k.newest {
			got, ok := found[key]
			if at < 0 && !ok && !whole {
				continue // the tombstone is gone, and all that it stood for
			}
			if !ok || got != at {
				k.c.t.Fatalf("node %d: key %q is at %d (%v), want %d", i+1, key, got, ok, at)
			}
		}
		for key := range found {
			if _, ok := k.newest[key]; !ok {
				k.c.t.Fatalf("node %d: key %q was never committed", i+1, key)
			}
		}
	}
}

// compacted waits until all nodes that run have carried out the same decision, and no other is due.
func (k *keyedLog) compacted(above fsm.Offset) {
	k.c.t.Helper()
	time.Sleep(2 * time.Minute) // what is copied from is left alone for one
	eventually(k.c.t, "all replicas are compacted", func() error {
		first := uint64(0)
		for i, n := range k.c.nodes {
			if !n.running {
				continue
			}
			r := n.records(k.id)
			if r == nil {
				return errors.New("it does not run")
			}
			c := r.Log.Compaction()
			if s := r.CompactionStatus(); !s.Compacted || !c.Whole() || c.Decision == 0 || s.Waits || fsm.Offset(c.Bound) < above {
				return fmt.Errorf("node %d: %+v, %+v, snapshot %d", i+1, c, s, r.Log.SnapshotIndex())
			}
			if first == 0 {
				first = c.Mark
			}
			if c.Mark != first {
				return fmt.Errorf("node %d: decision %d, another one %d", i+1, c.Mark, first)
			}
		}
		return nil
	})
}

// caughtUp waits until all nodes that run have all.
func (k *keyedLog) caughtUp() {
	k.c.t.Helper()
	eventually(k.c.t, "all have all", func() error {
		for i, n := range k.c.nodes {
			if !n.running {
				continue
			}
			r := n.records(k.id)
			if r == nil {
				return fmt.Errorf("node %d: it does not run", i+1)
			}
			if _, next := r.Bounds(); int64(next) < k.next {
				return fmt.Errorf("node %d: %d of %d", i+1, next, k.next)
			}
		}
		return nil
	})
}

// same holds the replicas against each other, byte for byte.
func (k *keyedLog) same(node int) {
	k.c.t.Helper()
	compare := func() error {
		for from := fsm.Offset(-1); ; {
			got, err := k.c.nodes[node].CheckReplicas(within(k.c.t), k.id, from)
			if err != nil {
				return err
			}
			if got.DiffersAt != -1 {
				k.c.t.Fatalf("replicas differ: %+v", got)
			}
			for _, r := range got.Replicas {
				if r.State != "checked" {
					return fmt.Errorf("%+v", got)
				}
			}
			if got.To >= got.End {
				return nil
			}
			from = got.To
		}
	}
	err := compare()
	for began := time.Now(); err != nil && time.Since(began) < 5*time.Minute; err = compare() {
		time.Sleep(time.Second)
	}
	if err != nil {
		k.c.t.Fatal(err)
	}
}

// storeSome appends some batches at random.
func (k *keyedLog) storeSome(random *rand.Rand, n, keys int) {
	k.c.t.Helper()
	for range n {
		producer := int64(random.IntN(4)) - 1
		var records []prototest.Keyed
		for range 1 + random.IntN(4) {
			records = append(records, prototest.Keyed{
				Key: fmt.Sprint("key-", random.IntN(keys)), Value: strings.Repeat("v", random.IntN(400)), Null: random.IntN(6) == 0,
			})
		}
		k.put(producer, producer > 0 && random.IntN(3) > 0 || k.open[producer] != nil, records...)
		if producer >= 0 && random.IntN(3) == 0 {
			k.finish(producer, random.IntN(2) == 0)
		}
	}
}

// epoch gives that of the present leader.
func (k *keyedLog) epoch() fsm.LeaderEpoch {
	k.c.t.Helper()
	hint, _ := k.c.nodes[k.c.leaderOf(k.id)].records(k.id).Leader()
	return fsm.Term(hint.Term).Epoch()
}

// finishAll ends what is open.
func (k *keyedLog) finishAll() {
	k.c.t.Helper()
	for producer := range maps.Clone(k.open) {
		k.finish(producer, producer != 2)
	}
}

func compactCluster(t *testing.T, more map[string]string) (*testCluster, *keyedLog) {
	t.Helper()
	configs := map[string]string{
		"cleanup.policy": "compact", "segment.bytes": "8000", "min.cleanable.dirty.ratio": "0.2",
		"max.compaction.lag.ms": "5000", "delete.retention.ms": "720000",
	}
	maps.Copy(configs, more)
	c := newTestCluster(t, 3)
	small(c, configs)
	for _, n := range c.nodes {
		n.cfg.joinTransaction = func(context.Context, fsm.Transaction, int64, int16, fsm.PartitionID, int32) error { return nil }
	}
	c.startAll()
	topic := c.topic("a", 1, 3)
	return c, newKeyedLog(c, fsm.PartitionID{Topic: topic.ID})
}

// TestReplicasAreCompactedAlike compacts again and again beside writes, and holds the replicas
// against each other and against what was written; in the end, when nothing is written any more,
// all of it is compacted, and after delete.retention.ms tombstones and markers go.
func TestReplicasAreCompactedAlike(t *testing.T) { inBubble(t, testReplicasAreCompactedAlike) }

func testReplicasAreCompactedAlike(t *testing.T) {
	c, k := compactCluster(t, nil)
	random := rand.New(rand.NewPCG(1, 1))
	ends := map[fsm.LeaderEpoch]fsm.Offset{}
	for range 4 {
		// What is left of what a leader wrote does not tell where its epoch ended.
		before := c.leaderOf(k.id)
		c.kill(before)
		c.start(before)
		c.leaderOf(k.id)
		k.storeSome(random, 60, 25)
		k.finishAll()
		// The leader may change at any time, and one that has written nothing has no end.
		wrote := fsm.LeaderEpoch(-1)
		for epoch := k.epoch(); wrote != epoch; epoch = k.epoch() {
			k.put(-1, false, prototest.Keyed{Key: "of all leaders", Value: "v"})
			wrote = epoch
		}
		k.caughtUp()
		k.check(true)
		k.same(0)
		_, ends[wrote] = k.c.nodes[0].records(k.id).Bounds()
	}
	k.finishAll()
	k.caughtUp()
	epochs := func() map[fsm.LeaderEpoch]fsm.Offset {
		all := map[fsm.LeaderEpoch]fsm.Offset{}
		for epoch := range fsm.LeaderEpoch(40) {
			eventually(t, "the end of an epoch", func() error {
				found, end, err := c.nodes[0].EpochEnd(within(t), k.id, epoch)
				if err == nil && found >= 0 {
					all[found] = end
				}
				return err
			})
		}
		return all
	}
	end := fsm.Offset(k.next)
	k.compacted(end)
	k.check(true)
	k.same(1)
	_, records, err := k.read(0, 0)
	if err != nil || records > len(k.newest) {
		t.Errorf("%d records of %d keys are left: %v", records, len(k.newest), err)
	}
	if next := int64(len(k.newest)); k.next < 4*next {
		t.Errorf("%d records of %d keys are no test", k.next, next)
	}
	got := epochs()
	for epoch, at := range ends {
		if got[epoch] != at {
			t.Errorf("epoch %d ends at %d, and did at %d before it was compacted", epoch, got[epoch], at)
		}
	}
	if len(ends) < 4 {
		t.Errorf("epochs %v are no test", ends)
	}
	// A reader finds its way from every offset.
	for at := fsm.Offset(0); at < end; at++ {
		if _, _, err := k.read(2, at); err != nil {
			t.Fatalf("from %d: %v", at, err)
		}
	}
	c.leaderOf(k.id)
	time.Sleep(20 * time.Minute)
	k.compacted(end)
	k.check(false)
	k.same(2)
	found, _, err := k.read(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for key, at := range found {
		if at < 0 {
			t.Errorf("the tombstone of %s at %d is there after delete.retention.ms", key, -1-at)
		}
	}
}

// TestCompactionBesideKills ends nodes at random while they compact, and has one copy what it lacks
// from others that are compacted further; in the end all are the same.
func TestCompactionBesideKills(t *testing.T) { inBubble(t, testCompactionBesideKills) }

func testCompactionBesideKills(t *testing.T) {
	c, k := compactCluster(t, map[string]string{"delete.retention.ms": "10000", "compression.type": "producer"})
	for _, n := range c.nodes {
		n.cfg.CompactionRate = 40 << 10 // so that rounds take a while
	}
	random := rand.New(rand.NewPCG(2, 2))
	rounds := 8
	if testing.Short() {
		rounds = 3
	}
	for round := range rounds {
		away := random.IntN(3)
		if round == 1 {
			away = (c.leaderOf(k.id) + 1) % 3
		}
		c.kill(away)
		k.storeSome(random, 50, 20)
		k.finishAll()
		if round%2 == 1 {
			// It is away for so long that the others compact what it has not seen, and tombstones
			// go.
			time.Sleep(time.Minute)
			k.storeSome(random, 30, 20)
			k.finishAll()
			time.Sleep(time.Minute)
			k.caughtUp()
			k.compacted(fsm.Offset(k.next) - 60)
		}
		c.start(away)
		if random.IntN(2) == 0 {
			other := (away + 1 + random.IntN(2)) % 3
			time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
			c.kill(other)
			c.start(other)
		}
		k.caughtUp()
		k.check(false)
		k.same(random.IntN(3))
	}
	k.compacted(fsm.Offset(k.next))
	k.check(false)
	k.same(0)
}

// TestAReplicaIsMadeAnewFromCompactedOnes loses the files of a replica.
func TestAReplicaIsMadeAnewFromCompactedOnes(t *testing.T) {
	inBubble(t, testAReplicaIsMadeAnewFromCompactedOnes)
}

func testAReplicaIsMadeAnewFromCompactedOnes(t *testing.T) {
	c, k := compactCluster(t, map[string]string{"delete.retention.ms": "1000"})
	random := rand.New(rand.NewPCG(3, 3))
	k.storeSome(random, 120, 20)
	k.finishAll()
	k.caughtUp()
	k.compacted(fsm.Offset(k.next))
	lost := (c.leaderOf(k.id) + 1) % 3
	c.kill(lost)
	if err := c.nodes[lost].on().RemoveAll(c.nodes[lost].partitionDir(k.id)); err != nil {
		t.Fatal(err)
	}
	c.start(lost)
	c.ready()
	k.storeSome(random, 30, 20)
	k.finishAll()
	k.caughtUp()
	k.compacted(fsm.Offset(k.next))
	k.check(false)
	k.same(lost)
}

// TestACompactedTopicIsRestoredAndCompactedAgain brings back what was left of a compacted log,
// beside kills, has it compacted as every other one, and copied. What leader epochs were stays
// known: a consumer that was there before, wherever it is, is not told that the log was cut below
// that.
func TestACompactedTopicIsRestoredAndCompactedAgain(t *testing.T) {
	inBubble(t, testACompactedTopicIsRestoredAndCompactedAgain)
}

func testACompactedTopicIsRestoredAndCompactedAgain(t *testing.T) {
	// Nothing is dirty enough: all that is compacted is compacted since it is old.
	c, k := compactCluster(t, map[string]string{"cleanup.policy": "compact,delete", "retention.ms": "-1", "delete.retention.ms": "1000", "min.cleanable.dirty.ratio": "1"})
	for range 20 {
		k.put(-1, false, prototest.Keyed{Key: "gone", Value: strings.Repeat("v", 500)})
	}
	eventually(t, "delete records", func() error {
		_, err := c.any().DeleteRecords(within(t), k.id, fsm.Offset(k.next))
		return err
	})
	delete(k.newest, "gone")
	random := rand.New(rand.NewPCG(4, 4))
	for i := range 6 {
		before := c.leaderOf(k.id)
		c.kill(before)
		c.start(before)
		c.leaderOf(k.id)
		k.storeSome(random, 40, 60)
		k.finishAll()
		if i%2 == 0 { // else there may be a hole where the epoch ended
			k.put(-1, false, prototest.Keyed{Key: fmt.Sprint("of epoch ", k.epoch()), Value: "v"})
		} else {
			k.put(-1, false, prototest.Keyed{Key: "of the newest epoch", Value: "v"})
		}
	}
	k.caughtUp()
	k.compacted(fsm.Offset(k.next))
	k.check(false)
	var old []kafkaproto.Batch
	holes := 0
	first, end := c.nodes[0].records(k.id).Bounds()
	for at := first; at < end; {
		slice, ok, err := c.nodes[0].records(k.id).ReadHere(at, 3000, fsm.ReadUncommitted)
		if err != nil || !ok {
			t.Fatalf("offset %d: %v, %v", at, ok, err)
		}
		for batch, err := range kafkaproto.Batches(slice.Batches) {
			if err != nil {
				t.Fatal(err)
			}
			if fsm.Offset(batch.Header().BaseOffset) > at {
				holes++
			}
			old = append(old, batch.Clone())
			at = fsm.Offset(batch.Header().NextOffset())
		}
	}
	if holes < 10 {
		t.Fatalf("%d holes are no test", holes)
	}
	last := k.epoch()
	endsOf := func(id fsm.PartitionID) map[fsm.LeaderEpoch]fsm.Offset {
		ends := map[fsm.LeaderEpoch]fsm.Offset{}
		for epoch := range last + 1 {
			eventually(t, "the end of an epoch", func() error {
				_, at, err := c.any().EpochEnd(within(t), id, epoch)
				ends[epoch] = at
				return err
			})
		}
		return ends
	}
	source := endsOf(k.id)

	// It comes back, and the leader goes away now and then.
	back := newKeyedLog(c, fsm.PartitionID{Topic: fsm.TopicID{9}})
	back.newest, back.next = k.newest, k.next
	spec := fsm.TopicSpec{Name: "back", Partitions: 1, ReplicationFactor: 3, Configs: map[string]string{"cleanup.policy": "compact"}, Restore: &fsm.RestoreSpec{
		ID: back.id.Topic, Origin: "a backup", Begin: []fsm.Begin{{Offset: first, Term: fsm.Term(last)}},
	}}
	eventually(t, "the topic", func() error { return c.any().CreateTopic(within(t), spec, false) })
	for rest := old; len(rest) > 0; {
		n := min(1+random.IntN(30), len(rest))
		eventually(t, "restore", func() error {
			_, err := c.any().RestoreBatches(within(t), back.id, rest[:n], n == len(rest))
			return err
		})
		if rest = rest[n:]; random.IntN(3) == 0 {
			leader := c.leaderOf(back.id)
			c.kill(leader)
			c.start(leader)
		}
	}
	// A log that began within a batch gets its start back, though what is only compacted can else
	// not be deleted.
	del := func() error {
		_, err := c.any().DeleteRecords(within(t), back.id, first)
		return err
	}
	eventually(t, "the log start", del)
	eventually(t, "the end", func() error {
		return c.any().EndRestore(within(t), fsm.EndRestore{Topic: back.id.Topic, Producers: 1 << 20})
	})
	if err := del(); outcome.Code(err) != outcome.ErrPolicy {
		t.Errorf("records of what is only compacted are deleted: %v", err)
	}
	back.caughtUp()
	back.check(false)
	whole := endsOf(back.id)
	for epoch, at := range source {
		if epoch < last && whole[epoch] < at {
			t.Errorf("epoch %d ended at %d, and where it was restored at %d", epoch, at, whole[epoch])
		}
	}
	restored := func(what string) {
		t.Helper()
		if got := endsOf(back.id); !maps.Equal(got, whole) {
			t.Errorf("%s: epochs end at %v, and did at %v", what, got, whole)
		}
	}
	back.compacted(fsm.Offset(back.next))
	back.check(false)
	back.same(0)
	restored("compacted")

	// All keys are written again, so nothing is left of whole entries, and one replica is made
	// anew.
	for key := range back.newest {
		back.put(-1, false, prototest.Keyed{Key: key, Value: strings.Repeat("w", 200)})
	}
	back.caughtUp()
	back.compacted(fsm.Offset(back.next))
	lost := (c.leaderOf(back.id) + 1) % 3
	c.kill(lost)
	if err := c.nodes[lost].on().RemoveAll(c.nodes[lost].partitionDir(back.id)); err != nil {
		t.Fatal(err)
	}
	c.start(lost)
	c.ready()
	back.caughtUp()
	back.compacted(fsm.Offset(back.next))
	back.check(false)
	back.same(lost)
	restored("when nothing is left of what was restored")
	got, records, err := back.read(lost, 0)
	if err != nil || len(got) != len(back.newest) || records > len(got)+3 {
		t.Errorf("%d records of %d keys are left, %v", records, len(back.newest), err)
	}
}
