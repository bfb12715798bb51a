package fsm

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/trimaran-io/trimaran/outcome"
)

// tierOracle is what is in a tier by definition: which offsets, and which names are to be deleted.
type tierOracle struct {
	named      map[Offset]uint64 // by offset
	gone       map[uint64]bool
	start, end Offset
	next       Offset
	local      Offset
}

// TestATierIsWhatItsLogSays: whatever commands come, what fits counts and what does not changes
// nothing; no offset between the log start and the local start is without a name, and no name is
// forgotten that is not deleted. A snapshot in between makes no difference.
func TestATierIsWhatItsLogSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, restored := NewPartition(), NewPartition()
		o := tierOracle{named: map[Offset]uint64{}, gone: map[uint64]bool{}}
		ids := uint64(0)
		small := func(name string) Offset { return Offset(rapid.Int64Range(-2, 2).Draw(t, name)) }
		for range rapid.IntRange(1, 60).Draw(t, "entries") {
			e := Entry{Index: p.LastApplied() + 1, Term: 3, AppendedAt: rapid.Int64Range(0, 1000).Draw(t, "at")}
			fits := true
			switch rapid.SampledFrom([]string{"records", "records", "add", "add", "add", "replace", "local", "start", "forget", "end"}).Draw(t, "kind") {
			case "records":
				n := rapid.IntRange(1, 9).Draw(t, "records")
				e.Data = newBatch(o.next, n, 61, 3, 'x')
				o.next += Offset(n)
			case "add":
				ids++
				first := o.end
				if len(o.named) == 0 {
					first = o.start
				}
				s := TieredSegment{
					First: first + max(small("first"), -first), Term: 3 + Term(rapid.IntRange(0, 9).Draw(t, "other term")/9), ID: ids, Pieces: 1, Bytes: 1, IndexBytes: 1,
					Next: first + Offset(rapid.Int64Range(0, 12).Draw(t, "offsets")), MaxTime: -1,
				}
				e.Data = TierAddCommand(s, 0)
				if fits = s.Term == 3 && s.First < s.Next && s.Next <= o.next && s.Next > o.start && (s.First == first || len(o.named) == 0 && s.First < first); fits {
					for at := s.First; at < s.Next; at++ {
						o.named[at] = ids
					}
					o.end = s.Next
				}
			case "replace":
				ids++
				all := p.Tiered()
				from := rapid.IntRange(0, len(all)).Draw(t, "from")
				old := slices.Clone(all[from : from+rapid.IntRange(0, len(all)-from).Draw(t, "count")])
				s := TieredSegment{Term: 3, ID: ids, IndexBytes: 1, MaxTime: -1, Next: 1}
				if fits = len(old) > 0; fits {
					s.First, s.Next = old[0].First, old[len(old)-1].Next
				}
				switch rapid.IntRange(0, 9).Draw(t, "otherwise") {
				case 0:
					s.Term, fits = 4, false
				case 1:
					s.Next, fits = s.Next+1, false
				case 2:
					s.Clean, fits = 1, false // nothing is compacted
				case 3:
					if len(old) > 0 {
						old[len(old)-1].ID, fits = math.MaxUint64, false
					}
				}
				e.Data = TierReplaceCommand(old, s)
				for _, was := range old {
					if fits {
						o.gone[was.ID] = true
					}
				}
				for at := s.First; fits && at < s.Next; at++ {
					o.named[at] = ids
				}
			case "local":
				to := max(o.local+2*small("local"), 0)
				e.Data = TierLocalCommand(to)
				if fits = len(o.named) > 0 && to <= o.end; fits {
					o.local = max(o.local, to)
				}
			case "start":
				to := max(o.start+3*small("start"), 0)
				e.Data = LogStartCommand(to)
				if fits = to <= o.next; fits {
					o.moveStart(to)
				}
			case "forget":
				gone := p.TieredGone()
				gone = gone[:rapid.IntRange(0, len(gone)).Draw(t, "gone")]
				for _, g := range gone {
					delete(o.gone, g.ID)
				}
				e.Data = TierForgetCommand(gone)
			case "end":
				e.Data = TierEndCommand()
				for _, id := range o.named {
					o.gone[id] = true
				}
				o.named = map[Offset]uint64{}
				o.moveStart(o.local)
			}
			if err := p.Apply(e).Err; (err == nil) != fits {
				t.Fatalf("%x: %v, fits: %v", e.Data, err, fits)
			}
			restored.Apply(e)
			o.check(t, p)
			snapshot := p.Snapshot()
			if !bytes.Equal(snapshot, restored.Snapshot()) {
				t.Fatal("the same log gave different bytes")
			}
			again, err := RestorePartition(snapshot)
			if err != nil {
				t.Fatal(err)
			}
			if rapid.Bool().Draw(t, "restore") {
				restored = again
			}
		}
	})
}

// moveStart moves the log start; a segment goes when nothing of it is left.
func (o *tierOracle) moveStart(to Offset) {
	o.start = max(o.start, to)
	o.local = max(o.local, o.start)
	left := map[uint64]bool{}
	for at, id := range o.named {
		if at >= o.start {
			left[id] = true
		}
	}
	for at, id := range o.named {
		if !left[id] {
			o.gone[id] = true
			delete(o.named, at)
		}
	}
}

