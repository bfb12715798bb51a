package fsm

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/trimaran-io/trimaran/kafkaproto"
)

// logOf draws entries as a cluster could commit them, good ones and all kinds of
// bad ones, with what a reader of the same log should find.
type logOf struct {
	t       *rapid.T
	entries []Entry
	// The oracle: what a partition is by definition, nothing else.
	next, start Offset
	batches     []placedBatch
}

type placedBatch struct {
	base, next Offset
	index      Index
	bytes      []byte
}

func (l *logOf) draw() {
	t := l.t
	e := Entry{
		Index:      Index(len(l.entries)) + 1,
		Term:       Term(rapid.IntRange(1, 3).Draw(t, "term")),
		AppendedAt: rapid.Int64Range(0, 10_000).Draw(t, "at"),
	}
	if n := len(l.entries); n > 0 { // not every index is a command: Raft has entries of its own
		e.Index = l.entries[n-1].Index + Index(rapid.IntRange(1, 3).Draw(t, "gap"))
	}
	switch rapid.SampledFrom([]string{"good", "good", "good", "several", "several", "large", "garbage", "start", "control"}).Draw(t, "kind") {
	case "good":
		e.Data = l.batch(e, l.next)
	case "large":
		e.Data = newBatch(l.next, 3, rapid.IntRange(30_000, 100_000).Draw(t, "bytes"), e.Term.Epoch(), 0)
		l.place(e, 3, e.Data)
	case "several":
		for range rapid.IntRange(1, 4).Draw(t, "batches") {
			base := l.next
			if rapid.IntRange(0, 4).Draw(t, "void") == 0 {
				base += Offset(rapid.SampledFrom([]int{-1, 1, 7}).Draw(t, "off"))
			}
			if base < 0 {
				base = 1
			}
			e.Data = append(e.Data, l.batch(e, base)...)
		}
		if rapid.IntRange(0, 4).Draw(t, "tail") == 0 {
			e.Data = append(e.Data, rapid.SliceOfN(rapid.Byte(), 1, 60).Draw(t, "rest")...)
		}
	case "garbage":
		e.Data = rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "garbage")
		if len(e.Data) == 9 && e.Data[0] == controlLogStart {
			e.Data[0] = 0xff
		}
	case "control":
		e.Data = []byte{rapid.SampledFrom([]byte{0x80, 0x81, 0x82, 0xff}).Draw(t, "control")}
	case "start":
		start := Offset(rapid.Int64Range(-1, int64(l.next)+1).Draw(t, "start"))
		e.Data = LogStartCommand(start)
		if start > l.start && start <= l.next {
			l.start = start
		}
	}
	l.entries = append(l.entries, e)
}

// batch draws a batch stamped with base and places it if base is the next offset.
func (l *logOf) batch(e Entry, base Offset) []byte {
	records := rapid.IntRange(1, 20).Draw(l.t, "records")
	epoch := e.Term.Epoch()
	if rapid.IntRange(0, 9).Draw(l.t, "old epoch") == 0 {
		epoch--
	}
	b := newBatch(base, records, rapid.IntRange(61, 3000).Draw(l.t, "bytes"), epoch, rapid.Byte().Draw(l.t, "filler"))
	if rapid.Bool().Draw(l.t, "idempotent") { // whatever its numbers: its place decides
		fillProducer(b, rapid.Int64Range(-1, 3).Draw(l.t, "producer"), rapid.IntRange(-1, 2).Draw(l.t, "producer epoch"), rapid.IntRange(-1, 50).Draw(l.t, "sequence"), 0)
	}
	if base == l.next && epoch == e.Term.Epoch() {
		l.place(e, records, b)
	}
	return b
}

func (l *logOf) place(e Entry, records int, b []byte) {
	l.batches = append(l.batches, placedBatch{l.next, l.next + Offset(records), e.Index, b})
	l.next += Offset(records)
}

