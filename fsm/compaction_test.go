package fsm

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
	"github.com/trimaran-io/trimaran/outcome"
)

// grown gives a partition with so many records.
func grown(t *testing.T, n int) *PartitionState {
	t.Helper()
	p := NewPartition()
	for i := range n {
		b := prototest.Batch("v")
		b.Stamp(int64(i), 1)
		if a := p.Apply(Entry{Index: Index(i + 1), Term: 1, Data: b.Bytes()}); a.Err != nil {
			t.Fatal(a.Err)
		}
	}
	return p
}

func decide(p *PartitionState, c Compaction, since int64) error {
	c.Algorithm = 1
	return p.Apply(Entry{Index: p.LastApplied() + 1, Term: 1, Data: CompactCommand(c, since)}).Err
}

// TestADecisionFitsOrHasNoEffect: bounds and horizons never go back, and a horizon was a bound.
func TestADecisionFitsOrHasNoEffect(t *testing.T) {
	p := grown(t, 100)
	must := func(c Compaction, since int64) {
		t.Helper()
		if err := decide(p, c, since); err != nil {
			t.Fatal(err)
		}
	}
	must(Compaction{Bound: 40, Time: 1000}, 0)
	before := p.Compaction()
	for _, c := range []Compaction{{Bound: 39}, {Bound: 101}, {Bound: 50, Horizon: 41}} {
		if err := decide(p, c, 0); err == nil || p.Compaction() != before {
			t.Errorf("%+v: %v, %+v", c, err, p.Compaction())
		}
	}
	if got := p.NextHorizon(1499, 1000, 500); got != 0 {
		t.Errorf("the horizon is %d before its time", got)
	}
	if got := p.NextHorizon(1500, 1000, 500); got != 40 {
		t.Errorf("the horizon is %d at its time, want 40", got)
	}
	must(Compaction{Bound: 60, Time: 900}, 1200) // a clock that went back
	if c := p.Compaction(); c.Time != 1000 || c.Index != p.LastApplied() {
		t.Errorf("%+v", c)
	}
	if got := p.NextHorizon(2000, 1800, 500); got != 40 {
		t.Errorf("the horizon is %d, want 40", got)
	}
	must(Compaction{Bound: 60, Horizon: 40, Time: 2000}, 1800)
	if got := p.NextHorizon(2300, 2200, 500); got != 60 {
		t.Errorf("the horizon is %d, want 60, which was clean at 1800", got)
	}
	must(Compaction{Bound: 60, Horizon: 60, Time: 2300}, 2200)
	if got := p.NextHorizon(1<<40, 1<<40, 0); got != 60 {
		t.Errorf("the horizon is %d, want 60", got)
	}
	newer := append([]byte{controlCompact}, 2)
	at := p.LastApplied()
	if a := p.Apply(Entry{Index: at + 1, Term: 1, Data: newer}); !errors.Is(a.Err, ErrNewer) || p.LastApplied() != at {
		t.Errorf("another algorithm: %v", a.Err)
	}
	for _, b := range [][]byte{{controlCompact}, {controlCompact, 0, 1, 1, 1, 1}, {controlCompact, 1, 70}, append(CompactCommand(Compaction{Algorithm: 1, Bound: 70}, 0), 0)} {
		if a := p.Apply(Entry{Index: p.LastApplied() + 1, Term: 1, Data: b}); outcome.Code(a.Err) != outcome.ErrUnknown || errors.Is(a.Err, ErrNewer) {
			t.Errorf("%x: %v", b, a.Err)
		}
	}
}

// TestAnOpenTransactionBoundsCompaction: nothing at or above the last stable offset is touched.
func TestAnOpenTransactionBoundsCompaction(t *testing.T) {
	p := grown(t, 10)
	b := prototest.Of(prototest.Batch("in it"), 7, 0, 0, true)
	b.Stamp(10, 1)
	if a := p.Apply(Entry{Index: 11, Term: 1, Data: b.Bytes()}); a.Err != nil || a.Breach != nil {
		t.Fatal(a)
	}
	if err := decide(p, Compaction{Bound: 11}, 0); err == nil {
		t.Error("a bound above an open transaction's first record was taken")
	}
	if err := decide(p, Compaction{Bound: 10}, 0); err != nil {
		t.Error(err)
	}
}

// TestDecisionsAreInSnapshots restores a partition at random points; the rows stay few.
func TestDecisionsAreInSnapshots(t *testing.T) {
	p := grown(t, 1000)
	random := rand.New(rand.NewPCG(1, 1))
	if v := p.Snapshot()[5]; v != 2 {
		t.Errorf("without decisions it is of version %d", v)
	}
	now, bound := int64(1000), Offset(0)
	for range 300 {
		now += random.Int64N(100)
		bound += Offset(random.IntN(4))
		horizon := p.NextHorizon(now, now, 100000)
		if err := decide(p, Compaction{Bound: min(bound, 1000), Horizon: horizon, Time: now}, now-random.Int64N(50)); err != nil {
			t.Fatal(err)
		}
		if len(p.cleaned) > maxCleaned {
			t.Fatalf("%d rows", len(p.cleaned))
		}
		restored, err := RestorePartition(p.Snapshot())
		if err != nil {
			t.Fatal(err)
		}
		if string(restored.Snapshot()) != string(p.Snapshot()) || restored.Compaction() != p.Compaction() {
			t.Fatalf("%+v became %+v", p.Compaction(), restored.Compaction())
		}
		p = restored
	}
	for i, row := range p.cleaned {
		if i > 0 && (row.bound <= p.cleaned[i-1].bound || row.at < p.cleaned[i-1].at) {
			t.Errorf("rows %+v", p.cleaned)
		}
	}
}

// TestACompactedEntryIsReadByItsOffsets, where others are by the next one.
func TestACompactedEntryIsReadByItsOffsets(t *testing.T) {
	b := prototest.Batch("a", "b")
	b.Stamp(14, 3)
	s := Stored{Data: b.Bytes(), Stamp: Stamp{Term: 1}, Next: 10, Compacted: true, After: 20}
	var got []int64
	for batch := range s.Batches() {
		got = append(got, batch.Header().BaseOffset)
	}
	if len(got) != 1 || got[0] != 14 || s.Next != 20 {
		t.Errorf("%v, then %d", got, s.Next)
	}
	for _, s := range []Stored{
		// not compacted: a gap is none of ours
		{Data: b.Bytes(), Stamp: Stamp{Term: 3}, Next: 10},
		{Data: b.Bytes(), Stamp: Stamp{Term: 3}, Next: 15, Compacted: true, After: 20}, // back
		{Data: b.Bytes(), Stamp: Stamp{Term: 3}, Next: 10, Compacted: true, After: 15}, // beyond
		{Data: []byte{0, 1, 2}, Stamp: Stamp{Term: 3}, Next: 10, Compacted: true, After: 20},
	} {
		for batch := range s.Batches() {
			t.Errorf("%+v gives %+v", s, batch.Header())
		}
	}
}
