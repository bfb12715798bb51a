package raftlog

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// The log's invariants 1 to 6, 9 and 10, as far as they are about files (docs/architecture.md,
// "What the log holds to"), one test each. make invariants takes the code that keeps each of them
// away and looks whether its test fails.

// No byte at or below the newest snapshot is deleted by a call from Raft.
func TestInvariant1RaftDeletesNothingOfThePast(t *testing.T) {
	h := newHeld(t)
	h.store(1, 60, 1)
	h.apply(50)
	h.mustSnapshot()
	all := func(when string) {
		t.Helper()
		if err := h.holds([]uint64{60}, []uint64{1}); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}
	// As Raft does after a snapshot, and as one does that is told to install another.
	for _, to := range []uint64{10, 40, 49, 50} {
		first, _ := h.FirstIndex()
		if err := h.DeleteRange(first, to); err != nil {
			t.Fatalf("delete %d to %d: %v", first, to, err)
		}
		if first, _ := h.FirstIndex(); first != to+1 {
			t.Errorf("Raft's window begins at %d, want %d", first, to+1)
		}
		all(fmt.Sprint("head deleted up to ", to))
	}
	// A leader that knows less of this replica than its window has left gets to see it.
	h.Widen(20)
	if first, _ := h.FirstIndex(); first != 20 {
		t.Errorf("Raft's window begins at %d, want 20", first)
	}
	for _, i := range []uint64{20, 35, 51} {
		var e raft.Log
		if err := h.GetLog(i, &e); err != nil || e.Index != i || e.Term != 1 {
			t.Errorf("entry %d: %+v, %v", i, e, err)
		}
	}
	h.Widen(40)
	if first, _ := h.FirstIndex(); first != 20 {
		t.Errorf("the window got smaller: it begins at %d", first)
	}
	all("the window widened")
	h.crash(1)
	all("after a crash")

	// RecoverCluster takes a snapshot at the end and deletes the whole log.
	config, configuration, transport := raftOf(h)
	stable := raft.NewInmemStore()
	stable.SetUint64([]byte("CurrentTerm"), 1)
	if err := raft.RecoverCluster(config, counter{h}, h.PartitionLog, stable, h.Snapshots(), transport, configuration); err != nil {
		t.Fatal(err)
	}
	if s := h.SnapshotIndex(); s != 60 {
		t.Fatalf("RecoverCluster left a snapshot of entry %d", s)
	}
	all("RecoverCluster")
	h.crash(2)
	all("RecoverCluster, and after a crash")
	config, _, transport = raftOf(h)
	r, err := raft.NewRaft(config, counter{h}, h.PartitionLog, stable, h.Snapshots(), transport)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Shutdown().Error(); err != nil {
		t.Fatal(err)
	}
}

// The list of segments and the snapshot change in one step.
func TestInvariant2SegmentsAndSnapshotChangeTogether(t *testing.T) {
	filled := func() *held {
		h := newHeld(t)
		h.store(1, 20, 1)
		h.apply(20)
		h.mustSnapshot()
		h.store(21, 30, 1)
		h.apply(30)
		return h
	}
	t.Run("snapshot", func(t *testing.T) {
		crashes(t, filled, func(h *held) error { return h.snapshot(1) }, func(h *held, whole bool) error {
			if s := h.SnapshotIndex(); s != 30 && (whole || s != 20) {
				return fmt.Errorf("the snapshot is of entry %d", s)
			}
			if _, state, err := h.Snapshots().Open(h.manifest.meta().ID); err != nil {
				return err
			} else if b, _ := io.ReadAll(state); string(b) != fmt.Sprint("state at ", h.manifest.Snapshot.Next) {
				return fmt.Errorf("its state is %q", b)
			}
			return h.holds([]uint64{30}, []uint64{1})
		})
	})
	t.Run("retention", func(t *testing.T) {
		crashes(t, filled, func(h *held) error {
			_, err := h.Trim(math.MaxInt64, 0)
			return err
		}, func(h *held, whole bool) error {
			if first := h.segments[0].base; first == 1 && whole {
				return fmt.Errorf("begins at entry %d", first)
			}
			return h.holds([]uint64{30}, []uint64{1})
		})
	})
	t.Run("copy of another replica", func(t *testing.T) {
		source := newHeld(t)
		source.store(1, 20, 1)
		source.store(21, 45, 3)
		source.apply(45)
		source.mustSnapshot()
		crashes(t, func() *held {
			h := filled()
			copyFrom(t, source, h)
			return h
		}, func(h *held) error {
			s, err := openStaging(h.PartitionLog, Compaction{}, 21, h.manifest.Snapshot.Next, nil)
			if err != nil {
				return err
			}
			s.have, s.start = 20, h.manifest.Snapshot.Next
			d, _ := source.Describe(20)
			if err := s.Finish(d); err != nil {
				return err
			}
			return h.Adopt(s)
		}, func(h *held, whole bool) error {
			switch s := h.SnapshotIndex(); {
			case s == 20 && !whole:
				return h.holds([]uint64{30}, []uint64{1})
			case s == 45:
				return h.holds([]uint64{20, 45}, []uint64{1, 3})
			default:
				return fmt.Errorf("the snapshot is of entry %d", s)
			}
		})
	})
}

