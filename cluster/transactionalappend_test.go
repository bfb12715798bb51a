package cluster

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// transactionalBatch is a batch of a producer's transaction.
func transactionalBatch(producer int64, epoch int16, sequence int32, value string) kafkaproto.Batch {
	b := batchFrom(producer, epoch, sequence, value).Bytes()
	b[22] |= 0x10
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	batch, err := kafkaproto.ParseBatch(b)
	if err != nil {
		panic(err)
	}
	return batch
}

// logBatches reads all batches of a partition's log.
func logBatches(t *testing.T, n *Node, id fsm.PartitionID) (all []kafkaproto.Batch) {
	t.Helper()
	for next := fsm.Offset(0); ; {
		slice, err := n.Read(within(t), id, next, 1<<20, fsm.ReadUncommitted)
		if err != nil {
			t.Fatal(err)
		}
		for batch, err := range kafkaproto.Batches(slice.Batches) {
			if err != nil {
				t.Fatal(err)
			}
			all, next = append(all, batch.Clone()), fsm.Offset(batch.Header().NextOffset())
		}
		if next == slice.HighWatermark {
			return all
		}
	}
}

// The leader asks the coordinator, another one leads meanwhile, and the transaction's marker is
// written there: the batch gets nowhere, since the one who asked leads no more and the next one
// asks anew.
func TestALeaderThatIsDeposedWhileItAsks(t *testing.T) {
	inBubble(t, testALeaderThatIsDeposedWhileItAsks)
}

func testALeaderThatIsDeposedWhileItAsks(t *testing.T) {
	c := newTestCluster(t, 3)
	asked, answered := make(chan struct{}, 1), make(chan struct{})
	var ended sync.Once
	for i := range c.nodes {
		c.nodes[i].cfg.joinTransaction = func(context.Context, fsm.Transaction, int64, int16, fsm.PartitionID, int32) (err error) {
			err = outcome.ErrInvalidTxnState
			ended.Do(func() { // the first question is answered when the transaction is over
				asked <- struct{}{}
				<-answered
				err = nil
			})
			return err
		}
	}
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	c.mustAppend(0, id, "before")
	leader := c.leaderOf(id)
	type result struct {
		appended []fsm.Appended
		err      error
	}
	done := make(chan result, 1)
	go func() {
		appended, err := c.nodes[(leader+1)%3].AppendInLine(within(t), id, 1, fsm.Transaction{ID: "t"}, []kafkaproto.Batch{transactionalBatch(7, 0, 0, "late")})
		done <- result{appended, err}
	}()
	<-asked
	c.lead((leader+2)%3, id)
	marker := fsm.Marker{ProducerID: 7, Number: 1}
	if outcomes, err := c.nodes[leader].router.WriteMarkers(within(t), id, []fsm.Marker{marker}); err != nil || outcomes[0] != 0 {
		t.Fatal(outcomes, err)
	}
	close(answered)
	if r := <-done; r.err != nil || r.appended[0].Err != outcome.ErrInvalidTxnState {
		t.Errorf("%+v, %v", r.appended, r.err)
	}
	c.everywhere(id, 2)
	for i, n := range c.nodes {
		if open := n.records(id).OpenTransactions(); open != 0 {
			t.Errorf("node %d: %d are open", i+1, open)
		}
	}
}

// toldCoordinator knows of each producer which transaction is open, and loses nothing. A
// transaction may be open while the marker of the one before is on its way: then its number is
// behind.
type toldCoordinator struct {
	mu     sync.Mutex // guards the rest
	open   map[int64]int16
	behind map[int64]int32
}

func (k *toldCoordinator) join(ctx context.Context, _ fsm.Transaction, producer int64, epoch int16, _ fsm.PartitionID, ended int32) error {
	for {
		k.mu.Lock()
		open, is := k.open[producer]
		behind := k.behind[producer]
		k.mu.Unlock()
		switch {
		case !is || open != epoch:
			return outcome.ErrInvalidTxnState
		case behind == 0 || behind == ended:
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return outcome.ErrNoLeader
		}
	}
}

