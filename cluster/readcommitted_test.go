package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
	"github.com/trimaran-io/trimaran/outcome"
)

// producerLog is what one client has written to a partition, in its order: nobody else writes, so
// it knows every offset.
type producerLog struct {
	c  *testCluster
	id fsm.PartitionID

	next      int64
	records   []txnRecord
	all       []*txnSpan
	open      map[int64]*txnSpan
	numbers   map[int64]int32
	sequences map[int64]int32
}

type txnRecord struct {
	prototest.Consumed
	in *txnSpan // nil: it is in no transaction
}

// txnSpan is a transaction: of a producer, from its first record to its marker; -1: it is open.
type txnSpan struct {
	producer, first, marker int64
	commit                  bool
}

func newProducerLog(c *testCluster, id fsm.PartitionID) *producerLog {
	return &producerLog{c: c, id: id, open: map[int64]*txnSpan{}, numbers: map[int64]int32{}, sequences: map[int64]int32{}}
}

// through does something at a node that runs until it is done. A producer's sequence numbers and a
// marker's number make it the same when it is done again.
func (p *producerLog) through(what string, do func(ctx context.Context, n *Node) error) {
	p.c.t.Helper()
	eventually(p.c.t, what, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return do(ctx, p.c.any())
	})
}

// write appends a batch of a producer, in its transaction or in none.
func (p *producerLog) write(producer int64, transactional bool, values ...string) {
	p.c.t.Helper()
	batch := prototest.Of(prototest.Batch(values...), producer, 0, p.sequences[producer], transactional)
	var txn fsm.Transaction
	if transactional {
		txn = fsm.Transaction{ID: "t", Add: true}
	}
	p.through("append", func(ctx context.Context, n *Node) error {
		appended, err := n.AppendInLine(ctx, p.id, n.NewLine(0), txn, []kafkaproto.Batch{batch})
		switch {
		case err != nil:
			return err
		case appended[0].Err != 0:
			return appended[0].Err
		case int64(appended[0].BaseOffset) != p.next:
			p.c.t.Fatalf("it is at %d, the next offset is %d", appended[0].BaseOffset, p.next)
		}
		return nil
	})
	p.sequences[producer] += int32(len(values))
	var in *txnSpan
	if transactional {
		if in = p.open[producer]; in == nil {
			in = &txnSpan{producer: producer, first: p.next, marker: -1}
			p.open[producer] = in
			p.all = append(p.all, in)
		}
	}
	for _, value := range values {
		p.records = append(p.records, txnRecord{prototest.Consumed{Offset: p.next, Value: value}, in})
		p.next++
	}
}

// end ends the transaction of a producer, if it has one.
func (p *producerLog) end(producer int64, commit bool) {
	p.c.t.Helper()
	in := p.open[producer]
	if in == nil {
		return
	}
	p.numbers[producer]++
	marker := fsm.Marker{ProducerID: producer, Number: p.numbers[producer], Commit: commit}
	p.through("end a transaction", func(ctx context.Context, n *Node) error {
		outcomes, err := n.router.WriteMarkers(ctx, p.id, []fsm.Marker{marker})
		if err == nil && outcomes[0] != 0 {
			err = outcomes[0]
		}
		return err
	})
	in.marker, in.commit = p.next, commit
	delete(p.open, producer)
	p.next++
}

// some is n steps of several producers: they write in transactions, end them, and one writes in
// none.
func (p *producerLog) some(rnd *rand.Rand, n int) {
	p.c.t.Helper()
	for range n {
		producer := int64(1 + rnd.IntN(5))
		switch rnd.IntN(8) {
		case 0, 1, 2:
			p.end(producer, rnd.IntN(2) == 0)
		case 3:
			p.write(100, false, fmt.Sprintf("in none at %d-%s", p.next, strings.Repeat("n", rnd.IntN(600))))
		default:
			p.write(producer, true, fmt.Sprintf("of %d at %d", producer, p.next), strings.Repeat("t", rnd.IntN(900)))
		}
	}
}

// stableAt gives the last stable offset of a replica that has the log up to an offset.
func (p *producerLog) stableAt(next, start int64) int64 {
	stable := next
	for _, t := range p.all {
		if t.first < next && (t.marker < 0 || t.marker >= next) {
			stable = min(stable, t.first)
		}
	}
	return max(stable, start)
}

