package raftlog

import (
	"errors"
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