func (k *toldCoordinator) setBehind(producer int64, number int32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.behind[producer] = number
}

func (k *toldCoordinator) set(producer int64, epoch int16, open bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if delete(k.open, producer); open {
		k.open[producer] = epoch
	}
}

// Producers run transactions while leaders change and nodes end, in both versions of the protocol;
// markers are written until they are acknowledged, and once more later. Every batch is ended by the
// marker of its transaction, every marker is in the log once, and nothing stays open.
func TestTransactionsEndThroughChangesOfLeaders(t *testing.T) {
	for seed := range uint64(2) {
		runInBubble(t, fmt.Sprint("seed ", seed), func(t *testing.T) { testTransactionsEndThroughChangesOfLeaders(t, seed) })
	}
}

func testTransactionsEndThroughChangesOfLeaders(t *testing.T, seed uint64) {
	const producers = 4
	c := newTestCluster(t, 3)
	coordinator := &toldCoordinator{open: map[int64]int16{}, behind: map[int64]int32{}}
	for i := range c.nodes {
		c.nodes[i].cfg.joinTransaction = coordinator.join
	}
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	c.mustAppend(0, id, "before")
	over, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	acked := make([]map[string]bool, producers) // committed or not, by value
	for p := range producers {
		acked[p] = map[string]bool{}
		all.Go(func() {
			dice := rand.New(rand.NewPCG(seed, uint64(p)))
			r := transactor{c: c, id: id, producer: int64(p), bumps: p%2 == 0, dice: dice, acked: acked[p], coordinator: coordinator}
			for number := int32(1); over.Err() == nil; number++ {
				r.transact(number)
				time.Sleep(time.Duration(1+dice.IntN(2)*50) * time.Millisecond)
			}
			if r.ended != nil {
				<-r.ended
			}
		})
	}
	dice := rand.New(rand.NewPCG(seed, 99))
	for range 6 {
		time.Sleep(time.Duration(1+dice.IntN(3)) * time.Second)
		if dice.IntN(2) == 0 {
			c.lead(dice.IntN(3), id)
			continue
		}
		i := 2 // clients use the others
		c.kill(i)
		time.Sleep(time.Duration(dice.IntN(2000)) * time.Millisecond)
		c.start(i)
	}
	stop()
	all.Wait()
	for i, n := range c.nodes {
		eventually(t, "nothing is open", func() error {
			if open := n.records(id).OpenTransactions(); open != 0 {
				return fmt.Errorf("node %d: %d are open", i+1, open)
			}
			return nil
		})
	}
	checkTransactions(t, logBatches(t, c.nodes[0].Node, id), acked)
}

// transactor is a producer and what its coordinator does with its partition.
type transactor struct {
	c           *testCluster
	id          fsm.PartitionID
	producer    int64
	bumps       bool
	epoch       int16
	sequence    int32
	dice        *rand.Rand
	acked       map[string]bool
	coordinator *toldCoordinator
	last        fsm.Marker
	ended       chan struct{} // closed when the marker that is on its way is written; nil: none is
}

