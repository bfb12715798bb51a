package raftlog

import (
	"errors"
	"fmt"
	"testing"

	"github.com/hashicorp/raft"
)

// A segment that had ended behind an entry of Raft's own, which was cut off again, goes on. What
// was to be kept with it is not what is kept when it ends for good, and it waits for no snapshot.
func TestASegmentThatGoesOnHasNotEnded(t *testing.T) {
	h, source := newHeld(t), newHeld(t)
	h.store(1, 4, 1)
	h.apply(4)
	end := h.next
	if err := h.StoreLog(&raft.Log{Index: 5, Term: 2, Type: raft.LogNoop}); err != nil {
		t.Fatal(err)
	}
	if err := h.EndSegment(end, 4, []byte("behind entry 4")); err != nil {
		t.Fatal(err)
	}
	if err := h.DeleteRange(5, 5); err != nil {
		t.Fatal(err)
	}
	h.store(5, 6, 3)
	h.apply(6)
	h.mustSnapshot()
	if _, ended := h.Unsnapshotted(); ended || len(h.segments) != 1 {
		t.Errorf("%d segments, and one waits for a snapshot: %v", len(h.segments), ended)
	}

	source.store(1, 4, 1)
	source.store(5, 20, 3)
	source.apply(20)
	source.mustSnapshot()
	d := copyFrom(t, source, h)
	s, err := h.Stage(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Finish(d), h.Adopt(s)); err != nil {
		t.Fatal(err)
	}
	h.crash(1)
	if err := h.holds([]uint64{4, 20}, []uint64{1, 3}); err != nil {
		t.Error(err)
	}
	if state, err := h.segments[0].index.readState(); err != nil || string(state) == "behind entry 4" || h.segments[0].last != 6 {
		t.Errorf("with entries to %d is kept %q, %v", h.segments[0].last, state, err)
	}
}

// keptAs keeps what was in front.
type keptAs []byte

func (k keptAs) Add(*raft.Log, int64)    {}
func (k keptAs) End(int64, int64) []byte { return k }
func (k keptAs) Holds() bool             { return true }
func (k keptAs) Crowded(int64) bool      { return false }

// What is kept with the segment that a copy is put behind is of the place where the copy begins,
// though the log has come further since, and has a snapshot of that.
func TestACopyIsPutBehindWhereItBegan(t *testing.T) {
	h, source := newHeld(t), newHeld(t)
	for _, l := range []*held{h, source} {
		l.opts.Kept = func(before []byte) (Kept, error) { return keptAs(before), nil }
		l.store(1, 6, 1)
	}
	source.store(7, 20, 2)
	source.apply(20)
	source.mustSnapshot()
	h.apply(4)
	h.mustSnapshot()
	want := fmt.Sprint("state at ", h.next)

	d, _ := source.Describe(4)
	s, err := h.Stage(d)
	if err != nil {
		t.Fatal(err)
	}
	for s.Next() <= d.Index {
		var e raft.Log
		if err := errors.Join(source.readEntry(s.Next(), &e), s.Add([]*raft.Log{&e})); err != nil {
			t.Fatal(err)
		}
	}
	h.apply(6)
	h.mustSnapshot()
	if err := errors.Join(s.Finish(d), h.Adopt(s)); err != nil {
		t.Fatal(err)
	}
	h.crash(1)
	if err := h.holds([]uint64{6, 20}, []uint64{1, 2}); err != nil {
		t.Error(err)
	}
	if state, err := h.segments[0].index.readState(); err != nil || h.segments[0].last != 4 || string(state) != want {
		t.Errorf("with entries to %d is kept %q, want %q, %v", h.segments[0].last, state, want, err)
	}
}

// tally keeps which entries are in a segment, and what was in front of the first one.
type tally struct {
	front   string
	entries []uint64
}

func (k *tally) Add(e *raft.Log, _ int64) { k.entries = append(k.entries, e.Index) }
func (k *tally) Holds() bool              { return len(k.entries) > 0 }
func (k *tally) Crowded(int64) bool       { return len(k.entries) >= 5 }

func (k *tally) End(int64, int64) []byte {
	b := fmt.Appendf(nil, "behind %q: %d", k.front, k.entries)
	k.entries = nil
	return b
}

// What is kept with each segment that is copied is of its entries and of what is in front of the
// copy, also where the copy was interrupted; the last of them ends where the copy does, and what
// the log has from itself is as it was. All of it is there behind a restart and as the log grows.
func TestWhatIsKeptWithSegmentsOfACopy(t *testing.T) {
	h, source := newHeld(t), newHeld(t)
	h.opts.Kept = func(before []byte) (Kept, error) { return &tally{front: string(before)}, nil }
	for _, l := range []*held{h, source} {
		l.store(1, 4, 1)
	}
	source.store(5, 20, 2)
	source.apply(20)
	source.mustSnapshot()
	h.apply(4)
	h.mustSnapshot()
	front := fmt.Sprint("state at ", h.next)

	d, _ := source.Describe(4)
	for _, to := range []uint64{8, 13, d.Index} { // and it is interrupted
		s, err := h.Stage(d)
		if err != nil {
			t.Fatal(err)
		}
		for s.Next() <= to {
			var e raft.Log
			if err := errors.Join(source.readEntry(s.Next(), &e), s.Add([]*raft.Log{&e})); err != nil {
				t.Fatal(err)
			}
		}
		if to < d.Index {
			err = s.Close()
		} else {
			err = errors.Join(s.Finish(d), h.Adopt(s))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string) {
		t.Helper()
		for i, want := range []struct {
			first, last uint64
			kept        string
		}{
			{1, 4, front},
			{5, 9, fmt.Sprintf("behind %q: [5 6 7 8 9]", front)},
			{10, 14, fmt.Sprintf("behind %q: [10 11 12 13 14]", front)},
			{15, 19, fmt.Sprintf("behind %q: [15 16 17 18 19]", front)},
			{20, 20, fmt.Sprintf("behind %q: [20]", front)},
		} {
			if i >= len(h.segments) {
				t.Fatalf("%s: %d segments", when, len(h.segments))
			}
			s := h.segments[i]
			kept, err := s.index.readState()
			if err != nil || s.base != want.first || s.last != want.last || string(kept) != want.kept || !s.index.isFinal() {
				t.Errorf("%s: with entries %d to %d is kept %q, %v; want %d to %d and %q", when, s.base, s.last, kept, err, want.first, want.last, want.kept)
			}
		}
		if string(h.manifest.state) != string(d.State) {
			t.Errorf("%s: the state of the snapshot is %q, want %q", when, h.manifest.state, d.State)
		}
	}
	h.crash(1)
	check("adopted")
	h.store(21, 30, 2)
	h.apply(30)
	h.mustSnapshot()
	d.State = []byte(fmt.Sprint("state at ", h.next))
	h.crash(2)
	check("grown")
}