// What a copied snapshot covers comes from where it was copied: nothing that a dead
// leader left behind stays below it.
func TestInvariant3NothingOfADeadLeaderStaysBelowASnapshot(t *testing.T) {
	source := newHeld(t)
	source.store(1, 20, 1)
	source.store(21, 45, 3)
	source.apply(45)
	source.mustSnapshot()
	for _, trimmed := range []bool{false, true} {
		ends, terms := []uint64{20, 45}, []uint64{1, 3}
		if trimmed { // what is between the two was freed by retention
			if _, err := source.Trim(math.MaxInt64, 0); err != nil {
				t.Fatal(err)
			}
		}
		h := newHeld(t)
		h.store(1, 20, 1)
		h.apply(20)
		h.mustSnapshot()
		h.store(21, 40, 2) // never committed: their leader died
		d := copyFrom(t, source, h)
		s, err := h.Stage(d) // goes on with what was copied
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Finish(d), h.Adopt(s)); err != nil {
			t.Fatal(err)
		}
		h.crash(1)
		if err := h.holds(ends, terms); err != nil {
			t.Errorf("trimmed %v: %v", trimmed, err)
		}
		if first := h.segments[0].base; first != 1 != trimmed {
			t.Errorf("trimmed %v: the log begins at entry %d", trimmed, first)
		}
		if _, next := h.LastApplied(); next != d.Next || h.SnapshotIndex() != 45 {
			t.Errorf("trimmed %v: snapshot of entry %d, next offset %d, want %d", trimmed, h.SnapshotIndex(), next, d.Next)
		}
	}
}

// A log that retention has emptied up to its snapshot is copied without an entry, and goes on
// behind it.
func TestInvariant3ACopyOfNothingButASnapshot(t *testing.T) {
	source := newHeld(t)
	source.store(1, 45, 3)
	source.apply(45)
	if err := source.EndSegment(source.next, 45, nil); err != nil {
		t.Fatal(err)
	}
	source.mustSnapshot()
	if _, err := source.Trim(math.MaxInt64, 0); err != nil {
		t.Fatal(err)
	}
	source.crash(1)
	if err := asRaftStarts(source.PartitionLog); err != nil {
		t.Fatalf("the source: %v", err)
	}
	crashes(t, func() *held {
		h := newHeld(t)
		h.store(1, 20, 1)
		h.apply(20)
		h.mustSnapshot()
		h.store(21, 60, 2) // never committed: their leader died
		return h
	}, func(h *held) error {
		d, ok := source.Describe(20)
		if !ok || !d.empty() {
			t.Fatalf("%+v, %v", d, ok)
		}
		s, err := h.Stage(d)
		if err != nil {
			return err
		}
		if s.Next() != d.Index+1 {
			t.Fatalf("entry %d is to be copied", s.Next())
		}
		return errors.Join(s.Finish(d), h.Adopt(s))
	}, func(h *held, whole bool) error {
		if err := asRaftStarts(h.PartitionLog); err != nil {
			return err
		}
		switch s := h.SnapshotIndex(); {
		case s == 20 && !whole:
			return h.holds([]uint64{20, 60}, []uint64{1, 2})
		case s != 45:
			return fmt.Errorf("the snapshot is of entry %d", s)
		}
		if applied, next := h.LastApplied(); applied != 45 || next != source.next {
			return fmt.Errorf("applied up to %d, next offset %d, want %d", applied, next, source.next)
		}
		h.store(46, 50, 4)
		h.apply(48)
		h.mustSnapshot()
		h.crash(7)
		return h.holds([]uint64{50}, []uint64{4})
	})
}

