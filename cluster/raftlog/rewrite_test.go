package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// halved says which entries lose their data in a test.
type halved struct {
	bound int64
	goes  func(index uint64) bool
	size  int64
}

// pass makes a pass in which entries lose all their data, those of other kinds too.
func (p halved) pass() Pass {
	return Pass{
		Bound: p.bound, SegmentBytes: p.size,
		Entry: func(entry *raft.Log, _ int64) ([]byte, bool, error) {
			if c := Compacted(entry); c.gap() > 0 {
				return nil, true, nil
			}
			if entry.Type != raft.LogCommand || p.goes(entry.Index) {
				return nil, false, nil
			}
			return entry.Data, true, nil
		},
		Pace: func(int) error { return nil },
		Held: func() bool { return false },
	}
}

// appendedWith gives the extensions of an entry of a longLog: some have none, some the same as
// their neighbours.
func appendedWith(index uint64) []byte {
	if index%12 < 5 {
		return nil
	}
	return []byte{1, byte(index / 4)}
}

// longLog gives a log of 60 entries in several segments, all applied, with its snapshot at the
// last, and the offset in front of each entry.
func longLog(t *testing.T, random *rand.Rand) (h *held, offsets []int64) {
	h = newHeld(t)
	term := uint64(1)
	next := int64(0)
	offsets = append(offsets, 0)
	for i := uint64(1); i <= 60; i++ {
		if random.IntN(10) == 0 {
			term++
		}
		e := entry(i, term)
		if random.IntN(12) == 0 {
			e = &raft.Log{Index: i, Term: term, Type: raft.LogNoop}
		}
		offsets = append(offsets, next)
		next, _ = testSpan(e, next)
		e.Extensions = appendedWith(i)
		if err := h.StoreLog(e); err != nil {
			t.Fatal(err)
		}
	}
	offsets = append(offsets, next)
	h.apply(60)
	if err := h.snapshot(term); err != nil {
		t.Fatal(err)
	}
	return h, offsets
}

// whatIsLeft holds a log against what it was: what stays is as it was, in its place; what goes may
// be there or not, and must not if all is done.
func (p halved) whatIsLeft(h *held, offsets []int64, done bool) error {
	index, next := uint64(1), int64(0)
	var wrong error
	err := h.Scan(0, func(e *raft.Log) bool {
		c := Compacted(e)
		switch {
		case firstOf(e) != index:
			wrong = fmt.Errorf("entry %d behind entry %d", firstOf(e), index-1)
		case offsets[index] != next:
			wrong = fmt.Errorf("entry %d is behind offset %d, was behind %d", index, next, offsets[index])
		case c.gap() > 0:
			for i := index; i <= e.Index; i++ {
				if offsets[i] >= p.bound || !p.goes(i) && offsets[i+1] > offsets[i] {
					wrong = fmt.Errorf("entry %d is gone", i)
				}
				if !bytes.Equal(c.Extensions, appendedWith(i)) {
					wrong = fmt.Errorf("entry %d was appended with %x, its gap says %x", i, appendedWith(i), c.Extensions)
				}
			}
		case e.Type == raft.LogCommand && done && p.goes(index) && offsets[index] < p.bound:
			wrong = fmt.Errorf("entry %d is there", index)
		case e.Type == raft.LogCommand && !bytes.Equal(e.Data, entry(index, e.Term).Data):
			wrong = fmt.Errorf("entry %d is %q", index, e.Data)
		case !bytes.Equal(c.Extensions, appendedWith(index)):
			wrong = fmt.Errorf("entry %d was appended with %x, and says %x", index, appendedWith(index), c.Extensions)
		}
		next, _ = testSpan(e, next)
		index = e.Index + 1
		return wrong == nil
	})
	if err == nil && wrong == nil && index != 61 {
		wrong = fmt.Errorf("it ends at entry %d", index-1)
	}
	if err := errors.Join(err, wrong); err != nil {
		return err
	}
	// Every offset leads to its entry, or to the one that stands for it.
	for i := uint64(1); i <= 60; i++ {
		if offsets[i+1] == offsets[i] {
			continue
		}
		r, err := h.ReadAt(offsets[i], 1)
		if err != nil {
			return err
		}
		for found := false; !found; {
			e, err := r.Next(60)
			if err != nil {
				r.Close()
				return fmt.Errorf("offset %d: %w", offsets[i], err)
			}
			after, _ := testSpan(&e, r.Expected())
			if r.Passed(after); after > offsets[i] {
				found = firstOf(&e) <= i && i <= e.Index
				if !found {
					r.Close()
					return fmt.Errorf("offset %d leads to entry %d", offsets[i], e.Index)
				}
			}
		}
		r.Close()
	}
	a, err := openArchive(h.mem, func(name string) (readable, error) { return h.mem.Open(name) }, "/data")
	if err != nil {
		return err
	}
	if _, bad := a.Verify("g", testSpan, nil, nil); len(bad) > 0 {
		return errors.Join(bad...)
	}
	return h.Scrub(func(int) error { return nil })
}