// transact runs one transaction.
func (r *transactor) transact(number int32) {
	node := r.c.nodes[r.dice.IntN(2)]
	r.coordinator.set(r.producer, r.epoch, true)
	commit, whole := r.dice.IntN(2) == 0, true
	var values []string
	for range 1 + r.dice.IntN(4) {
		value := fmt.Sprintf("%d/%d/%d", r.producer, number, r.sequence)
		batch := transactionalBatch(r.producer, r.epoch, r.sequence, value)
		ctx, end := context.WithTimeout(context.Background(), 20*time.Second)
		appended, err := node.AppendInLine(ctx, r.id, uint64(1+r.producer), fsm.Transaction{ID: "t", Add: r.bumps}, []kafkaproto.Batch{batch})
		end()
		if err != nil || appended[0].Err != 0 {
			whole = false
			break
		}
		values = append(values, value)
		r.sequence++
		if r.dice.IntN(4) == 0 && number > 1 { // a marker that comes late
			ctx, end := context.WithTimeout(context.Background(), time.Second)
			_, _ = node.router.WriteMarkers(ctx, r.id, []fsm.Marker{r.last})
			end()
		}
	}
	commit = commit && whole
	if r.bumps || !whole {
		r.epoch, r.sequence = r.epoch+1, 0
	}
	for _, v := range values {
		r.acked[v] = commit
	}
	if r.ended != nil { // the next is decided when that is over
		<-r.ended
		r.ended = nil
	}
	m := fsm.Marker{ProducerID: r.producer, Epoch: r.epoch, Number: number, Commit: commit}
	r.coordinator.set(r.producer, r.epoch, false)
	r.last = m
	if r.bumps && r.dice.IntN(4) > 0 {
		// The next transaction begins meanwhile.
		r.coordinator.setBehind(r.producer, number)
		ended, late := make(chan struct{}), time.Duration(r.dice.IntN(40))*time.Millisecond
		r.ended = ended
		go func() {
			time.Sleep(late)
			r.mark(m, int(number)%2)
			r.coordinator.setBehind(r.producer, 0)
			close(ended)
		}()
		return
	}
	r.mark(m, r.dice.IntN(2))
}

// mark writes a marker until it is there.
func (r *transactor) mark(m fsm.Marker, from int) {
	for {
		ctx, end := context.WithTimeout(context.Background(), 5*time.Second)
		outcomes, err := r.c.nodes[from].router.WriteMarkers(ctx, r.id, []fsm.Marker{m})
		end()
		if err == nil && (outcomes[0] == 0 || outcomes[0] == outcome.ErrConcurrentTransactions) {
			return
		}
		if err == nil {
			panic(fmt.Sprintf("the marker %+v is refused: %v", m, outcomes[0]))
		}
		time.Sleep(50 * time.Millisecond)
		from = 1 - from
	}
}

// checkTransactions holds a log against what was acknowledged.
func checkTransactions(t *testing.T, log []kafkaproto.Batch, acked []map[string]bool) {
	t.Helper()
	open, last, found := map[int64][]string{}, map[int64]int32{}, 0
	for _, batch := range log {
		h := batch.Header()
		if !h.Transactional() {
			continue
		}
		m, err := kafkaproto.ParseMarker(batch)
		if err != nil {
			var record kmsg.Record
			if err := record.ReadFrom(batch.Bytes()[kafkaproto.BatchHeaderSize:]); err != nil {
				t.Fatal(err)
			}
			value := string(record.Value)
			open[h.ProducerID] = append(open[h.ProducerID], value)
			continue
		}
		if m.CoordinatorEpoch != last[h.ProducerID]+1 {
			t.Errorf("producer %d: marker %d behind %d", h.ProducerID, m.CoordinatorEpoch, last[h.ProducerID])
		}
		last[h.ProducerID] = m.CoordinatorEpoch
		for _, value := range open[h.ProducerID] {
			var producer int64
			var number, sequence int32
			if _, err := fmt.Sscanf(value, "%d/%d/%d", &producer, &number, &sequence); err != nil || number != m.CoordinatorEpoch {
				t.Errorf("%s is ended by marker %d, %v", value, m.CoordinatorEpoch, err)
			}
			if committed, is := acked[producer][value]; is {
				found++
				if committed != m.Commit {
					t.Errorf("%s: commit %v, and its marker says %v", value, committed, m.Commit)
				}
			} else if m.Commit {
				t.Errorf("%s was never acknowledged, and is committed", value)
			}
		}
		delete(open, h.ProducerID)
	}
	all := 0
	for _, of := range acked {
		all += len(of)
	}
	if len(open) > 0 || found != all || all < 50 {
		t.Errorf("%d of %d are in the log, and %v open", found, all, open)
	}
}
