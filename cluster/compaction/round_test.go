package compaction

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
)

// testLog is a partition's log: one batch an entry, as it was appended and as it is now.
type testLog struct {
	now     []fsm.Stored // as it is
	raw     []fsm.Stored
	aborted []fsm.AbortedTransaction
	next    fsm.Offset
	bounds  []fsm.Offset // where batches begin
	holes   *rand.Rand   // not nil: it was restored, and something was missing here and there
}

func (l *testLog) add(b kafkaproto.Batch) {
	s := fsm.Stored{Stamp: fsm.Stamp{Term: 3}, Next: l.next}
	b.Stamp(int64(l.next), 3)
	if l.holes != nil {
		if !b.Header().Control() && l.holes.IntN(8) == 0 {
			b, _, _ = b.Retain(func(r kafkaproto.Record) bool { return l.holes.IntN(3) == 0 })
		}
		b.Stamp(int64(l.next)+l.holes.Int64N(3), 1)
		s.Stamp = fsm.StampOf(3, fsm.RestoredExtensions(b.Header()))
	}
	s.Data = b.Bytes()
	l.raw = append(l.raw, s)
	l.next = fsm.Offset(b.Header().NextOffset())
	l.bounds = append(l.bounds, l.next)
}

// randomLog makes a log of some keys, with tombstones, transactions and records without key.
func randomLog(random *rand.Rand, entries int) *testLog {
	l := &testLog{}
	if random.IntN(3) == 0 {
		l.holes = random
	}
	first := map[int64]fsm.Offset{}
	sequence := map[int64]int32{}
	for range entries {
		producer := int64(random.IntN(4)) - 1
		var records []prototest.Keyed
		for range 1 + random.IntN(3) {
			records = append(records, prototest.Keyed{
				Key: fmt.Sprint("k", random.IntN(12)), Value: strings.Repeat("v", random.IntN(20)), Null: random.IntN(4) == 0,
			})
		}
		b := prototest.KeyedBatch(records...)
		if random.IntN(15) == 0 {
			b = prototest.Batch("no key")
		}
		if producer >= 0 {
			transactional := producer > 0
			if _, open := first[producer]; transactional && !open {
				first[producer] = l.next
			}
			b = prototest.Of(b, producer, 0, sequence[producer], transactional)
			sequence[producer] += int32(len(records))
		}
		l.add(b)
		if at, open := first[producer]; open && random.IntN(3) == 0 {
			l.end(producer, at, random.IntN(2) == 0)
			delete(first, producer)
		}
	}
	for producer, at := range first {
		l.end(producer, at, producer == 1)
	}
	l.now = slices.Clone(l.raw)
	return l
}

func (l *testLog) end(producer int64, first fsm.Offset, commit bool) {
	if !commit {
		l.aborted = append(l.aborted, fsm.AbortedTransaction{ProducerID: producer, First: first, Last: l.next})
	}
	l.add(kafkaproto.NewMarker(kafkaproto.Marker{Commit: commit}, producer, 0, 1000))
}

// abortedFrom is the Aborted of a log, some at a time.
func (l *testLog) abortedFrom(from fsm.Offset) ([]fsm.AbortedTransaction, fsm.Offset, error) {
	to := from + 7
	var rows []fsm.AbortedTransaction
	for _, a := range l.aborted {
		if a.Last > from && a.First < to {
			rows = append(rows, a)
		}
	}
	return rows, to, nil
}

// clone gives the log as it was appended.
func (l *testLog) clone() *testLog {
	c := *l
	c.now = slices.Clone(l.raw)
	return &c
}

// pass goes over the first n entries.
func (l *testLog) pass(d fsm.Compaction, from fsm.Offset, keys *Keys, n int) (to fsm.Offset, done bool, left int64) {
	r := NewRound(d, d.Bound, keys, l.abortedFrom)
	to = d.Bound
	for _, s := range l.now {
		at, full, err := r.Collect(s, from)
		if err != nil {
			panic(err)
		}
		if full {
			to = at
			break
		}
	}
	r = NewRound(d, to, keys, l.abortedFrom)
	for i := range l.now {
		if i == n {
			return to, false, 0
		}
		s := l.now[i]
		if s.Next >= to {
			break
		}
		data, same, err := r.Entry(s)
		if err != nil {
			panic(err)
		}
		if !same {
			l.now[i] = fsm.Stored{Data: data, Stamp: s.Stamp, Next: s.Next, Compacted: true, After: behind(s)}
		}
	}
	return to, true, r.Left
}

