package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// wholeSpan counts as the catalog does: the next offset is the index behind the last command.
func wholeSpan(entry *raft.Log, next int64) (after, maxTime int64) {
	if entry.Type == raft.LogCommand {
		next = int64(entry.Index) + 1
	}
	return next, noTime
}

// whole is a whole log on a file system that loses what was not synced.
type whole struct {
	t  *testing.T
	st *Store
	WholeLog
}

func openWhole(t *testing.T, fs vfs.FS, fresh bool) (*whole, error) {
	h := &whole{t: t}
	var err error
	if h.st, err = OpenStore("/data", Options{FS: fs, JournalBytes: 8 << 10, ReserveBytes: -1, CacheBytes: 1 << 10}); err != nil {
		return nil, err
	}
	h.WholeLog, err = h.st.OpenWholeLog("/data/catalog", LogOptions{
		Group: "catalog", Span: wholeSpan, Trailing: 3, Fresh: fresh, SegmentBytes: func() int64 { return 1500 },
	})
	return h, err
}

func (h *whole) store(from, to, term uint64) error {
	for i := from; i <= to; i++ {
		if err := h.StoreLog(entry(i, term)); err != nil {
			return err
		}
	}
	return nil
}

// apply does what the catalog's state machine does.
func (h *whole) apply(to uint64) {
	index, _ := h.LastApplied()
	for index++; index <= to; index++ {
		if h.Crosses(index) {
			h.Cross(index, nil)
		}
		h.Applied(index, int64(index)+1, noTime, 1)
	}
}

// take makes a snapshot of the log's own, and lets go of what Raft does.
func (h *whole) take(index, term uint64, state string) error {
	sink, err := h.Snapshots().Create(1, index, term, raft.Configuration{}, 1, nil)
	if err != nil {
		return err
	}
	_, next := h.LastApplied()
	sink.(*Sink).SetStanding(h.Standing(next))
	io.WriteString(sink, state)
	if err := errors.Join(sink.Close(), sink.Close()); err != nil {
		return err
	}
	if first, _ := h.FirstIndex(); index > 3 && first <= index-3 {
		return h.DeleteRange(first, index-3)
	}
	return nil
}

// installs gets a snapshot from another member.
func (h *whole) installs(index, term uint64, state string) error {
	sink, err := h.Snapshots().Create(1, index, term, raft.Configuration{}, 1, nil)
	if err != nil {
		return err
	}
	io.WriteString(sink, state)
	return sink.Close()
}

// snapshot gives the snapshot that there is.
func (h *whole) snapshot() (index uint64, state string) {
	list, err := h.Snapshots().List()
	if err != nil || len(list) == 0 {
		return 0, ""
	}
	_, r, err := h.Snapshots().Open(list[0].ID)
	if err != nil {
		h.t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		h.t.Fatal(err)
	}
	return list[0].Index, string(b)
}

// holds compares the entries from one to another, and what is behind, with those of terms.
func (h *whole) holds(from, last uint64, term func(uint64) uint64) error {
	if got, _ := h.LastIndex(); got != last && (got != 0 || last >= from) {
		return fmt.Errorf("the log ends at %d, not at %d", got, last)
	}
	for i := from; i <= last; i++ {
		var got raft.Log
		if err := h.GetLog(i, &got); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if want := entry(i, term(i)); got.Term != want.Term || !bytes.Equal(got.Data, want.Data) {
			return fmt.Errorf("entry %d is %q of term %d", i, got.Data, got.Term)
		}
	}
	return nil
}

