package replica

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
)

// txnModel is what should be read of a partition, told in the order in which it is written.
type txnModel struct {
	start, next int64
	records     []modelRecord
	open        map[int64]*modelTxn // by producer
	numbers     map[int64]int32
	sequences   map[int64]int32
}

type modelRecord struct {
	prototest.Consumed
	txn *modelTxn // nil: in none
}

type modelTxn struct {
	first   int64
	ended   bool
	aborted bool
}

func newTxnModel() *txnModel {
	return &txnModel{open: map[int64]*modelTxn{}, numbers: map[int64]int32{}, sequences: map[int64]int32{}}
}

func (m *txnModel) stable() int64 {
	stable := m.next
	for _, t := range m.open {
		stable = min(stable, t.first)
	}
	return max(stable, m.start)
}

// seen gives the records from an offset to below another that a consumer gets.
func (m *txnModel) seen(from, to int64, isolation fsm.Isolation) (seen []prototest.Consumed) {
	for _, r := range m.records {
		if r.Offset < from || r.Offset >= to || isolation == fsm.ReadCommitted && r.txn != nil && r.txn.aborted {
			continue
		}
		seen = append(seen, r.Consumed)
	}
	return seen
}

// txnWriter writes to a partition and tells the model.
type txnWriter struct {
	*txnModel
	t   *testing.T
	rnd *rand.Rand
	r   func() *Records
}

const noProducer = -1

// write appends a few records of a producer, in its transaction.
func (w *txnWriter) write(producer int64) {
	w.t.Helper()
	var values []string
	for i := range 1 + w.rnd.IntN(3) {
		values = append(values, fmt.Sprintf("%d of %d at %d", i, producer, w.next))
	}
	batch, txn := prototest.Batch(values...), fsm.Transaction{}
	if producer != noProducer {
		batch = prototest.Of(batch, producer, 0, w.sequences[producer], true)
		txn = fsm.Transaction{ID: "t", Add: true}
		w.sequences[producer] += int32(len(values))
	}
	appended, err := w.r().AppendInLine(within(w.t), 0, calls.Place{}, txn, []kafkaproto.Batch{batch})
	if err != nil || appended[0].Err != 0 || appended[0].BaseOffset != fsm.Offset(w.next) {
		w.t.Fatalf("%+v, %v; the next offset is %d", appended, err, w.next)
	}
	var in *modelTxn
	if producer != noProducer {
		if in = w.open[producer]; in == nil {
			in = &modelTxn{first: w.next}
			w.open[producer] = in
		}
	}
	for _, value := range values {
		w.records = append(w.records, modelRecord{prototest.Consumed{Offset: w.next, Value: value}, in})
		w.next++
	}
}

// end ends the transaction of a producer, if it has one.
func (w *txnWriter) end(producer int64, commit bool) {
	w.t.Helper()
	in := w.open[producer]
	if in == nil {
		return
	}
	w.numbers[producer]++
	outcomes, err := w.r().WriteMarkers(within(w.t), 0, []fsm.Marker{{ProducerID: producer, Number: w.numbers[producer], Commit: commit}})
	if err != nil || outcomes[0] != 0 {
		w.t.Fatalf("%v, %v", outcomes, err)
	}
	in.ended, in.aborted = true, !commit
	delete(w.open, producer)
	w.next++
}