func behind(s fsm.Stored) fsm.Offset {
	for range s.Batches() {
	}
	return s.Next
}

// carryOut does all of a decision, with memory for so many keys; below cut passes are ended in the
// middle, and begun again.
func (l *testLog) carryOut(random *rand.Rand, d fsm.Compaction, from fsm.Offset, room int) (left int64) {
	for from < d.Bound || from == d.Bound {
		keys := NewKeys(0, 1000)
		keys.room = room
		if random != nil && random.IntN(2) == 0 {
			l.pass(d, from, keys, random.IntN(len(l.now)))
			keys = NewKeys(0, 1000)
			keys.room = room
		}
		var to fsm.Offset
		if to, _, left = l.pass(d, from, keys, -1); to == d.Bound {
			return left
		}
		from = to
	}
	return left
}

// text is all that readers can see of a log.
func (l *testLog) text() string {
	var b strings.Builder
	for _, s := range l.now {
		for batch := range s.Batches() {
			fmt.Fprintf(&b, "%d-%d %x\n", batch.Header().BaseOffset, s.Next, batch.Bytes())
		}
	}
	return b.String()
}

// decisions gives some that may follow each other.
func decisions(random *rand.Rand, l *testLog) (all []fsm.Compaction) {
	bounds := l.bounds // also in the middle of transactions that have ended since
	var last fsm.Compaction
	for range 1 + random.IntN(4) {
		d := fsm.Compaction{Index: last.Index + 1, Algorithm: 1, Bound: max(last.Bound, bounds[random.IntN(len(bounds))])}
		d.Horizon = last.Horizon
		if last.Bound > last.Horizon {
			d.Horizon += fsm.Offset(random.Int64N(int64(last.Bound-last.Horizon) + 1))
		}
		d.Start = last.Start
		if d.Horizon > d.Start && random.IntN(3) == 0 {
			d.Start += fsm.Offset(random.Int64N(int64(d.Horizon - d.Start)))
		}
		all = append(all, d)
		last = d
	}
	return all
}