// A log whose records are all below the log start, and which began a new segment before it was
// restarted, is freed though nothing but an entry of Raft's own comes.
func TestAnIdleLogIsFreedAfterARestart(t *testing.T) {
	for _, snapshot := range []bool{false, true} {
		h := newHeld(t)
		h.store(1, 20, 1)
		h.apply(20)
		h.mustSnapshot()
		end := h.next
		if err := h.EndSegment(end, 20, []byte("state")); err != nil {
			t.Fatal(err)
		}
		if snapshot {
			h.mustSnapshot()
		}
		h.crash(3)
		if err := h.StoreLog(&raft.Log{Index: 21, Term: 2, Type: raft.LogNoop}); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(h.PassIdle(end, 20, []byte("state")), h.EndSegment(end, 20, []byte("state"))); err != nil {
			t.Fatal(err)
		}
		if !h.Passed() {
			t.Errorf("snapshot %v: the segment is not passed", snapshot)
		}
		if _, err := h.Trim(end, 0); err != nil {
			t.Fatal(err)
		}
		if s := h.Segments(); len(s) != 1 || s[0].Base != 21 || s[0].Start != end {
			t.Errorf("snapshot %v: %+v are kept", snapshot, s)
		}
		h.crash(4)
		if last, _ := h.LastIndex(); last != 21 {
			t.Errorf("snapshot %v: the log ends at entry %d", snapshot, last)
		}
		if err := asRaftStarts(h.PartitionLog); err != nil {
			t.Errorf("snapshot %v: %v", snapshot, err)
		}
	}
}

// asRaftStarts reads what hashicorp/raft reads when it starts: the last entry, and all
// behind the snapshot.
func asRaftStarts(l *PartitionLog) error {
	last, err := l.LastIndex()
	if err != nil || last == 0 {
		return err
	}
	if err := l.GetLog(last, new(raft.Log)); err != nil {
		return fmt.Errorf("the last entry, %d: %w", last, err)
	}
	for index := l.SnapshotIndex() + 1; index <= last; index++ {
		if err := l.GetLog(index, new(raft.Log)); err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
	}
	return nil
}