// TestAnInstalledSnapshotIsOneStep takes the power at each operation of a life in which a snapshot
// of another member comes in place of everything: what a dead leader left goes with it. It is there
// as a whole with what followed it, or what was before is.
func TestAnInstalledSnapshotIsOneStep(t *testing.T) {
	for stop, over := int64(1), false; !over; stop++ {
		mem := votesDisk()
		h, err := openWhole(t, mem, true)
		if err == nil {
			err = h.store(1, 20, 1)
		}
		if err == nil {
			h.apply(10)
			err = h.take(10, 1, "ten")
		}
		if err != nil {
			t.Fatal(err)
		}
		var left atomic.Int64
		left.Store(stop)
		mem.OnStep(func(string, string) {
			if left.Add(-1) == 0 {
				mem.Stop()
			}
		})
		installed, stored := false, uint64(50)
		if h.installs(50, 2, "fifty") == nil {
			installed = true
			for i := uint64(51); i <= 56 && h.store(i, i, 3) == nil; i++ {
				stored = i
			}
			if stored == 56 {
				h.apply(56)
				h.take(56, 3, "fifty-six")
			}
		}
		over = left.Load() > 0
		h.WholeLog.Close()
		h.st.Close()
		for seed := range uint64(3) {
			what := fmt.Sprintf("stopped at operation %d, start %d", stop, seed)
			mem.Exit()
			mem = mem.Crash(rand.New(rand.NewPCG(seed, uint64(stop))))
			if h, err = openWhole(t, mem, false); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			last, _ := h.LastIndex()
			switch index, state := h.snapshot(); {
			case index == 10 && state == "ten" && !installed:
				err = h.holds(11, 20, func(uint64) uint64 { return 1 })
			case index == 50 && state == "fifty":
				if last = max(last, 50); last < stored || last > stored+1 {
					err = fmt.Errorf("it ends at %d, acknowledged was %d", last, stored)
				} else {
					err = h.holds(51, last, func(uint64) uint64 { return 3 })
				}
				stored = last
				if e := h.GetLog(50, new(raft.Log)); last > 50 && e != nil {
					t.Errorf("%s: the term of entry 50: %v", what, e)
				}
			case index == 56 && state == "fifty-six" && stored == 56:
				err = h.holds(54, 56, func(uint64) uint64 { return 3 })
			default:
				err = fmt.Errorf("the snapshot is %q of entry %d; installed: %v", state, index, installed)
			}
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if verified, bad := verifyWhole(mem); len(bad) > 0 {
				t.Fatalf("%s: %v, %v", what, verified, bad)
			}
		}
	}
}

// verifyWhole reads all of the log of a node that is stopped.
func verifyWhole(mem *vfs.Mem) (Verified, []error) {
	a, err := OpenArchiveOn(mem, "/data")
	if err != nil {
		return Verified{}, []error{err}
	}
	return a.Verify(CatalogLog, wholeSpan, nil, nil)
}