// TestTheWayDoesNotMatter carries out decisions one after the other, only the last, some of them,
// in several steps and with passes that end in the middle: what readers see of the log is the same.
// It is what a plain map says.
func TestTheWayDoesNotMatter(t *testing.T) {
	first, runs := uint64(1), uint64(300)
	if testing.Short() {
		runs = 60
	}
	for name, into := range map[string]*uint64{"CRASH_SEED": &first, "CRASH_RUNS": &runs} {
		if text := os.Getenv(name); text != "" {
			n, err := strconv.ParseUint(text, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			*into = n
		}
	}
	for seed := first; seed < first+runs; seed++ {
		random := rand.New(rand.NewPCG(seed, 4))
		l := randomLog(random, 60)
		all := decisions(random, l)
		last := all[len(all)-1]
		direct := l.clone()
		direct.carryOut(nil, last, 0, 500)
		direct.mustHold(t, seed, last)
		for way := range 4 {
			other := l.clone()
			from := fsm.Offset(0)
			for i, d := range all {
				if i+1 < len(all) && random.IntN(2) == 0 && way > 0 {
					continue // it was away
				}
				other.carryOut(random, d, from, 1+random.IntN(15))
				from = d.Bound
			}
			if got, want := other.text(), direct.text(); got != want {
				t.Fatalf("seed %d, way %d: %+v leave\n%s\nand the last alone\n%s", seed, way, all, got, want)
			}
		}
	}
}

// mustHold compares a log with what a plain reading of it says.
func (l *testLog) mustHold(t *testing.T, seed uint64, d fsm.Compaction) {
	t.Helper()
	type entry struct {
		offset fsm.Offset
		null   bool
	}
	isAborted := func(h kafkaproto.BatchHeader) bool {
		return h.Transactional() && slices.ContainsFunc(l.aborted, func(a fsm.AbortedTransaction) bool {
			return a.ProducerID == h.ProducerID && a.First <= fsm.Offset(h.BaseOffset) && fsm.Offset(h.BaseOffset) < a.Last
		})
	}
	newest := map[string]entry{}
	for _, s := range l.raw {
		for batch := range s.Batches() {
			if batch.Header().Control() || isAborted(batch.Header()) {
				continue
			}
			batch.Records(func(r kafkaproto.Record) bool {
				if r.Key != nil && fsm.Offset(r.Offset) < d.Bound {
					newest[string(r.Key)] = entry{fsm.Offset(r.Offset), r.Null}
				}
				return true
			})
		}
	}
	want := map[fsm.Offset]bool{}
	for _, e := range newest {
		if !e.null || e.offset >= d.Horizon {
			want[e.offset] = true
		}
	}
	open := map[int64]bool{} // producers of whose transaction something is left
	last := fsm.Offset(-1)
	for i, s := range l.now {
		if l.raw[i].Next >= d.Bound && string(s.Data) != string(l.raw[i].Data) {
			t.Fatalf("seed %d: what is at %d, above the bound %d, is another", seed, l.raw[i].Next, d.Bound)
		}
		for batch := range s.Batches() {
			h := batch.Header()
			if err := batch.CheckCRC(); err != nil {
				t.Fatal(err)
			}
			if fsm.Offset(h.BaseOffset) >= d.Bound {
				continue
			}
			if h.Records == 0 && fsm.Offset(h.NextOffset()) != d.Bound {
				t.Fatalf("seed %d: an empty batch at %d, the bound is %d", seed, h.BaseOffset, d.Bound)
			}
			if h.Control() {
				if fsm.Offset(h.BaseOffset) < d.Horizon && !open[h.ProducerID] && fsm.Offset(h.NextOffset()) != d.Bound {
					t.Fatalf("seed %d: a marker at %d below the horizon %d of which nothing is left", seed, h.BaseOffset, d.Horizon)
				}
				delete(open, h.ProducerID)
				continue
			}
			batch.Records(func(r kafkaproto.Record) bool {
				o := fsm.Offset(r.Offset)
				if o <= last || !want[o] {
					t.Fatalf("seed %d: a record at %d behind %d, wanted %v", seed, o, last, want[o])
				}
				last = o
				delete(want, o)
				if h.Transactional() && o >= d.Start {
					open[h.ProducerID] = true
				}
				return true
			})
			if h.Transactional() && h.Records > 0 && !slices.ContainsFunc(l.now, l.endOf(h)) {
				t.Fatalf("seed %d: the transaction of producer %d at %d has no marker any more, and another would end it", seed, h.ProducerID, h.BaseOffset)
			}
		}
	}
	if len(want) > 0 {
		t.Fatalf("seed %d: %v are gone", seed, want)
	}
	// Readers get to the end: what is in front of the bound is there.
	end := fsm.Offset(0)
	for _, s := range l.now {
		for batch := range s.Batches() {
			if fsm.Offset(batch.Header().NextOffset()) <= d.Bound {
				end = fsm.Offset(batch.Header().NextOffset())
			}
		}
	}
	if end != d.Bound {
		t.Fatalf("seed %d: the last batch below the bound %d ends at %d", seed, d.Bound, end)
	}
	for _, s := range l.now {
		for batch := range s.Batches() {
			if h := batch.Header(); h.Control() && fsm.Offset(h.BaseOffset) >= d.Bound {
				delete(open, h.ProducerID)
			}
		}
	}
	for producer := range open {
		t.Fatalf("seed %d: a transaction of producer %d has records and no marker", seed, producer)
	}
}

// endOf looks for the marker that ended a batch's transaction.
func (l *testLog) endOf(of kafkaproto.BatchHeader) func(fsm.Stored) bool {
	end := int64(-1)
	for _, s := range l.raw {
		for batch := range s.Batches() {
			h := batch.Header()
			if end < 0 && h.Control() && h.ProducerID == of.ProducerID && h.BaseOffset > of.BaseOffset {
				end = h.BaseOffset
			}
		}
	}
	return func(s fsm.Stored) (is bool) {
		for batch := range s.Batches() {
			is = is || batch.Header().BaseOffset == end
		}
		return is
	}
}

// TestKeysOfAnyNumberOfOffsets: a restored log may have holes of any size.
func TestKeysOfAnyNumberOfOffsets(t *testing.T) {
	for _, count := range []int64{0, 1, 1 << 40, math.MaxInt64 / 9 * 8, math.MaxInt64} {
		k := NewKeys(LeastMemory, count)
		if n := len(k.slots); n < 1 || n > LeastMemory/KeyBytes {
			t.Errorf("%d slots for %d offsets", n, count)
		}
		if count > 0 && (!k.Put([]byte("k"), 7) || k.Newest([]byte("k")) != 7) {
			t.Errorf("no room for a key of %d offsets", count)
		}
	}
}