// Log start <= first byte kept <= snapshot + 1, and no hole up to the last entry.
func TestInvariant4NoHole(t *testing.T) {
	for snapshot := uint64(0); snapshot <= 40; snapshot++ {
		h := newHeld(t)
		h.store(1, 40, 1)
		if snapshot > 0 {
			h.apply(snapshot)
			h.mustSnapshot()
		}
		h.apply(40)
		if snapshot%2 == 0 {
			if err := h.EndSegment(h.next, 40, nil); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := h.Trim(math.MaxInt64, 0); err != nil {
			t.Fatal(err)
		}
		h.crash(snapshot)
		if first := h.segments[0].base; first > snapshot+1 {
			t.Fatalf("snapshot of entry %d: the log begins at %d", snapshot, first)
		}
		if h.last != 0 && h.last != 40 {
			t.Fatalf("snapshot of entry %d: the log ends at %d", snapshot, h.last)
		}
		if err := h.holds([]uint64{40}, []uint64{1}); err != nil && (snapshot < 40 || h.segments[0].base != 41) {
			t.Fatalf("snapshot of entry %d: %v", snapshot, err)
		}
		before, _ := h.LastIndex()
		for _, wrong := range []uint64{43, 42, 40, 1} {
			if err := h.StoreLog(entry(wrong, 2)); err == nil {
				t.Fatalf("snapshot of entry %d: entry %d is taken behind entry %d", snapshot, wrong, before)
			}
		}
		h.store(41, 42, 2)
		config, _, transport := raftOf(h)
		stable := raft.NewInmemStore()
		stable.SetUint64([]byte("CurrentTerm"), 2)
		// panics on a hole
		r, err := raft.NewRaft(config, counter{h}, h.PartitionLog, stable, h.Snapshots(), transport)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Shutdown().Error(); err != nil {
			t.Fatal(err)
		}
	}
}

// A cut below applied never succeeds; what is cut off never comes back.
func TestInvariant5CutsAreForGood(t *testing.T) {
	h := newHeld(t)
	h.store(1, 40, 1)
	h.apply(20)
	for _, from := range []uint64{2, 19, 20} {
		if err := h.DeleteRange(from, 40); err == nil {
			t.Errorf("entries from %d on are cut off, and up to 20 they are applied", from)
		}
		if err := h.holds([]uint64{40}, []uint64{1}); err != nil {
			t.Fatalf("after a cut from %d on was refused: %v", from, err)
		}
	}
	for _, from := range []uint64{21, 24, 39, 40} {
		cut := uint64(0) // how far the run came
		crashes(t, func() *held {
			h := newHeld(t)
			h.store(1, 40, 1)
			h.apply(20)
			cut = 0
			return h
		}, func(h *held) error {
			if err := h.DeleteRange(from, 40); err != nil {
				return err
			}
			for cut = from; cut < from+3; cut++ {
				if err := h.StoreLog(entry(cut, 2)); err != nil {
					return err
				}
			}
			return nil
		}, func(h *held, whole bool) error {
			last, _ := h.LastIndex()
			if cut == 0 { // the cut was not over: any part of the end may be there
				if last < from-1 {
					return fmt.Errorf("cut from %d on, and it ends at %d", from, last)
				}
				return h.holds([]uint64{last}, []uint64{1})
			}
			if last != cut-1 && last != cut {
				return fmt.Errorf("ends at entry %d, stored were those below %d", last, cut)
			}
			return h.holds([]uint64{from - 1, last}, []uint64{1, 2})
		})
	}
}

// A snapshot is published when index, state and segments up to it are on stable
// storage: without the journal, too, which may be used again from then on.
func TestInvariant6ASnapshotIsOfWhatIsSynced(t *testing.T) {
	for seed := range uint64(40) {
		h := newHeld(t)
		h.store(1, 38, 1)
		h.apply(38)
		h.mustSnapshot()
		h.mem.Stop()
		h.PartitionLog.Close()
		h.st.Close()
		h.mem = h.mem.Crash(rand.New(rand.NewPCG(seed, 3)))
		files, err := h.mem.List("/data/journal")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range files {
			if _, err := h.mem.Create("/data/journal/" + e.Name); err != nil { // void
				t.Fatal(err)
			}
		}
		if err := h.try(false); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := h.holds([]uint64{38}, []uint64{1}); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if h.said("made again") {
			t.Fatalf("seed %d: an index was not on stable storage", seed)
		}
		for i, s := range h.segments[:len(h.segments)-1] {
			if !s.index.final || s.index.state == 0 {
				t.Fatalf("seed %d: segment %d of entry %d has no state at its end", seed, i, s.base)
			}
		}
		h.PartitionLog.Close()
		h.st.Close()
	}
}

// Raft sees no error that it panics on: it waits in front of what cannot be read,
// until its raft group is shut down for that.
func TestInvariant9RaftSeesNoErrorItPanicsOn(t *testing.T) {
	flipped := func(h *held) {
		f, err := h.mem.Open(h.segments[0].path)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteAt([]byte{0xff}, segmentHeader+frameHeader+20)
	}
	broken := func(h *held) {
		err := error(syscall.EIO)
		h.readError.Store(&err)
	}
	for name, damage := range map[string]func(*held){"flipped": flipped, "broken": broken} {
		h := newHeld(t)
		h.store(1, 40, 1)
		h.Serving()
		damage(h)
		got := make(chan raft.Log)
		go func() {
			var e raft.Log
			if err := h.GetLog(1, &e); err != nil {
				t.Errorf("%s: Raft is told %v", name, err)
			}
			got <- e
		}()
		select {
		case err := <-h.damaged:
			if name == "flipped" && !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: the group is told %v", name, err)
			}
		case e := <-got:
			t.Fatalf("%s: Raft is given %+v", name, e)
		}
		for _, none := range []uint64{0, 41, 1000} {
			// Raft compares with ==
			if err := h.GetLog(none, new(raft.Log)); err != raft.ErrLogNotFound {
				t.Errorf("%s: entry %d: %v", name, none, err)
			}
		}
		h.Abandon()
		if e := <-got; e.Type != raft.LogNoop || len(e.Data) > 0 {
			t.Errorf("%s: Raft is given %+v", name, e)
		}
	}
}

// The disk has a reserve, which records do not take and what Raft needs does.
func TestInvariant9RecordsLeaveTheReserve(t *testing.T) {
	h := newHeld(t)
	h.opts.Bulk = func(e *raft.Log) bool { return e.Type == raft.LogCommand }
	h.store(1, 3, 1)
	h.st.space.short.Store(true)
	noop := &raft.Log{Index: 4, Term: 1, Type: raft.LogNoop}
	if err := h.StoreLogs([]*raft.Log{noop, entry(5, 1)}); !errors.Is(err, vfs.ErrNoSpace) {
		t.Errorf("records are told %v", err)
	}
	if last, _ := h.LastIndex(); last != 3 {
		t.Errorf("the log ends at %d", last)
	}
	if err := h.StoreLog(noop); err != nil {
		t.Errorf("Raft is told %v", err)
	}
}