// TestAnInstalledSnapshotKeepsWhatFollowsIt: a member that has the snapshot's last entry has all
// that it stands for, and what it has behind that it may have acknowledged.
func TestAnInstalledSnapshotKeepsWhatFollowsIt(t *testing.T) {
	for _, applied := range []uint64{0, 5, 39} {
		mem := votesDisk()
		h, err := openWhole(t, mem, true)
		if err == nil {
			err = errors.Join(h.store(1, 30, 1), h.store(31, 60, 2))
		}
		if err != nil {
			t.Fatal(err)
		}
		h.apply(applied)
		if applied > 0 {
			if err := h.take(applied, 1+applied/31, "own"); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.installs(40, 2, "forty"); err != nil {
			t.Fatal(err)
		}
		term := func(i uint64) uint64 { return 1 + min(1, i/31) }
		for seed := range uint64(3) {
			if index, state := h.snapshot(); index != 40 || state != "forty" {
				t.Errorf("%q of entry %d", state, index)
			}
			if err := h.holds(38, 60, term); err != nil {
				t.Errorf("%d applied: %v", applied, err)
			}
			mem = mem.Crash(rand.New(rand.NewPCG(seed, 9)))
			if h, err = openWhole(t, mem, false); err != nil {
				t.Fatal(err)
			}
		}
		h.apply(60)
		if err := h.take(60, 2, "sixty"); err != nil {
			t.Fatal(err)
		}
		if err := h.installs(40, 2, "forty"); err == nil {
			t.Error("it goes back")
		}
		if err := h.store(61, 61, 2); err != nil {
			t.Errorf("since an old snapshot was refused, nothing is taken: %v", err)
		}
	}
}

// TestASnapshotThatIsOvertaken: Raft takes one of its own in a goroutine, and may install another
// member's newer one meanwhile. The older one is refused, and nothing is wrong with the disk.
func TestASnapshotThatIsOvertaken(t *testing.T) {
	h, err := openWhole(t, votesDisk(), true)
	if err == nil {
		err = h.store(1, 30, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	h.apply(20)
	sink, err := h.Snapshots().Create(1, 20, 1, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, next := h.LastApplied()
	sink.(*Sink).SetStanding(h.Standing(next))
	if err := h.installs(50, 2, "fifty"); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err == nil {
		t.Error("it goes back")
	}
	if err := h.store(51, 60, 2); err != nil {
		t.Fatal(err)
	}
	if index, state := h.snapshot(); index != 50 || state != "fifty" {
		t.Errorf("%q of entry %d", state, index)
	}
}

// TestAWholeLogKeepsLittle: what Raft lets go of is freed.
func TestAWholeLogKeepsLittle(t *testing.T) {
	mem := votesDisk()
	h, err := openWhole(t, mem, true)
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 300; i++ {
		if err := h.store(i, i, 1); err != nil {
			t.Fatal(err)
		}
		h.apply(i)
		if i%10 == 0 {
			if err := h.take(i, 1, fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(h.segments); n > 6 {
			t.Fatalf("%d segments with %d entries", n, i)
		}
		if i%70 == 0 {
			if err := errors.Join(h.WholeLog.Close(), h.st.Close()); err != nil {
				t.Fatal(err)
			}
			if h, err = openWhole(t, mem, false); err != nil {
				t.Fatal(err)
			}
			h.apply(i)
			if first, _ := h.FirstIndex(); first != i-2 {
				t.Errorf("Raft's window begins at %d of %d", first, i)
			}
		}
	}
	if _, bad := verifyWhole(mem); len(bad) > 0 {
		t.Error(bad)
	}
}

// TestADamagedJournalLeavesTheCatalog: without it a node could not have its partitions made anew.
func TestADamagedJournalLeavesTheCatalog(t *testing.T) {
	mem := votesDisk()
	h, err := openWhole(t, mem, true)
	if err == nil {
		err = h.store(1, 20, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := mem.RemoveAll("/data/journal"); err != nil {
		t.Fatal(err)
	}
	mem.SyncDir("/data")
	mem = mem.Crash(rand.New(rand.NewPCG(1, 1)))
	if h, err = openWhole(t, mem, false); err == nil {
		err = h.holds(1, 20, func(uint64) uint64 { return 1 })
	}
	if err != nil {
		t.Error(err)
	}
}

// TestACatalogThatCannotBeStoredEndsTheStore: an error of the disk is none that passes. What cannot
// be read Raft, which would panic, waits for until the raft group is closed.
func TestACatalogThatCannotBeStoredEndsTheStore(t *testing.T) {
	mem := votesDisk()
	var broken atomic.Pointer[string] // what fails
	told := make(chan error, 2)
	fs := vfs.Failing{FS: mem, Fail: func(op, name string) error {
		if what := broken.Load(); what != nil && op == *what {
			return syscall.EIO
		}
		return nil
	}}
	st, err := OpenStore("/data", Options{FS: fs, JournalBytes: 8 << 10, ReserveBytes: -1, CacheBytes: 1, OnFail: func(err error) { told <- err }})
	if err != nil {
		t.Fatal(err)
	}
	unreadable := make(chan error, 1)
	log, err := st.OpenWholeLog("/data/catalog", LogOptions{
		Group: "catalog", Span: wholeSpan, Fresh: true, OnDamage: func(err error) { unreadable <- err },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := log.StoreLog(entry(1, 1)); err != nil {
		t.Fatal(err)
	}
	log.Serving()
	write, read := "write", "read"
	broken.Store(&write)
	if err := log.StoreLog(entry(2, 1)); err == nil {
		t.Fatal("it was stored")
	}
	broken.Store(&read)
	if err := log.StoreLog(entry(2, 1)); err == nil {
		t.Error("a later write is believed")
	}
	log.cache.forget(0)
	done := make(chan error)
	go func() { done <- log.GetLog(1, new(raft.Log)) }()
	select {
	case err := <-done:
		t.Fatalf("Raft was told %v", err)
	case <-unreadable:
	}
	log.Abandon()
	if err := <-done; err != nil {
		t.Error(err)
	}
	log.Close()
	if len(told) != 1 {
		t.Errorf("the node was told %d times", len(told))
	}
}