// The partition is what its log says, at every moment: offsets as the oracle
// counts them, readers that count by GoodBatch in step with it, and a replica that
// was restored from a snapshot in between cannot be told from one that was not.
func TestAPartitionIsWhatItsLogSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := &logOf{t: t}
		p, other, restored := NewPartition(), NewPartition(), NewPartition()
		var readTo Offset
		for range rapid.IntRange(1, 40).Draw(t, "entries") {
			log.draw()
			e := log.entries[len(log.entries)-1]
			applied := p.LastApplied()
			result := p.Apply(e)
			if !errors.Is(result.Err, ErrNewer) {
				applied = e.Index
			}
			other.Apply(Entry{e.Index, e.Term, e.AppendedAt, slices.Clone(e.Data), slices.Clone(e.Extensions)})
			restored.Apply(e)

			if p.NextOffset() != log.next || p.LogStart() != log.start || p.LastApplied() != applied {
				t.Fatalf("next %d, start %d, applied %d; the log says %d, %d, %d", p.NextOffset(), p.LogStart(), p.LastApplied(), log.next, log.start, applied)
			}
			checkResult(t, result, log, e)
			if readTo = read(e, readTo); readTo != log.next {
				t.Fatalf("a reader counts up to %d, the log ends at %d", readTo, log.next)
			}
			if err := p.check(); err != nil {
				t.Fatal(err)
			}
			snapshot := p.Snapshot()
			if !bytes.Equal(snapshot, other.Snapshot()) || !bytes.Equal(snapshot, restored.Snapshot()) {
				t.Fatal("the same log gave different bytes")
			}
			if rapid.Bool().Draw(t, "restore") {
				var err error
				if restored, err = RestorePartition(snapshot); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// read counts offsets as a reader of the log does, who takes what GoodBatch takes.
func read(e Entry, next Offset) Offset {
	if !IsRecords(e.Data) {
		return next
	}
	for b, err := range kafkaproto.Batches(e.Data) {
		if err != nil {
			break
		}
		if GoodBatch(b, next, StampOf(uint64(e.Term), e.Extensions)) {
			next = Offset(b.Header().NextOffset())
		}
	}
	return next
}

// checkResult compares the batches that were reported as appended by the last
// entry with those that the oracle placed for it.
func checkResult(t *rapid.T, result Applied, log *logOf, e Entry) {
	var want, got []Offset
	for _, b := range log.batches {
		if b.index == e.Index {
			want = append(want, b.base)
		}
	}
	for _, b := range result.Batches {
		if b.BaseOffset >= 0 {
			got = append(got, b.BaseOffset)
		}
		if b.LogStart != log.start {
			t.Fatalf("log start %d, want %d", b.LogStart, log.start)
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("appended at %d, want %d", got, want)
	}
	if len(got) < len(result.Batches) && result.Err == nil {
		t.Fatal("a void batch without a reason")
	}
}

// Chains of replicas with one history are equal, and one byte of difference in
// what the CRC covers, or in the place, shows from there on.
func TestHashChainsTellHistoriesApart(t *testing.T) {
	chainOf := func(batches ...[]byte) uint64 {
		p := NewPartition()
		for i, b := range batches {
			p.Apply(Entry{Index: Index(i) + 1, Term: 1, Data: b})
		}
		if p.NextOffset() != 3 {
			t.Fatalf("next offset %d", p.NextOffset())
		}
		return p.HashChain()
	}
	a, b, c := newBatch(0, 1, 100, 1, 'a'), newBatch(1, 1, 100, 1, 'b'), newBatch(2, 1, 100, 1, 'c')
	same := chainOf(a, b, c)
	if chainOf(append(slices.Clone(a), b...), c) != same {
		t.Error("how batches share entries changes the chain")
	}
	for name, other := range map[string]uint64{
		"another record":         chainOf(a, newBatch(1, 1, 100, 1, 'x'), c),
		"another order":          chainOf(newBatch(0, 1, 100, 1, 'b'), newBatch(1, 1, 100, 1, 'a'), c),
		"another cut in batches": chainOf(newBatch(0, 2, 100, 1, 'a'), c),
	} {
		if other == same {
			t.Errorf("%s gives the same chain", name)
		}
	}
}

// Offsets end where an int64 does; a batch that would go beyond is refused and
// nothing wraps.
func TestOffsetsDoNotWrap(t *testing.T) {
	p := NewPartition()
	p.next, p.logStart = math.MaxInt64-5, math.MaxInt64-5
	if r := p.Apply(Entry{Index: 1, Term: 1, Data: newBatch(p.next, 10, 0, 1, 0)}); r.Err == nil {
		t.Error("a batch beyond the last offset was taken")
	}
	if r := p.Apply(Entry{Index: 2, Term: 1, Data: newBatch(p.next, 5, 0, 1, 0)}); r.Err != nil {
		t.Error(r.Err)
	}
	if p.NextOffset() != math.MaxInt64 {
		t.Errorf("next offset %d", p.NextOffset())
	}
	r, err := RestorePartition(p.Snapshot())
	if err != nil || !bytes.Equal(r.Snapshot(), p.Snapshot()) {
		t.Error(err)
	}
}

func samplePartition() *PartitionState {
	p := NewPartition()
	for i := range Index(40) {
		p.Apply(Entry{Index: i*2 + 1, Term: 2, AppendedAt: int64(i) * 1000, Data: newBatch(p.next, 5, 5000, 2, 'x')})
	}
	p.Apply(Entry{Index: 100, Term: 2, Data: LogStartCommand(33)})
	for i := range 9 {
		b := newBatch(p.next, 5, 200, 2, 'x')
		fillProducer(b, int64(7+i%2), i%3, 0, 1_700_000_000_000)
		p.Apply(Entry{Index: Index(101 + i), Term: 2, AppendedAt: int64(i), Data: b})
	}
	return p
}

// Any bytes may be committed: nothing panics, offsets only grow, and an entry
// that appends nothing changes nothing but the count of what was applied.
func FuzzPartitionApply(f *testing.F) {
	next := samplePartition().NextOffset()
	f.Add(uint64(2), []byte{})
	f.Add(uint64(2), newBatch(next, 3, 200, 2, 'x'))
	f.Add(uint64(2), append(newBatch(next, 3, 200, 2, 'x'), newBatch(next+3, 1, 61, 2, 'x')...))
	f.Add(uint64(3), newBatch(next, 3, 200, 2, 'x'))
	f.Add(uint64(2), LogStartCommand(40))
	f.Add(uint64(2), LogStartCommand(next))
	f.Add(uint64(2), LogStartCommand(math.MaxInt64))
	f.Add(uint64(2), []byte{0x80})
	f.Add(uint64(2), TierAddCommand(TieredSegment{First: 33, Next: 60, Term: 2, ID: 7, Pieces: 2, IndexBytes: 300, Bytes: 4000, LastEpoch: 2}, 0))
	f.Add(uint64(2), newTransactional(next, 3, 2, 7, 1, 0))
	f.Add(uint64(2), append(newTransactional(next, 1, 2, 7, 1, 0), newMarker(next+1, 2, Marker{ProducerID: 7, Epoch: 2, Number: 1})...))
	f.Add(uint64(2), []byte{0x7f, 0xff})
	f.Add(uint64(1<<40+2), newBatch(next, 3, 200, 2, 'x')[:100])
	f.Fuzz(func(t *testing.T, term uint64, data []byte) {
		p, before := samplePartition(), samplePartition()
		r := p.Apply(Entry{Index: 200, Term: Term(term), AppendedAt: 1, Data: data})
		if err := p.check(); err != nil {
			t.Fatal(err)
		}
		if p.next < before.next || p.logStart < before.logStart || p.applied != 200 {
			t.Fatalf("went back: %+v", p)
		}
		if p.next == before.next && p.logStart == before.logStart && !(isTier(data) && r.Err == nil) {
			before.applied = p.applied
			if !bytes.Equal(p.Snapshot(), before.Snapshot()) {
				t.Fatal("the state changed though nothing was appended")
			}
		}
		for _, b := range r.Batches {
			if b.BaseOffset < 0 && r.Err == nil {
				t.Fatal("a void batch without a reason")
			}
		}
	})
}

// Any bytes may be given as a snapshot, also such that carry a right CRC: they
// are refused, or give a machine that works.
func FuzzRestorePartition(f *testing.F) {
	for _, p := range []*PartitionState{NewPartition(), samplePartition(), sampleTransactions(), sampleTier()} {
		snapshot := p.Snapshot()
		f.Add(snapshot)
		f.Add(snapshot[envelopeHead : len(snapshot)-envelopeTail])
	}
	f.Add([]byte("TriP\x00\x03"))
	f.Fuzz(func(t *testing.T, data []byte) {
		sealed := [][]byte{data}
		for version := uint16(1); version <= partitionVersion; version++ {
			sealed = append(sealed, seal(partitionMagic, version, func(b []byte) []byte { return append(b, data...) }))
		}
		for _, data := range sealed {
			p, err := RestorePartition(data)
			if err != nil {
				continue
			}
			again, err := RestorePartition(p.Snapshot())
			if err != nil || !bytes.Equal(again.Snapshot(), p.Snapshot()) {
				t.Fatalf("a snapshot of what was restored is refused or differs: %v", err)
			}
			if p.applied < math.MaxUint64 {
				p.Apply(Entry{Index: p.applied + 1, Term: 1, Data: newBatch(p.next, 1, 0, 1, 0)})
			}
			room := p.applied < math.MaxUint64-2*MaxProducers && p.next < math.MaxInt64-2*MaxProducers
			for _, s := range p.Producers() {
				if room {
					p.Apply(Entry{Index: p.applied + 1, Term: 1, Data: newMarker(p.next, 1, Marker{ProducerID: s.ID, Epoch: s.Epoch})})
				}
			}
			if p.OpenTransactions() > 0 && room {
				t.Fatal("markers of all producers leave something open")
			}
			if err := p.check(); err != nil {
				t.Fatal(err)
			}
			if p.applied < math.MaxUint64 {
				p.Apply(Entry{Index: p.applied + 1, Term: 1, Data: LogStartCommand(p.next)})
			}
			if len(p.Aborted()) > 0 && room {
				t.Fatal("the log is empty, and not all that was aborted is forgotten")
			}
		}
	})
}