func (o *tierOracle) check(t *rapid.T, p *PartitionState) {
	t.Helper()
	local, named := p.LocalStart()
	if p.LogStart() != o.start || p.NextOffset() != o.next || local != max(o.local, o.start) || (named != 0) != (local > o.start) {
		t.Fatalf("%d to %d, local from %d by entry %d; want %d to %d, %d", p.LogStart(), p.NextOffset(), local, named, o.start, o.next, o.local)
	}
	for at := Offset(0); at < o.next; at++ {
		s, ok := TieredAt(p.Tiered(), at)
		if id := o.named[at]; ok != (id != 0) || s.ID != id {
			t.Fatalf("offset %d is in segment %d, want %d", at, s.ID, id)
		}
		if at >= o.start && at < local && !ok {
			t.Fatalf("offset %d is nowhere", at)
		}
	}
	gone := p.TieredGone()
	if len(gone) != len(o.gone) || slices.ContainsFunc(gone, func(g GoneSegment) bool { return !o.gone[g.ID] }) {
		t.Fatalf("gone are %v, want %v", gone, o.gone)
	}
}

// TestACommandOfANewerTierIsNotApplied: a program that does not know what became of the tier must
// not go on; bytes that no program wrote change nothing.
func TestACommandOfANewerTierIsNotApplied(t *testing.T) {
	p := NewPartition()
	for _, data := range [][]byte{{controlTier, 2}, {controlTier, 1, 6}, {controlTier, 2, 200, 200}} {
		if err := p.Apply(Entry{Index: 1, Term: 1, Data: data}).Err; !errors.Is(err, ErrNewer) || p.LastApplied() != 0 {
			t.Errorf("%x: %v, applied %d", data, err, p.LastApplied())
		}
	}
	for i, data := range [][]byte{{controlTier}, {controlTier, 0}, {controlTier, 1}, {controlTier, 1, 1}, {controlTier, 1, 1, 0}, {controlTier, 1, 4, 0}, {controlTier, 1, 3, 255}, {controlTier, 1, 5}, {controlTier, 1, 5, 200}} {
		if err := p.Apply(Entry{Index: Index(i + 1), Term: 1, Data: data}).Err; err == nil || errors.Is(err, ErrNewer) {
			t.Errorf("%x: %v", data, err)
		}
	}
}

// TestWhatIsGoneIsBounded: where nothing can be deleted, what is forgotten here is left to whoever
// looks for objects that nobody names.
func TestWhatIsGoneIsBounded(t *testing.T) {
	p := NewPartition()
	index := Index(0)
	apply := func(data []byte) {
		t.Helper()
		index++
		if err := p.Apply(Entry{Index: index, Term: 1, Data: data}).Err; err != nil {
			t.Fatal(err)
		}
	}
	for i := range Offset(maxGone + 10) {
		apply(newBatch(i, 1, 0, 1, 'x'))
		apply(TierAddCommand(TieredSegment{First: i, Next: i + 1, Term: 1, ID: math.MaxUint64 - uint64(i), IndexBytes: 1, MaxTime: -1}, 0))
		apply(LogStartCommand(i + 1))
	}
	if gone := p.TieredGone(); len(gone) != maxGone || gone[0].First != 10 {
		t.Fatalf("%d are to be deleted, from %d on", len(gone), gone[0].First)
	}
	if _, err := RestorePartition(p.Snapshot()); err != nil {
		t.Fatal(err)
	}
}

// TestTombstonesStayForWhatIsInATier: the horizon does not move while something is there, whichever
// entry comes first, and what was read under an earlier one is not named.
func TestTombstonesStayForWhatIsInATier(t *testing.T) {
	p := NewPartition()
	apply := func(data []byte, want error) {
		t.Helper()
		if err := p.Apply(Entry{Index: p.applied + 1, Term: 1, Data: data}).Err; !errors.Is(err, want) {
			t.Fatalf("%x: %v, want %v", data, err, want)
		}
	}
	segment := func(first, next Offset) TieredSegment {
		return TieredSegment{First: first, Next: next, Term: 1, ID: uint64(next), Pieces: 1, Bytes: 1, IndexBytes: 1, MaxTime: -1}
	}
	compact := func(bound, horizon Offset) []byte {
		return CompactCommand(Compaction{Algorithm: 1, Bound: bound, Horizon: horizon, Time: int64(p.applied)}, int64(p.applied))
	}
	apply(newBatch(0, 100, 61, 1, 'x'), nil)
	apply(compact(40, 0), nil)
	apply(compact(60, 30), nil) // while a segment is on its way to the store
	apply(TierAddCommand(segment(0, 40), 0), outcome.ErrVoid)
	apply(TierAddCommand(segment(0, 40), 30), nil)
	apply(compact(80, 50), outcome.ErrUnknown)
	apply(TierLocalCommand(25), nil)
	apply(compact(80, 30), nil)
	if c := p.Compaction(); c.Bound != 80 || c.Start != 25 {
		t.Fatalf("%+v", c)
	}
	if _, err := RestorePartition(p.Snapshot()); err != nil {
		t.Fatal(err)
	}
	apply(LogStartCommand(40), nil) // nothing is there any more
	apply(compact(90, 70), nil)
	if c := p.Compaction(); c.Horizon != 70 || c.Start != 40 {
		t.Fatalf("%+v", c)
	}
}

// sampleTier is a partition with something of everything that a tier has.
func sampleTier() *PartitionState {
	p := samplePartition()
	for _, data := range [][]byte{
		TierAddCommand(TieredSegment{First: 33, Next: 60, Term: 2, ID: 7, Pieces: 2, IndexBytes: 300, Bytes: 4000, MaxTime: 5, LastWrite: 6, FirstEpoch: 1, LastEpoch: 2}, 0),
		TierAddCommand(TieredSegment{First: 60, Next: 100, Term: 2, ID: 8, Pieces: 1, IndexBytes: 300, Bytes: 4000, MaxTime: 5, LastWrite: 6, FirstEpoch: 2, LastEpoch: 2}, 0),
		TierLocalCommand(90), LogStartCommand(61),
	} {
		p.Apply(Entry{Index: p.applied + 1, Term: 2, AppendedAt: 9, Data: data})
	}
	return p
}