// TestCompactionCrashes takes the power away at every operation of a pass, and makes the pass
// again; more seeds with CRASH_RUNS.
func TestCompactionCrashes(t *testing.T) {
	start := crashStart(t)
	for seed := start; seed < start+uint64(max(crashSeeds(t)/100, 2)); seed++ {
		random := rand.New(rand.NewPCG(seed, 9))
		kept := 1 + random.Uint64N(4)
		p := halved{goes: func(index uint64) bool { return index%5 >= kept }, size: int64(2000 + random.IntN(6000))}
		shape := random.Uint64()
		var offsets []int64
		crashes(t, func() *held {
			var h *held
			h, offsets = longLog(t, rand.New(rand.NewPCG(shape, 9)))
			p.bound = offsets[35+seed%5]
			return h
		}, func(h *held) error {
			if _, err := h.Compact(p.pass()); err != nil {
				return err
			}
			return h.Note(Compaction{Decision: 50, Bound: p.bound, Mark: 50})
		}, func(h *held, whole bool) error {
			if c := h.Compaction(); whole && c.Mark != 50 || c.Mark != 50 && c.Bound != 0 {
				return fmt.Errorf("%+v", c)
			}
			if err := p.whatIsLeft(h, offsets, whole); err != nil {
				return err
			}
			before := len(h.Segments())
			if _, err := h.Compact(p.pass()); err != nil {
				return err
			}
			if err := p.whatIsLeft(h, offsets, true); err != nil {
				return fmt.Errorf("again: %w", err)
			}
			if first, _ := h.FirstIndex(); whole && p.goes(3) && offsets[first] < p.bound {
				return fmt.Errorf("Raft has entries from %d on, which are compacted", first)
			}
			if n := len(h.Segments()); n > before {
				return fmt.Errorf("%d segments became %d", before, n)
			}
			return nil
		})
	}
}

