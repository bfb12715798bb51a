package raftlog

import (
	"errors"
	"fmt"
	"testing"

	"github.com/hashicorp/raft"
)

// Raft goes on beside a copy. What it stored and acknowledged meanwhile stays, and only what a dead
// leader left gives way: whatever happens at whichever step of the copy, the log ends no lower than
// it did.
func TestInvariant3ACopyThatWasOvertakenLeavesTheLogAsItIs(t *testing.T) {
	source := newHeld(t)
	source.store(1, 20, 1)
	source.store(21, 45, 3)
	source.apply(45)
	snapshotOf(source)
	source.store(46, 60, 4)
	for _, c := range []struct {
		name      string
		meanwhile func(h *held)
		ends      []uint64
		terms     []uint64
	}{
		{"nothing", func(h *held) {}, []uint64{20, 45}, []uint64{1, 3}},
		{"a part", func(h *held) { h.store(21, 44, 3); h.apply(30) }, []uint64{20, 45}, []uint64{1, 3}},
		{"as much", func(h *held) { h.store(21, 45, 3) }, []uint64{20, 45}, []uint64{1, 3}},
		{"more", func(h *held) { h.store(21, 45, 3); h.store(46, 60, 4) }, []uint64{20, 45, 60}, []uint64{1, 3, 4}},
		{"more, applied", func(h *held) { h.store(21, 45, 3); h.store(46, 60, 4); h.apply(55) }, []uint64{20, 45, 60}, []uint64{1, 3, 4}},
		{"more, and a snapshot below", func(h *held) { h.store(21, 45, 3); h.apply(40); snapshotOf(h); h.store(46, 60, 4) }, []uint64{20, 45, 60}, []uint64{1, 3, 4}},
		{"more, and a snapshot above", func(h *held) {
			h.store(21, 45, 3)
			h.store(46, 60, 4)
			h.apply(50)
			snapshotOf(h)
		}, []uint64{20, 45, 60}, []uint64{1, 3, 4}},
		{"of a dead leader", func(h *held) { h.store(21, 60, 2) }, []uint64{20, 45}, []uint64{1, 3}},
		{"of a dead leader, cut off by the next", func(h *held) {
			h.store(21, 60, 2)
			if err := h.DeleteRange(21, 60); err != nil {
				t.Fatal(err)
			}
			h.store(21, 45, 3)
			h.store(46, 50, 4)
		}, []uint64{20, 45, 50}, []uint64{1, 3, 4}},
	} {
		// Raft's entries come before the last are copied, or behind them
		for _, early := range []bool{false, true} {
			t.Run(fmt.Sprint(c.name, early), func(t *testing.T) {
				h := newHeld(t)
				h.store(1, 20, 1)
				h.apply(20)
				snapshotOf(h)
				var d Described
				if early {
					d, _ = source.Describe(20)
					s, err := h.Stage(d)
					if err == nil {
						b, aerr := source.AppendEntries(nil, s.Next(), 30, 1<<20)
						entries, perr := ParseEntries(b)
						err = errors.Join(aerr, perr, s.Add(entries), s.Close())
					}
					if err != nil {
						t.Fatal(err)
					}
					c.meanwhile(h)
				}
				if have := h.SnapshotIndex(); have == 20 {
					d = copyFrom(t, source, h)
				} else if early {
					return // what was staged begins elsewhere, and is begun anew or not at all
				}
				s, err := h.Stage(d)
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Finish(d); err != nil {
					t.Fatal(err)
				}
				if !early {
					c.meanwhile(h)
				}
				if err := h.Adopt(s); err != nil {
					t.Fatal(err)
				}
				if err := h.StoreLog(entry(h.last+1, 4)); err == nil {
					t.Error("it takes entries before it was opened again")
				}
				h.crash(1)
				if err := h.holds(c.ends, c.terms); err != nil {
					t.Error(err)
				}
				if err := asRaftStarts(h.PartitionLog); err != nil {
					t.Error(err)
				}
				last := c.ends[len(c.ends)-1]
				h.store(last+1, last+5, 5)
				h.apply(last + 5)
				snapshotOf(h)
				h.crash(2)
				if err := h.holds(append(c.ends[:len(c.ends):len(c.ends)], last+5), append(c.terms[:len(c.terms):len(c.terms)], 5)); err != nil {
					t.Errorf("afterwards: %v", err)
				}
			})
		}
	}
}

// A log that applied something else than the snapshot says, or cannot read what it has there, is
// neither replaced nor believed.
func TestACopyOfAnotherHistoryIsDamage(t *testing.T) {
	source := newHeld(t)
	source.store(1, 45, 3)
	source.apply(45)
	snapshotOf(source)
	h := newHeld(t)
	h.store(1, 20, 3)
	h.apply(20)
	snapshotOf(h)
	h.store(21, 50, 2)
	d := copyFrom(t, source, h)
	s, err := h.Stage(d)
	if err := errors.Join(err, s.Finish(d)); err != nil {
		t.Fatal(err)
	}
	h.apply(48)
	if err := h.Adopt(s); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v, want damage", err)
	}
	h.crash(1)
	if err := h.holds([]uint64{20, 50}, []uint64{3, 2}); err != nil {
		t.Error(err)
	}
}

// snapshotOf takes a snapshot of what is applied, with its term, as Raft does.
func snapshotOf(h *held) {
	h.t.Helper()
	var e raft.Log
	index, _ := h.LastApplied()
	if err := errors.Join(h.readEntry(index, &e), h.snapshot(e.Term)); err != nil {
		h.t.Fatal(err)
	}
}
