package raftlog

import (
	"errors"
	"io"
	"testing"

	"github.com/hashicorp/raft"
)

// TestAReaderThatEndsWithinAnEntry: who comes to an offset finds its entry, wherever a reader
// before has ended: with an entry that it did not pass, as one does whose own work has failed, at
// the end, or behind entries that add no offset.
func TestAReaderThatEndsWithinAnEntry(t *testing.T) {
	h := newHeld(t)
	h.store(1, 30, 1)
	for i := uint64(31); i < 35; i++ {
		if err := h.StoreLog(&raft.Log{Index: i, Term: 1, Type: raft.LogNoop}); err != nil {
			t.Fatal(err)
		}
	}
	h.store(35, 60, 1)
	h.apply(60)
	all, err := h.ReadAt(0, 1)
	if err != nil {
		t.Fatal(err)
	}
	type at struct {
		index  uint64
		offset int64
	}
	var want []at // the offsets of entries that add some
	for {
		before := all.Expected()
		e, err := all.Next(60)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		after, _ := testSpan(&e, before)
		if all.Passed(after); after > before {
			want = append(want, at{e.Index, before})
		}
	}
	all.Close()
	if len(h.segments) < 3 || len(want) < 40 {
		t.Fatalf("%d segments, %d entries with offsets", len(h.segments), len(want))
	}
	for i, w := range want {
		for n := range 5 { // entries that are read before it ends; the last is not passed
			r, err := h.ReadAt(w.offset, 1)
			if err != nil {
				t.Fatal(err)
			}
			for k := range n + 1 {
				e, err := r.Next(60)
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if after, _ := testSpan(&e, r.Expected()); k < n && after > r.Expected() {
					r.Passed(after)
				}
			}
			r.Close()
			for _, w := range want[i:min(i+n+1, len(want))] {
				h.leads(w.offset, w.index)
			}
		}
	}
	h.PartitionLog.Close()
	h.st.Close()
}

// leads checks that who reads at an offset finds its entry.
func (h *held) leads(offset int64, index uint64) {
	h.t.Helper()
	r, err := h.ReadAt(offset, 1)
	if err != nil {
		h.t.Fatal(err)
	}
	defer r.Close()
	for {
		e, err := r.Next(60)
		if err != nil {
			h.t.Fatal(err)
		}
		after, _ := testSpan(&e, r.Expected())
		if r.Passed(after); after <= offset {
			continue
		}
		if e.Index != index {
			h.t.Fatalf("offset %d leads to entry %d, it is in entry %d", offset, e.Index, index)
		}
		return
	}
}

// TestAReaderThatIsLedAstray leaves nothing that leads others there, as after a damaged index; and
// what led one there is let go of when the index is looked at, though that is good by then.
func TestAReaderThatIsLedAstray(t *testing.T) {
	h := newHeld(t)
	h.store(1, 30, 1)
	h.apply(30)
	s, first, _, err := h.view.atOffset(0)
	if err != nil {
		t.Fatal(err)
	}
	wrong := point{index: first.index + 1, pos: first.pos, offset: first.offset}
	r, err := h.offsets.reader(s, wrong, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(30); !errors.Is(err, ErrDamaged) {
		t.Fatalf("entry %d is where %d should be: %v", first.index, wrong.index, err)
	}
	r.Close()
	h.leads(0, first.index)

	// It is behind the damage by its own way: what is there is worth something.
	if r, err = h.offsets.reader(s, wrong, 1); err != nil {
		t.Fatal(err)
	}
	_, _ = r.Next(30)
	if err := r.Skip(func(*raft.Log) (int64, bool) { return 0, false }); err != nil {
		t.Fatal(err)
	}
	behind := point{index: r.index, pos: r.w.pos, offset: r.next}
	r.Close()
	if at, ok := h.spots.find(s, behind.offset); !ok || at != behind {
		t.Errorf("%+v is remembered of %+v", at, behind)
	}

	h.spots.add(s, wrong)
	h.Recheck(0, ErrDamaged)
	h.leads(0, first.index)
	h.PartitionLog.Close()
	h.st.Close()
}