// TestCompactedEntriesAreCopied copies a compacted log to a replica that has nothing, and to one
// that has its own entries up to a snapshot: that has to let go of them, unless it is compacted as
// far.
func TestCompactedEntriesAreCopied(t *testing.T) {
	p := halved{goes: func(index uint64) bool { return index%3 != 0 }, size: 4000}
	source, offsets := longLog(t, rand.New(rand.NewPCG(1, 1)))
	p.bound = offsets[40]
	if _, err := source.Compact(p.pass()); err != nil {
		t.Fatal(err)
	}
	if err := source.Note(Compaction{Decision: 50, Bound: p.bound, Mark: 50}); err != nil {
		t.Fatal(err)
	}
	for _, own := range []struct {
		entries uint64
		mark    uint64
		from    uint64
	}{{0, 0, 1}, {30, 0, 1}, {30, 50, 31}} {
		h := newHeld(t)
		for i := uint64(1); i <= own.entries; i++ {
			if err := h.StoreLog(&raft.Log{Index: i, Term: 1, Type: raft.LogCommand, Data: make([]byte, offsets[i+1]-offsets[i])}); err != nil {
				t.Fatal(err)
			}
		}
		if own.entries > 0 {
			h.apply(own.entries)
			h.mustSnapshot()
		}
		if own.mark != 0 {
			if err := h.Note(Compaction{Decision: own.mark, Mark: own.mark}); err != nil {
				t.Fatal(err)
			}
		}
		d, _ := source.Describe(own.entries)
		s, err := h.Stage(d)
		if err != nil {
			t.Fatal(err)
		}
		if s.Next() != own.from {
			t.Errorf("with %+v it copies from entry %d on", own, s.Next())
		}
		if own.from > 1 {
			s.Close()
			continue
		}
		for s.Next() <= d.Index {
			piece, err := source.AppendEntries(nil, s.Next(), d.Index, 1500)
			if err != nil {
				t.Fatal(err)
			}
			entries, err := ParseEntries(piece)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Add(entries); err != nil {
				t.Fatal(err)
			}
		}
		d, _ = source.Describe(own.entries)
		if err := s.Finish(d); err != nil {
			t.Fatal(err)
		}
		if err := h.Adopt(s); err != nil {
			t.Fatal(err)
		}
		h.crash(1)
		if c := h.Compaction(); c != source.Compaction() {
			t.Errorf("%+v, want %+v", c, source.Compaction())
		}
		if err := p.whatIsLeft(h, offsets, true); err != nil {
			t.Error(err)
		}
	}
}