// checkReads reads from an offset on to the end, as a consumer does.
func (w *txnWriter) checkReads(from int64, isolation fsm.Isolation) {
	w.t.Helper()
	r := w.r()
	end := w.next
	if isolation == fsm.ReadCommitted {
		end = w.stable()
	}
	for at := from; at < end; {
		slice, ok, err := r.ReadHere(fsm.Offset(at), 1+w.rnd.IntN(2000), isolation)
		if err != nil || !ok {
			w.t.Fatalf("at %d of %d to %d: %v, %v", at, w.start, end, ok, err)
		}
		if int64(slice.HighWatermark) != w.next || int64(slice.LastStable) != w.stable() || int64(slice.LogStart) != w.start {
			w.t.Fatalf("it is from %d to %d, stable to %d; want %d, %d, %d", slice.LogStart, slice.HighWatermark, slice.LastStable, w.start, w.next, w.stable())
		}
		var aborted []prototest.Aborted
		to := int64(0)
		for batch := range kafkaproto.Batches(slice.Batches) {
			to = batch.Header().NextOffset()
		}
		for i, a := range slice.Aborted {
			aborted = append(aborted, prototest.Aborted{ProducerID: a.ProducerID, First: int64(a.First)})
			if int64(a.Last) < at || int64(a.First) >= to || i > 0 && a.First <= slice.Aborted[i-1].First {
				w.t.Fatalf("read %d to %d, aborted %+v", at, to, slice.Aborted)
			}
		}
		got, next, err := prototest.Consume(slice.Batches, at, isolation == fsm.ReadCommitted, aborted)
		if err != nil || next != to {
			w.t.Fatalf("at %d: %v, next %d, read to %d", at, err, next, to)
		}
		if want := w.seen(at, next, isolation); !slices.Equal(got, want) {
			w.t.Fatalf("isolation %d: from %d to %d it reads\n%v, want\n%v\naborted %+v", isolation, at, next, got, want, slice.Aborted)
		}
		at = next
	}
	if slice, ok, err := r.ReadHere(fsm.Offset(end), 1000, isolation); ok || err != nil {
		w.t.Fatalf("at the end, %d: %+v, %v", end, slice, err)
	}
}

// harm damages the index of a random segment, or takes it away.
func (w *txnWriter) harm(dir string) {
	w.t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.idx"))
	if err != nil || len(files) == 0 {
		return
	}
	file := files[w.rnd.IntN(len(files))]
	data, err := os.ReadFile(file)
	if err != nil {
		w.t.Fatal(err)
	}
	switch what := w.rnd.IntN(4); {
	case what == 0:
		err = os.Remove(file)
	case what == 1 && len(data) > 0:
		err = os.Truncate(file, int64(w.rnd.IntN(len(data))))
	case len(data) > 0:
		f, ferr := os.OpenFile(file, os.O_RDWR, 0)
		if ferr != nil {
			w.t.Fatal(ferr)
		}
		at := len(data) - 1 - w.rnd.IntN(min(len(data), 60))
		_, err = f.WriteAt([]byte{data[at] ^ 0x40}, int64(at))
		f.Close()
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// Whoever reads committed records gets those of transactions that were committed, wherever segments
// end, after restarts and snapshots, when indexes are damaged, and when what was in front is gone.
func TestReadersSeeWhatTheyMay(t *testing.T) {
	t.Parallel()
	// With the last four an index is damaged that this process had written and read.
	for _, seed := range []uint64{0, 1, 2, 3, 107, 108, 116, 124} {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			testReadersSeeWhatTheyMay(t, seed)
		})
	}
}