// observed is what a reader was given.
type observedRead struct {
	who       string
	isolation fsm.Isolation
	from      int64
	slice     fsm.Slice
	nothing   bool // and it was told that there is nothing
}

// check holds what a reader was given against what was written, and gives the offset to go on at.
func (p *producerLog) check(o observedRead) (next int64, err error) {
	s := o.slice
	if want := p.stableAt(int64(s.HighWatermark), int64(s.LogStart)); int64(s.LastStable) != want {
		return 0, fmt.Errorf("at high watermark %d the last stable offset is %d, want %d", s.HighWatermark, s.LastStable, want)
	}
	var aborted []prototest.Aborted
	for i, a := range s.Aborted {
		aborted = append(aborted, prototest.Aborted{ProducerID: a.ProducerID, First: int64(a.First)})
		if i > 0 && a.First <= s.Aborted[i-1].First {
			return 0, fmt.Errorf("not in the order of their first offsets: %+v", s.Aborted)
		}
	}
	got, next, err := prototest.Consume(s.Batches, o.from, o.isolation == fsm.ReadCommitted, aborted)
	if err != nil {
		return 0, err
	}
	if o.isolation == fsm.ReadCommitted && next > max(o.from, int64(s.LastStable)) {
		return 0, fmt.Errorf("read to %d, the last stable offset is %d", next, s.LastStable)
	}
	for _, a := range s.Aborted {
		if int64(a.First) >= next || int64(a.Last) < o.from {
			return 0, fmt.Errorf("%+v has nothing from %d to %d", a, o.from, next)
		}
	}
	var want []prototest.Consumed
	for _, r := range p.records {
		if r.Offset >= o.from && r.Offset < next && (o.isolation == fsm.ReadUncommitted || r.in == nil || r.in.commit) {
			want = append(want, r.Consumed)
		}
	}
	if !slices.Equal(got, want) {
		return 0, fmt.Errorf("from %d to %d it reads %d records\n%.600v\nwant %d\n%.600v\naborted %+v", o.from, next, len(got), got, len(want), want, s.Aborted)
	}
	return next, nil
}

// readAll reads what a node's own replica has, as a consumer of that isolation.
func (p *producerLog) readAll(i int, isolation fsm.Isolation) {
	p.c.t.Helper()
	r := p.c.nodes[i].records(p.id)
	start, next, stable := r.Ends()
	end := next
	if isolation == fsm.ReadCommitted {
		end = stable
	}
	for at := int64(start); at < int64(end); {
		slice, ok, err := r.ReadHere(fsm.Offset(at), 3000, isolation)
		if err != nil || !ok {
			p.c.t.Fatalf("node %d at %d of %d to %d: %v, %v", i+1, at, start, end, ok, err)
		}
		if at, err = p.check(observedRead{isolation: isolation, from: at, slice: slice}); err != nil {
			p.c.t.Fatalf("node %d: %v", i+1, err)
		}
	}
}

// watchReads reads at all nodes, at random places, beside what is done, until stop is called, which
// gives what readers were given. No replica's last stable offset may go back.
func watchReads(c *testCluster, nodes []atomic.Pointer[Node], id fsm.PartitionID, seed uint64) (stop func() []observedRead) {
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	var all []observedRead
	var wg sync.WaitGroup
	for i := range nodes {
		rnd := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() {
			stable := map[*replica.Records]fsm.Offset{}
			for ctx.Err() == nil {
				time.Sleep(time.Duration(5+rnd.IntN(40)) * time.Millisecond)
				n := nodes[i].Load()
				if n == nil {
					continue
				}
				r := n.records(id)
				if r == nil {
					continue
				}
				isolation := fsm.Isolation(rnd.IntN(2))
				start, next, _ := r.Ends()
				from := start + fsm.Offset(rnd.Int64N(int64(next-start)+1))
				slice, ok, err := r.ReadHere(from, 100+rnd.IntN(20000), isolation)
				if err != nil {
					continue // its disk is gone
				}
				mu.Lock()
				all = append(all, observedRead{fmt.Sprintf("replica %d", i+1), isolation, int64(from), slice, !ok})
				mu.Unlock()
				if slice.LastStable < stable[r] {
					c.t.Errorf("replica %d: the last stable offset went from %d back to %d", i+1, stable[r], slice.LastStable)
				}
				stable[r] = slice.LastStable
			}
		})
	}
	return func() []observedRead {
		cancel()
		wg.Wait()
		return all
	}
}

