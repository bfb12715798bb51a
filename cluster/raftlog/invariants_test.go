package raftlog

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/hashicorp/raft"
)

// The log's invariants 1 to 6 (docs/architecture.md, "What the log holds to"), one
// test each. make invariants takes the code that keeps each of them away and looks
// whether its test fails.

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
			s, err := openStaging(h.PartitionLog, 21, h.manifest.Snapshot.Next)
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
		r, err := raft.NewRaft(config, counter{h}, h.PartitionLog, stable, h.Snapshots(), transport) // panics on a hole
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
		if err := h.mem.RemoveAll("/data/journal"); err != nil {
			t.Fatal(err)
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
