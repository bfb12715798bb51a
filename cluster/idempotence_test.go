package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
	"github.com/trimaran-io/trimaran/outcome"
)

// batchFrom is batchOf by an idempotent producer.
func batchFrom(producer int64, epoch int16, sequence int32, values ...string) kafkaproto.Batch {
	b := prototest.Batch(values...).Bytes()
	be := binary.BigEndian
	be.PutUint64(b[43:], uint64(producer))
	be.PutUint16(b[51:], uint16(epoch))
	be.PutUint32(b[53:], uint32(sequence))
	be.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	batch, err := kafkaproto.ParseBatch(b)
	if err != nil {
		panic(err)
	}
	return batch
}

// A batch that is sent again while the first is in flight, after it is committed,
// through any node and after a restart of all, is in the log once and has one
// place. Its neighbours in one append are not concerned.
func TestABatchThatIsSentAgainIsAppendedOnce(t *testing.T) {
	inBubble(t, testABatchThatIsSentAgainIsAppendedOnce)
}

func testABatchThatIsSentAgainIsAppendedOnce(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	c.leaderOf(id)

	var all sync.WaitGroup
	for i := range 30 {
		all.Go(func() {
			appended, err := c.nodes[i%3].Append(within(t), id, batchList{batchFrom(7, 0, 0, "a", "b")})
			if err != nil || appended[0].BaseOffset != 0 || appended[0].Err != 0 {
				t.Errorf("append %d: %v, %v", i, appended, err)
			}
		})
	}
	all.Wait()
	for i := range c.nodes {
		appended, err := c.nodes[i].Append(within(t), id, batchList{
			batchFrom(7, 0, 0, "a", "b"),               // again
			prototest.Batch(fmt.Sprint("plain", i)),    // of nobody
			batchFrom(7, 0, 9, "after a gap"),          // out of order
			batchFrom(int64(100+i), 3, 5, "x"),         // of a producer that nothing is known of
			batchFrom(int64(100+i), 3, 5, "x"),         // and again at once
			batchFrom(int64(100+i), 2, 6, "too old"),   // of an epoch that is over
			batchFrom(int64(100+i), 4, 6, "too early"), // of one that begins with 0
		})
		if err != nil {
			t.Fatal(err)
		}
		var bases []fsm.Offset
		var errs []outcome.Error
		for _, a := range appended {
			bases, errs = append(bases, a.BaseOffset), append(errs, a.Err)
		}
		next := fsm.Offset(2 + 2*i)
		if want := []fsm.Offset{0, next, -1, next + 1, next + 1, -1, -1}; !slices.Equal(bases, want) {
			t.Errorf("node %d: at %d, want %d", i+1, bases, want)
		}
		if want := []outcome.Error{0, 0, outcome.ErrOutOfOrderSequence, 0, 0, outcome.ErrInvalidProducerEpoch, outcome.ErrOutOfOrderSequence}; !slices.Equal(errs, want) {
			t.Errorf("node %d: %d, want %d", i+1, errs, want)
		}
	}
	want := []string{"a", "b", "plain0", "x", "plain1", "x", "plain2", "x"}
	c.wantEverywhere(id, want)

	// One node begins from a snapshot, the others from the log.
	if err := c.nodes[0].replica(id).Member.Raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		t.Fatal(err)
	}
	for i := range c.nodes {
		c.kill(i)
	}
	c.startAll()
	for i := range c.nodes {
		eventually(t, "append after the restart", func() error {
			appended, err := c.nodes[i].Append(within(t), id, batchList{batchFrom(7, 0, 0, "a", "b")})
			if err == nil && appended[0].BaseOffset != 0 {
				t.Fatalf("node %d: at %d", i+1, appended[0].BaseOffset)
			}
			return err
		})
	}
	c.wantEverywhere(id, want)
}

// Half a producer id is none: such a batch could not be told from another.
func TestAProducerWithoutASequenceIsRefused(t *testing.T) {
	inBubble(t, testAProducerWithoutASequenceIsRefused)
}

func testAProducerWithoutASequenceIsRefused(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 1).ID}
	c.leaderOf(id)
	for _, bad := range []kafkaproto.Batch{batchFrom(7, -1, 0, "x"), batchFrom(7, 0, -1, "x")} {
		if _, err := c.nodes[0].Append(within(t), id, batchList{bad}); outcome.Code(err) != outcome.ErrCorruptMessage {
			t.Error(err)
		}
	}
}

// Producers with several batches in flight send on while leaders are killed and
// come back. They send again what they have no answer for, as clients do, and in
// the end every value is in the log once and in order, on every node.
func TestProducersNeitherLoseNorDoubleWhenLeadersAreKilled(t *testing.T) {
	inBubble(t, testProducersNeitherLoseNorDoubleWhenLeadersAreKilled)
}

func testProducersNeitherLoseNorDoubleWhenLeadersAreKilled(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	c.leaderOf(id)

	var mu sync.Mutex
	var nodes [3]*Node // as they run now, for the producers
	restarted := func(i int) {
		mu.Lock()
		defer mu.Unlock()
		nodes[i] = c.nodes[i].Node
	}
	for i := range nodes {
		restarted(i)
	}
	const producers, batches = 3, 400
	half := make(chan struct{}, producers)
	var all sync.WaitGroup
	for p := range producers {
		all.Go(func() {
			for i := range batches {
				if i == batches/3 {
					half <- struct{}{}
				}
				value := fmt.Sprintf("%d/%d", p, i)
				for try := 0; ; try++ {
					ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
					mu.Lock()
					n := nodes[(p+try)%3]
					mu.Unlock()
					appended, err := n.Append(ctx, id, batchList{batchFrom(int64(p), 0, int32(i), value)})
					cancel()
					if err == nil && appended[0].Err == 0 {
						break
					}
					if err == nil {
						t.Errorf("%s: %v", value, appended[0].Err)
						return
					}
					if try > 200 {
						t.Errorf("%s: %v", value, err)
						return
					}
				}
			}
		})
	}
	for range 2 {
		<-half
	}
	for range 2 {
		leader := c.leaderOf(id)
		c.kill(leader)
		c.leaderOf(id)
		c.start(leader)
		restarted(leader)
		c.ready()
	}
	all.Wait()
	want := map[string]int{}
	values, err := valuesFrom(within(t), c.nodes[0].Node, id)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		var p, i int
		if _, err := fmt.Sscanf(v, "%d/%d", &p, &i); err != nil || want[fmt.Sprint(p)] != i {
			t.Fatalf("%q where %d of producer %d is next", v, want[fmt.Sprint(p)], p)
		}
		want[fmt.Sprint(p)]++
	}
	if len(values) != producers*batches {
		t.Errorf("%d values, want %d", len(values), producers*batches)
	}
	c.wantEverywhere(id, values)
}

// Producer ids of all nodes, also after a restart, differ.
func TestProducerIDsAreUnique(t *testing.T) { inBubble(t, testProducerIDsAreUnique) }

func testProducerIDsAreUnique(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	seen := map[int64]bool{}
	var mu sync.Mutex
	take := func() {
		var all sync.WaitGroup
		for i := range c.nodes {
			for range 4 {
				all.Go(func() {
					for range 300 {
						id, err := c.nodes[i].NewProducerID(within(t))
						mu.Lock()
						if err != nil || seen[id] || id < 0 {
							t.Errorf("%d, %v", id, err)
						}
						seen[id] = true
						mu.Unlock()
					}
				})
			}
		}
		all.Wait()
	}
	take()
	for i := range c.nodes {
		c.kill(i)
	}
	c.startAll()
	take()
}