// Readers at both isolation levels, on every replica and through every node, get what was written:
// while nodes die and come back, copy what they lack, and leaders change.
func TestEveryReplicaServesCommittedRecords(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inBubble(t, func(t *testing.T) { testEveryReplicaServesCommittedRecords(t, seed) })
		})
	}
}

func testEveryReplicaServesCommittedRecords(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 7))
	c := newTestCluster(t, 3)
	small(c, nil)
	away := rnd.IntN(3)
	for i, node := range c.nodes {
		// Segments of the replicas end at different places. The one that copies has large ones:
		// what those that it copies from keep with several of theirs is in one of its own.
		size := 3000 + rnd.IntN(6000)
		if i == away {
			size = 20000 + rnd.IntN(60000)
		}
		node.cfg.TopicDefaults = map[string]string{"segment.bytes": fmt.Sprint(size)}
		node.cfg.joinTransaction = func(context.Context, fsm.Transaction, int64, int16, fsm.PartitionID, int32) error { return nil }
	}
	c.startAll()
	c.atLevel(fsm.LevelTransactions)
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	p := newProducerLog(c, id)
	p.some(rnd, 60)
	nodes := make([]atomic.Pointer[Node], len(c.nodes))
	for i, node := range c.nodes {
		nodes[i].Store(node.Node)
	}
	stop := watchReads(c, nodes, id, seed)
	for range 3 {
		there := []int{(away + 1) % 3, (away + 2) % 3}
		nodes[away].Store(nil)
		c.kill(away)
		p.some(rnd, 100)
		_, last := raftWindow(c, there, id)
		c.toBeCopied(there, id, last-20)
		c.start(away)
		nodes[away].Store(c.nodes[away].Node)
		c.rebuilt(away, id, fsm.Offset(p.next))
		p.some(rnd, 20)
	}
	reads := stop()
	for i := range c.nodes {
		c.rebuilt(i, id, fsm.Offset(p.next))
		p.readAll(i, fsm.ReadCommitted)
		p.readAll(i, fsm.ReadUncommitted)
	}
	for producer := range int64(6) {
		p.end(producer, false)
	}
	// Through a node that asks another, and to the end.
	for i, node := range c.nodes {
		for _, isolation := range []fsm.Isolation{fsm.ReadCommitted, fsm.ReadUncommitted} {
			for at := int64(0); at < p.next; {
				slice, err := node.Read(within(t), id, fsm.Offset(at), 5000, isolation)
				if err != nil {
					t.Fatal(err)
				}
				if at, err = p.check(observedRead{isolation: isolation, from: at, slice: slice}); err != nil {
					t.Fatalf("through node %d: %v", i+1, err)
				}
			}
		}
		if stable, err := node.LastStable(within(t), id); err != nil || int64(stable) != p.next {
			t.Errorf("node %d: %d, %v, want %d", i+1, stable, err, p.next)
		}
	}
	given := 0
	for _, o := range reads {
		if o.nothing {
			continue
		}
		given++
		if _, err := p.check(o); err != nil {
			t.Fatalf("%s, beside: %v", o.who, err)
		}
	}
	t.Logf("%d transactions, offsets to %d, %d reads beside them of which %d gave records", len(p.all), p.next, len(reads), given)
	if given < 100 {
		t.Errorf("only %d reads gave records", given)
	}
}

// raftWindow gives what Raft has at the leader among nodes.
func raftWindow(c *testCluster, nodes []int, id fsm.PartitionID) (first, last uint64) {
	for _, i := range nodes {
		if r := c.nodes[i].records(id); r != nil {
			l, _ := r.Log.LastIndex()
			if l > last {
				first, _ = r.Log.FirstIndex()
				last = l
			}
		}
	}
	return first, last
}

// atLevel waits until all nodes know that the cluster has reached a level.
func (c *testCluster) atLevel(level int) {
	c.t.Helper()
	for i, node := range c.nodes {
		eventually(c.t, fmt.Sprintf("node %d knows the level", i+1), func() error {
			if l := node.Topics().FeatureLevel(); l < level {
				return fmt.Errorf("it is %d", l)
			}
			return nil
		})
	}
}