// What a node keeps in memory of its logs is bounded in bytes for all raft groups
// together, and so is what is copied at once.
func TestInvariant10MemoryIsBoundedInBytes(t *testing.T) {
	h := newHeld(t)
	const groups, limit = 20, 64 << 10
	h.st.cache.limit = limit
	var logs []*PartitionLog
	for i := range groups {
		name := fmt.Sprint("group-", i)
		l, err := h.st.OpenLog(filepath.Join(h.st.Groups(), name), LogOptions{Group: name, Span: testSpan, Fresh: true})
		if err != nil {
			t.Fatal(err)
		}
		logs = append(logs, l)
	}
	for index := uint64(1); index <= 50; index++ {
		for _, l := range logs {
			data := make([]byte, 1<<10<<(index%7))
			if err := l.StoreLog(&raft.Log{Index: index, Term: 1, Data: data}); err != nil {
				t.Fatal(err)
			}
		}
		kept := 0
		for _, l := range logs {
			for _, e := range l.cache.entries {
				kept += len(e.Data)
			}
			if cap(l.buf) > 1<<20 {
				t.Fatalf("entry %d: a group keeps a buffer of %d bytes", index, cap(l.buf))
			}
		}
		if kept > limit || h.st.cache.bytes > limit {
			t.Fatalf("entry %d: %d bytes are kept, the cache says %d", index, kept, h.st.cache.bytes)
		}
	}
	if sum := h.st.cache.bytes; sum < limit/2 {
		t.Errorf("the cache holds %d bytes of %d", sum, limit)
	}
	for _, l := range logs {
		for from := uint64(1); from <= 50; {
			b, err := l.AppendEntries(nil, from, 50, 20<<10)
			if err != nil {
				t.Fatal(err)
			}
			entries, err := ParseEntries(b)
			if err != nil || len(entries) == 0 || len(b) > 20<<10 && len(entries) > 1 {
				t.Fatalf("from entry %d: %d entries, %d bytes, %v", from, len(entries), len(b), err)
			}
			from += uint64(len(entries))
		}
		l.Close()
	}
}

// A replica that begins anew gives no other vote in a term in which it may have given one,
// and never forms its raft group again.
func TestInvariant7WhoBeginsAnewVotesNoSecondTime(t *testing.T) {
	stable, err := OpenStable(filepath.Join(t.TempDir(), "votes"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer stable.Close()
	for name, test := range map[string]struct{ own, leaders, term, voted uint64 }{
		"behind":  {own: 3, leaders: 7, term: 7, voted: 7},
		"in term": {own: 7, leaders: 7, term: 7, voted: 7},
		"ahead":   {own: 9, leaders: 7, term: 9, voted: 9},
	} {
		g := stable.Group(name)
		set := func(key string, n uint64) {
			if err := g.SetUint64([]byte(key), n); err != nil {
				t.Fatal(err)
			}
		}
		set("CurrentTerm", test.own)
		set("LastVoteTerm", test.own)
		candidate := []byte("somebody")
		if err := errors.Join(g.Set([]byte("LastVoteCand"), candidate), g.MarkCreated(), g.BeginAnew(test.leaders, "leader")); err != nil {
			t.Fatal(err)
		}
		if test.own < test.leaders {
			candidate = []byte("leader")
		}
		term, _ := g.GetUint64([]byte("CurrentTerm"))
		voted, _ := g.GetUint64([]byte("LastVoteTerm"))
		for_, _ := g.Get([]byte("LastVoteCand"))
		if term != test.term || voted != test.voted || string(for_) != string(candidate) {
			t.Errorf("%s: term %d, voted in %d for %q", name, term, voted, for_)
		}
		if anew, err := g.Anew(); !anew || err != nil {
			t.Errorf("%s: it would form the group: %v", name, err)
		}
	}
}

// A snapshot is written while more is applied. What it says of its last segment is what was so
// where it ends.
func TestASnapshotSaysNothingOfWhatIsAppliedBehindIt(t *testing.T) {
	h := newHeld(t)
	h.store(1, 8, 1)
	h.apply(5)
	sink, err := h.Snapshots().Create(1, 5, 1, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, next := h.LastApplied()
	sink.(*Sink).SetStanding(h.Standing(next))
	h.apply(8)
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	r := h.manifest.Segments[len(h.manifest.Segments)-1]
	if r.MaxTime != 5 || r.LastWrite != 5 || h.manifest.Snapshot.Next != next {
		t.Errorf("the snapshot of entry 5 says that the largest time is %d, the last write %d, the next offset %d", r.MaxTime, r.LastWrite, h.manifest.Snapshot.Next)
	}
	h.crash(1)
	if newest, _ := h.MaxTime(); newest != 5 {
		t.Errorf("after a crash the largest time is %d", newest)
	}
	h.PartitionLog.Close()
	h.st.Close()
}