func testReadersSeeWhatTheyMay(t *testing.T, seed uint64) {
	s := transactional(t)
	rnd := rand.New(rand.NewPCG(seed, 2))
	id := s.topic("a", map[string]string{"segment.bytes": fmt.Sprint(1000 + rnd.IntN(3000))})
	r := s.led(id)
	w := &txnWriter{txnModel: newTxnModel(), t: t, rnd: rnd, r: func() *Records { return r }}
	restart := func() {
		s.reopen(r.Replica)
		s.reconcile()
		old := r
		if r = s.led(id); r == old {
			t.Fatal("it was not opened again")
		}
		// What is committed is known to be once the barrier is.
		if _, err := r.LastStable(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	counts := map[string]int{}
	const producers = 6
	for range 500 {
		producer := int64(rnd.IntN(producers))
		switch n := rnd.IntN(40); {
		case n < 18:
			w.write(producer)
		case n < 21:
			w.write(noProducer)
		case n < 30:
			w.end(producer, rnd.IntN(2) == 0)
		case n < 33:
			counts["snapshots"]++
			r.housekeep()
		case n == 33:
			counts["restarts"]++
			restart()
		case n == 34:
			counts["damaged"]++
			w.harm(s.env.dirOf(id))
			s.env.kept = new(keptCache)
			if rnd.IntN(2) == 0 {
				restart()
			}
		case n == 35 && rnd.IntN(4) == 0:
			counts["deletes"]++
			before := w.start + rnd.Int64N(min(w.next-w.start, 40)+1)
			start, err := r.DeleteRecords(within(t), fsm.Offset(before))
			if err != nil || int64(start) != max(before, w.start) {
				t.Fatalf("%d, %v", start, err)
			}
			w.start = int64(start)
		default:
			from := w.start + rnd.Int64N(w.next-w.start+1)
			w.checkReads(from, fsm.Isolation(rnd.IntN(2)))
		}
	}
	restart()
	w.checkReads(w.start, fsm.ReadUncommitted)
	w.checkReads(w.start, fsm.ReadCommitted)
	for producer := range int64(producers) {
		w.end(producer, false)
	}
	w.checkReads(w.start, fsm.ReadCommitted)
	t.Logf("%v, %d segments, offsets %d to %d", counts, len(r.Log.Segments()), w.start, w.next)
}

// transactional gives a set in which transactions may begin.
func transactional(t *testing.T) *testSet {
	s := newTestSet(t, nil)
	s.host.join = func(context.Context, fsm.Transaction, int64, int16, fsm.PartitionID, int32) error { return nil }
	s.apply(fsm.CatalogCommand{RaiseFeatureLevel: &fsm.RaiseFeatureLevel{FeatureLevel: fsm.LevelTransactions}})
	return s
}

// Retention lets go of nothing that an open transaction has written, nor of what is behind that,
// and of whole segments. When it has ended, it lets go.
func TestRetentionKeepsWhatAnOpenTransactionNeeds(t *testing.T) {
	t.Parallel()
	s := transactional(t)
	id := s.topic("a", map[string]string{"segment.bytes": "1000", "retention.bytes": "3000"})
	r := s.led(id)
	w := &txnWriter{txnModel: newTxnModel(), t: t, rnd: rand.New(rand.NewPCG(1, 1)), r: func() *Records { return r }}
	for range 30 {
		w.write(noProducer)
	}
	w.write(1)
	first := w.open[1].first
	for range 60 {
		w.write(noProducer)
	}
	r.retain(false)
	start, _ := r.Bounds()
	if start == 0 || int64(start) > first || start != r.segmentStart(fsm.Offset(first)) {
		t.Fatalf("it begins at %d, the transaction at %d, its segment at %d", start, first, r.segmentStart(fsm.Offset(first)))
	}
	w.start = int64(start)
	w.checkReads(w.start, fsm.ReadCommitted)
	w.end(1, false)
	w.checkReads(w.start, fsm.ReadCommitted)
	r.retain(false)
	if start, _ = r.Bounds(); int64(start) <= first {
		t.Errorf("it begins at %d still", start)
	}
	w.start = int64(start)
	w.checkReads(w.start, fsm.ReadCommitted)
}

// DeleteRecords may take what an open transaction has written, as in Kafka: the last stable offset
// is the log start then, and goes on when the transaction has ended.
func TestRecordsOfAnOpenTransactionMayBeDeleted(t *testing.T) {
	t.Parallel()
	s := transactional(t)
	r := s.led(s.topic("a", nil))
	w := &txnWriter{txnModel: newTxnModel(), t: t, rnd: rand.New(rand.NewPCG(1, 1)), r: func() *Records { return r }}
	w.write(1)
	w.write(noProducer)
	w.write(1)
	for _, before := range []int64{w.next - 1, -1} {
		start, err := r.DeleteRecords(within(t), fsm.Offset(before))
		if before < 0 {
			before = w.next
		}
		if err != nil || int64(start) != before {
			t.Fatalf("%d, %v", start, err)
		}
		w.start = before
		w.checkReads(w.start, fsm.ReadCommitted)
		w.checkReads(w.start, fsm.ReadUncommitted)
	}
	w.write(1)
	w.checkReads(w.start, fsm.ReadCommitted)
	w.end(1, false)
	w.write(noProducer)
	w.checkReads(w.start, fsm.ReadCommitted)
	if stable, err := r.LastStable(within(t)); err != nil || int64(stable) != w.next {
		t.Errorf("%d, %v, want %d", stable, err, w.next)
	}
}

// A transaction that is open for too long is named in the log, once.
func TestAHangingTransactionIsNamed(t *testing.T) {
	t.Parallel()
	s := transactional(t)
	var log bytes.Buffer
	s.env.Logger = slog.New(slog.NewTextHandler(&log, nil))
	id := s.topic("a", nil)
	r := s.led(id)
	w := &txnWriter{txnModel: newTxnModel(), t: t, rnd: rand.New(rand.NewPCG(1, 1)), r: func() *Records { return r }}
	topic, _ := s.host.Topics().ByID(id.Topic)
	said := func(after time.Duration) int {
		t.Helper()
		r.sayLate(topic, time.Now().Add(after))
		return strings.Count(log.String(), "a transaction is open for too long")
	}
	w.write(noProducer)
	w.write(7)
	const lateAge = 20 * time.Minute // the longest timeout by default, 15 min, and 5 min
	if n := said(lateAge - time.Minute); n != 0 {
		t.Error("it was said too early")
	}
	if n := said(lateAge + time.Minute); n != 1 || !strings.Contains(log.String(), fmt.Sprintf("producer_id=7 epoch=0 first_offset=%d", w.open[7].first)) {
		t.Errorf("%d times: %s", n, log.String())
	}
	if n := said(lateAge + time.Hour); n != 1 {
		t.Errorf("it was said %d times", n)
	}
	if open, oldest, behind := r.Transactions(); open != 1 || oldest.ProducerID != 7 || behind != w.next-w.open[7].first {
		t.Errorf("%d, %+v, %d", open, oldest, behind)
	}
	w.end(7, true)
	if n := said(lateAge + time.Hour); n != 1 {
		t.Errorf("it was said %d times", n)
	}
	w.write(7)
	if n := said(lateAge + time.Hour); n != 2 {
		t.Errorf("another one: it was said %d times", n)
	}
}

// Who waits for committed records is woken by a marker, not by records of an open transaction.
func TestAMarkerWakesWhoWaits(t *testing.T) {
	t.Parallel()
	s := transactional(t)
	r := s.led(s.topic("a", nil))
	w := &txnWriter{txnModel: newTxnModel(), t: t, rnd: rand.New(rand.NewPCG(1, 1)), r: func() *Records { return r }}
	w.write(1)
	committed, any := make(chan error, 1), make(chan error, 1)
	end := fsm.Offset(w.next)
	go func() { committed <- r.AwaitAsLeader(within(t), 0, fsm.ReadCommitted) }()
	go func() { any <- r.AwaitAsLeader(within(t), end, fsm.ReadUncommitted) }()
	w.write(1)
	if err := <-any; err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-committed:
		t.Fatalf("woken while the transaction is open: %v", err)
	default:
	}
	w.end(1, false)
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
}

// A segment for which much would be kept ends.
func TestASegmentWithManyAbortedTransactionsEnds(t *testing.T) {
	r := &Records{}
	rows := make([]fsm.AbortedTransaction, crowdedAt+10)
	for i := range rows {
		rows[i].Last = fsm.Offset(2*i + 1)
	}
	r.recent.Store(&rows)
	for start, want := range map[int64]bool{0: true, 20: true, 24: false, -1: false} {
		if got := r.crowded(start); got != want {
			t.Errorf("from %d: %v", start, got)
		}
	}
}

// What segments are kept with is in memory up to a bound, and what was used last stays.
func TestTheCacheOfWhatIsKeptHasABound(t *testing.T) {
	c := new(keptCache)
	large := fsm.TransactionIndex{Aborted: make([]fsm.AbortedTransaction, 1<<14)}
	of := func(i int) keptSegment { return keptSegment{from: fsm.Offset(i)} }
	for i := range 100 {
		c.put(of(i), large)
		c.put(of(i), large)
		if _, ok := c.get(of(0)); !ok {
			t.Fatalf("the one that is used is gone after %d", i)
		}
		if c.bytes > keptCacheBytes || len(c.by) != c.order.Len() {
			t.Fatalf("%d bytes of %d", c.bytes, len(c.by))
		}
	}
	if _, ok := c.get(of(1)); ok || len(c.by) < 2 {
		t.Errorf("of 100, %d are there", len(c.by))
	}
}