// A node that has not heard yet that there are transactions asks as before: it may ask for a reader
// of committed records, and would give it what is open or was aborted.
func TestNobodyIsReadTransactionsWithoutKnowing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3)
		for _, node := range c.nodes {
			node.cfg.joinTransaction = func(context.Context, fsm.Transaction, int64, int16, fsm.PartitionID, int32) error { return nil }
		}
		c.startAll()
		c.atLevel(fsm.LevelTransactions)
		id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
		p := newProducerLog(c, id)
		read := func(from fsm.Offset) (slice fsm.Slice, err error) {
			t.Helper()
			leader := c.leaderOf(id)
			asks := c.nodes[(leader+1)%3]
			return calls.Read.Ask(within(t), asks.caller, c.nodes[leader].identity, calls.ReadRequest{Partition: id, From: from, MaxBytes: 1000})
		}
		p.write(100, false, "in none")
		if slice, err := read(0); err != nil || len(slice.Batches) == 0 {
			t.Fatalf("%+v, %v", slice, err)
		}
		p.write(1, true, "open")
		if slice, err := read(1); !errors.Is(err, outcome.ErrNoLeader) {
			t.Errorf("of an open transaction: %d bytes, %v", len(slice.Batches), err)
		}
		p.end(1, false)
		if slice, err := read(0); !errors.Is(err, outcome.ErrNoLeader) {
			t.Errorf("of an aborted transaction: %d bytes, %v", len(slice.Batches), err)
		}
	})
}

// A replica that copies a log whose beginning is gone, within a transaction that is open over that
// place, serves no record of it when it was aborted, before the copy or behind it.
func TestACopyThatBeginsWithinATransaction(t *testing.T) {
	for _, before := range []bool{true, false} {
		t.Run(fmt.Sprint("aborted before ", before), func(t *testing.T) {
			inBubble(t, func(t *testing.T) { testACopyThatBeginsWithinATransaction(t, before) })
		})
	}
}

func testACopyThatBeginsWithinATransaction(t *testing.T, before bool) {
	const away = 2
	c := newTestCluster(t, 3)
	small(c, nil)
	for _, node := range c.nodes {
		node.cfg.TopicDefaults = map[string]string{"segment.bytes": "3000"}
		node.cfg.joinTransaction = func(context.Context, fsm.Transaction, int64, int16, fsm.PartitionID, int32) error { return nil }
	}
	c.startAll()
	c.atLevel(fsm.LevelTransactions)
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	p := newProducerLog(c, id)
	fill := func(n int) {
		for range n {
			p.write(100, false, strings.Repeat("n", 500))
		}
	}
	p.write(1, true, "first of the transaction")
	fill(3)
	c.kill(away)
	there := []int{0, 1}
	fill(40)
	p.write(1, true, "in what is left")
	fill(20)
	p.write(2, true, "of one that is committed")
	p.end(2, true)
	if before {
		p.end(1, false)
	}
	fill(20)
	p.through("delete records", func(ctx context.Context, n *Node) error {
		_, err := n.DeleteRecords(ctx, id, 35)
		return err
	})
	eventually(t, "what is deleted is freed", func() error {
		for _, i := range there {
			if s := c.nodes[i].records(id).Log.Segments(); s[0].Start < 20 {
				return fmt.Errorf("node %d begins at %d", i+1, s[0].Start)
			}
		}
		return nil
	})
	c.toBeCopied(there, id, 20)
	c.start(away)
	c.rebuilt(away, id, fsm.Offset(p.next))
	if s := c.nodes[away].records(id).Log.Segments(); s[0].Start < 20 {
		t.Fatalf("the copy begins at %d", s[0].Start)
	}
	p.readAll(away, fsm.ReadCommitted)
	p.end(1, false)
	fill(20)
	c.rebuilt(away, id, fsm.Offset(p.next))
	for i := range c.nodes {
		p.readAll(i, fsm.ReadCommitted)
		p.readAll(i, fsm.ReadUncommitted)
	}
	c.kill(away)
	c.start(away)
	c.rebuilt(away, id, fsm.Offset(p.next))
	p.readAll(away, fsm.ReadCommitted)
}
