package raftlog

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"
)

// flipIn flips a bit of a file on the disk.
func (h *held) flipIn(name string, at int64) {
	h.t.Helper()
	f, err := h.mem.Open(name)
	if err != nil {
		h.t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		h.t.Fatal(err)
	}
	b[0] ^= 4
	if _, err := f.WriteAt(b, at); err != nil {
		h.t.Fatal(err)
	}
}

// The points of a final index are checked when they are first used. If they are damaged then, the index is made
// again, and who reads notices nothing.
func TestADamagedIndexIsMadeAgainWhenItIsUsed(t *testing.T) {
	h := newHeld(t)
	h.store(1, 40, 1)
	h.apply(40)
	h.mustSnapshot()
	h.PartitionLog.Close()
	h.st.Close()
	h.open(false)
	second := h.segments[1]
	if !second.index.final || second.index.written == 0 {
		t.Fatalf("the index of segment %d is not final or has nothing", second.base)
	}
	h.flipIn(second.index.path, indexHeader+8) // a position
	for range 2 {                              // the second time it is whole, after a start, too
		offset := second.start + 1
		r, err := h.ReadAt(offset, 1)
		if err != nil {
			t.Fatal(err)
		}
		for r.Expected() <= offset {
			e, err := r.Next(h.applied)
			if err != nil {
				t.Fatal(err)
			}
			after, _ := testSpan(&e, r.Expected())
			r.Passed(after)
		}
		r.Close()
		if begin, ok, err := h.OffsetBeforeTime(second.maxTime); err != nil || !ok || begin > offset {
			t.Errorf("the newest time of the segment is found behind offset %d, %v, %v", begin, ok, err)
		}
		h.PartitionLog.Close()
		h.st.Close()
		if !h.said("an index is made again") {
			t.Error("nothing is said of it")
		}
		h.log = ""
		h.open(false)
		second = h.segments[1]
		if err := second.index.check(); err != nil {
			t.Errorf("after a start: %v", err)
		}
		h.log = "an index is made again" // not again
	}
	h.PartitionLog.Close()
	h.st.Close()
}

// An index cannot be made from a segment that is damaged itself.
func TestADamagedSegmentGivesNoIndex(t *testing.T) {
	h := newHeld(t)
	h.store(1, 40, 1)
	h.apply(40)
	h.mustSnapshot()
	h.PartitionLog.Close()
	h.st.Close()
	h.open(false)
	second := h.segments[1]
	h.flipIn(second.index.path, indexHeader+8)
	h.flipIn(second.path, segmentHeader+frameHeader+8)
	if _, err := h.ReadAt(second.start+1, 1); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v, want it to be damaged", err)
	}
	if err := h.GetLog(h.last, new(raft.Log)); err != nil {
		t.Errorf("the end of the log: %v", err)
	}
	h.PartitionLog.Close()
	h.st.Close()
}