// TestCompactedWhileItCopies: a log that was compacted since the copy began does not go on behind
// its own entries, and what the other has is copied from the beginning.
func TestCompactedWhileItCopies(t *testing.T) {
	source, offsets := longLog(t, rand.New(rand.NewPCG(4, 4)))
	h := newHeld(t)
	p := halved{goes: func(index uint64) bool { return index%3 != 0 }, size: 4000, bound: offsets[20]}
	copied, err := source.AppendEntries(nil, 1, 60, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := ParseEntries(copied)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.StoreLogs(entries[:40]); err != nil {
		t.Fatal(err)
	}
	h.apply(40)
	if err := h.snapshot(entries[39].Term); err != nil {
		t.Fatal(err)
	}
	copyAll := func() uint64 {
		t.Helper()
		d, _ := source.Describe(40)
		s, err := h.Stage(d)
		if err != nil {
			t.Fatal(err)
		}
		from := s.Next()
		if err := s.Add(entries[from-1:]); err != nil {
			t.Fatal(err)
		}
		if err := s.Finish(d); err != nil {
			t.Fatal(err)
		}
		if from > 1 {
			if _, err := h.Compact(p.pass()); err != nil {
				t.Fatal(err)
			}
			if c := h.Compaction(); c.First < 2 {
				t.Fatalf("%+v is no test", c)
			}
			h.Widen(1)
			if first, _ := h.FirstIndex(); first != h.Compaction().First {
				t.Errorf("Raft has entries from %d on, and all below %d may be compacted", first, h.Compaction().First)
			}
		}
		if err := h.Adopt(s); err != nil {
			t.Fatal(err)
		}
		h.crash(1)
		return from
	}
	if from := copyAll(); from != 41 || h.SnapshotIndex() != 40 || h.Compaction().First < 2 {
		t.Errorf("copied from entry %d on, the snapshot is of %d: %+v", from, h.SnapshotIndex(), h.Compaction())
	}
	if from := copyAll(); from != 1 || h.SnapshotIndex() != 60 || h.Compaction() != (Compaction{}) {
		t.Errorf("copied from entry %d on, the snapshot is of %d: %+v", from, h.SnapshotIndex(), h.Compaction())
	}
}

// TestAReaderGoesOnBesideCompaction reads on in a segment that is no part of the log any more.
func TestAReaderGoesOnBesideCompaction(t *testing.T) {
	p := halved{goes: func(index uint64) bool { return index%2 != 0 }, size: 100000}
	h, offsets := longLog(t, rand.New(rand.NewPCG(2, 2)))
	p.bound = offsets[40]
	r, err := h.ReadAt(0, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Next(60); err != nil {
		t.Fatal(err)
	}
	before := h.Bytes()
	if _, err := h.Compact(p.pass()); err != nil {
		t.Fatal(err)
	}
	if h.Rewritten() == 0 || h.Bytes() >= before*3/4 {
		t.Errorf("%d bytes of %d are left", h.Bytes(), before)
	}
	var out raft.Log
	if first, _ := h.FirstIndex(); offsets[first] < p.bound || h.GetLog(first-1, &out) != raft.ErrLogNotFound {
		t.Errorf("Raft has entries from %d on, which are compacted", first)
	}
	for n := 2; ; n++ {
		e, err := r.Next(60)
		if errors.Is(err, io.EOF) {
			break // it looks again
		}
		if err != nil || int(e.Index) != n || Compacted(&e).Compacted {
			t.Fatalf("entry %d: %v", n, err)
		}
	}
}

// TestCompactionWaits holds when nothing is compacted: what is not closed, what is copied from, a
// full disk, and a bound on the rate that ends.
func TestCompactionWaits(t *testing.T) {
	p := halved{goes: func(index uint64) bool { return true }, size: 100000}
	h, offsets := longLog(t, rand.New(rand.NewPCG(3, 3)))
	p.bound = offsets[61]
	if _, err := h.Compact(p.pass()); !errors.Is(err, ErrNotClosed) {
		t.Errorf("the segment that is written to: %v", err)
	}
	p.bound = offsets[30]
	held := p.pass()
	held.Held = func() bool { return true }
	if _, err := h.Compact(held); !errors.Is(err, ErrHeld) {
		t.Errorf("copied from: %v", err)
	}
	stopped := errors.New("stopped")
	paced, left := p.pass(), 12
	paced.Pace = func(int) error {
		if left--; left == 0 {
			return stopped
		}
		return nil
	}
	if _, err := h.Compact(paced); !errors.Is(err, stopped) {
		t.Errorf("stopped: %v", err)
	}
	h.mem.SetFree(1000)
	if _, err := h.Compact(p.pass()); !errors.Is(err, vfs.ErrNoSpace) {
		t.Errorf("a full disk: %v", err)
	}
	if h.Rewritten() != 0 {
		t.Error("segments were put in place of others")
	}
	h.mem.SetFree(1 << 40)
	h.st.space.look()
	if _, err := h.Compact(p.pass()); err != nil {
		t.Error(err)
	}
	if err := p.whatIsLeft(h, offsets, true); err != nil {
		t.Error(err)
	}
}

// FuzzCompacted reads any extensions: what they say is noted as it was, and no entry stands for
// more than there are.
func FuzzCompacted(f *testing.F) {
	e := &raft.Log{Index: 9}
	CompactedEntry{After: 7, Run: 3, Extensions: []byte{1, 2}}.note(e)
	f.Add(e.Index, []byte(nil), e.Extensions)
	f.Add(uint64(2), []byte(nil), e.Extensions)
	f.Add(e.Index, []byte("x"), e.Extensions)
	f.Add(e.Index, []byte(nil), e.Extensions[:12])
	f.Add(e.Index, []byte(nil), []byte{1})
	f.Fuzz(func(t *testing.T, index uint64, data, extensions []byte) {
		if index == 0 {
			return
		}
		e := &raft.Log{Index: index, Data: data, Extensions: extensions}
		c := Compacted(e)
		if first := firstOf(e); first == 0 || first > index || len(data) > 0 && first != index {
			t.Fatalf("entry %d stands for all from %d on", index, first)
		}
		if !c.Compacted {
			if !bytes.Equal(c.Extensions, extensions) || c.gap() != 0 {
				t.Fatalf("%+v", c)
			}
			return
		}
		if c.note(e); !bytes.Equal(e.Extensions[compactedSize:], extensions[compactedSize:]) {
			t.Fatalf("%x became %x", extensions, e.Extensions)
		}
		if again := Compacted(e); again.After != c.After || again.Run != c.Run || again.Data != c.Data {
			t.Fatalf("%+v became %+v", c, again)
		}
	})
}
