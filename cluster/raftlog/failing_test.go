package raftlog

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// errInjected is in what a failing file system says.
var errInjected = errors.New("injected")

// errKilled is what a process that was killed does not see any more.
var errKilled = fmt.Errorf("killed: %w", fs.ErrClosed)

// TestFailures lets one operation of the file system fail, each run another one, or the disk lose
// in the background what was written, or kills the process, and ends there, as a node does. The
// file system fails as Linux does (vfs.Mem.Lose). What was acknowledged is there after a restart,
// with or without a loss of power; what was not may be there in part, from its beginning.
func TestFailures(t *testing.T) {
	start := crashStart(t)
	for seed := start; seed < start+uint64(crashSeeds(t)); seed++ {
		if err := failingRun(seed); err != nil {
			t.Fatalf("seed %d (CRASH_SEED=%d CRASH_RUNS=1 repeats it): %v", seed, seed, err)
		}
	}
}

func failingRun(seed uint64) error {
	random := rand.New(rand.NewPCG(seed, 2))
	mem := vfs.NewMem()
	mem.MkdirAll("/data")
	mem.SyncDir("/")
	var models []*modelLog
	for i := range 2 {
		models = append(models, &modelLog{name: fmt.Sprint("group-", i), entries: map[uint64]*raft.Log{}, kept: 1, term: 1})
	}
	opts := Options{JournalBytes: 1 << (10 + random.IntN(4)), BypassBytes: 700, CacheBytes: 1 << 10, ReserveBytes: -1, files: 8 + 500*random.IntN(2)}
	if random.IntN(4) == 0 {
		opts.JournalBytes = -1
	}
	opts.Format = 1 + random.IntN(segmentFormat)
	for life := range 4 {
		var left atomic.Int64
		var lost atomic.Bool
		left.Store(int64(1 + random.IntN(250)))
		reason := []error{syscall.EIO, vfs.ErrNoSpace}[random.IntN(2)]
		short := random.IntN(3) == 0
		how := random.IntN(4)
		disk := mem
		opts.FS = vfs.Failing{FS: disk, Fail: func(op, name string) error {
			n := left.Add(-1)
			switch {
			case n > 0 || life == 3:
				return nil
			case how == 0: // killed: nothing that the process still does comes to the disk
				return errKilled
			case how == 1: // lost behind the back of the program, before it syncs
				if !lost.Load() {
					lost.Store(disk.Lose(name, fmt.Errorf("write back %s: %w: %w", name, errInjected, reason)))
				}
				return nil
			case n < 0:
				return nil
			}
			err := fmt.Errorf("%s %s: %w: %w", op, name, errInjected, reason)
			if op == "write" && short {
				return vfs.ShortWrite{Bytes: 13, Err: err}
			}
			return err
		}}
		err := live(opts, models, random)
		if errors.Is(err, ErrDamaged) && strings.Contains(err.Error(), "may have lost acknowledged entries: read") {
			// a segment that the disk did not give when the journal was played back: the log is to
			// be made anew
			return nil
		}
		if err != nil && !errors.Is(err, errInjected) && !errors.Is(err, reason) && !errors.Is(err, errPower) {
			return fmt.Errorf("life %d, %v: %w", life, reason, err)
		}
		mem.Exit()
		if random.IntN(2) == 0 {
			mem = mem.Crash(random)
		}
	}
	return nil
}

// TestNothingIsAcknowledgedAfterAFailedSync: what a disk could not sync once it may have dropped,
// and a second sync would say that all is well.
func TestNothingIsAcknowledgedAfterAFailedSync(t *testing.T) {
	for _, journal := range []int64{8 << 10, -1} {
		mem := vfs.NewMem()
		mem.MkdirAll("/data")
		mem.SyncDir("/")
		var fail atomic.Bool
		failed := make(chan error, 1)
		st, err := OpenStore("/data", Options{
			JournalBytes: journal, ReserveBytes: -1,
			OnFail: func(err error) { failed <- err },
			FS: vfs.Failing{FS: mem, Fail: func(op, name string) error {
				if op == "sync" && fail.CompareAndSwap(true, false) {
					return fmt.Errorf("sync %s: %w", name, syscall.EIO)
				}
				return nil
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		logs := make([]*PartitionLog, 2)
		for i := range logs {
			name := fmt.Sprint("group-", i)
			if logs[i], err = st.OpenLog(st.Groups()+"/"+name, LogOptions{Group: name, Span: testSpan, Fresh: true, SegmentBytes: func() int64 { return 1 << 20 }}); err != nil {
				t.Fatal(err)
			}
			if err := logs[i].StoreLogs([]*raft.Log{{Index: 1, Term: 1, Data: []byte("good")}}); err != nil {
				t.Fatal(err)
			}
		}
		fail.Store(true)
		if err := logs[0].StoreLogs([]*raft.Log{{Index: 2, Term: 1, Data: []byte("lost")}}); !errors.Is(err, syscall.EIO) {
			t.Fatalf("the sync failed, and the append was told %v", err)
		}
		for i, l := range logs {
			last, _ := l.LastIndex()
			if err := l.StoreLogs([]*raft.Log{{Index: last + 1, Term: 1, Data: []byte("after")}}); err == nil {
				t.Errorf("journal of %d bytes: group %d acknowledges after a failed sync", journal, i)
			}
		}
		if err := <-failed; !errors.Is(err, syscall.EIO) {
			t.Errorf("the node is told %v", err)
		}
		for _, l := range logs {
			l.Close()
		}
		st.Close()
	}
}

// A journal on a file system that keeps no room for it finds none once: the append is not there,
// and the next is taken.
func TestAJournalWithoutRoomGoesOn(t *testing.T) {
	mem := vfs.NewMem()
	mem.MkdirAll("/data")
	mem.SyncDir("/")
	var full atomic.Bool
	opts := Options{JournalBytes: 8 << 10, BypassBytes: 700, ReserveBytes: -1}
	disk := func(mem *vfs.Mem) vfs.FS {
		return vfs.Failing{FS: mem, Fail: func(op, name string) error {
			if op == "write" && strings.Contains(name, ".journal") && full.Load() {
				return vfs.ShortWrite{Bytes: 100, Err: vfs.ErrNoSpace}
			}
			return nil
		}}
	}
	opts.FS = disk(mem)
	var stopped atomic.Bool
	opts.OnFail = func(err error) {
		if !stopped.Load() {
			t.Errorf("the store has failed: %v", err)
		}
	}
	h := &held{t: t, mem: mem}
	open := func(fresh bool) {
		t.Helper()
		var err error
		if h.st, err = OpenStore("/data", opts); err == nil {
			h.PartitionLog, err = h.st.OpenLog("/data/partitions/g", fuzzedOptions())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	open(true)
	for i := uint64(1); i <= 100; i++ {
		full.Store(true)
		if err := h.StoreLog(entry(i, 9)); !errors.Is(err, vfs.ErrNoSpace) {
			t.Fatalf("entry %d: %v", i, err)
		}
		if i%10 == 0 { // the power goes before anything else
			stopped.Store(true)
			h.mem.Stop()
			h.PartitionLog.Close()
			h.st.Close()
			h.mem = h.mem.Crash(rand.New(rand.NewPCG(i, 3)))
			opts.FS = disk(h.mem)
			stopped.Store(false)
			full.Store(false)
			open(false)
			if h.last != i-1 {
				t.Fatalf("it ends at entry %d, want %d", h.last, i-1)
			}
		}
		full.Store(false)
		if err := h.StoreLog(entry(i, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.holds([]uint64{100}, []uint64{1}); err != nil {
		t.Error(err)
	}
	h.PartitionLog.Close()
	h.st.Close()
}

// A segment that is to be cut off and cannot be removed is there at the next start, whole: the
// journal must not have let go of it before it was synced.
func TestASegmentThatCannotBeRemovedStaysWhole(t *testing.T) {
	for seed := range uint64(20) {
		mem := vfs.NewMem()
		mem.MkdirAll("/data")
		mem.SyncDir("/")
		var broken atomic.Bool
		opts := Options{JournalBytes: 2 << 10, ReserveBytes: -1, FS: vfs.Failing{FS: mem, Fail: func(op, name string) error {
			if op == "remove" && broken.Load() && strings.HasSuffix(name, segmentSuffix) {
				return fmt.Errorf("%s %s: %w", op, name, syscall.EIO)
			}
			return nil
		}}}
		st, err := OpenStore("/data", opts)
		if err != nil {
			t.Fatal(err)
		}
		open := func(st *Store, name string) (*PartitionLog, error) {
			return st.OpenLog(st.Groups()+"/"+name, LogOptions{Group: name, Span: testSpan, Fresh: true, SegmentBytes: func() int64 { return 2000 }})
		}
		store := func(l *PartitionLog, from, to uint64) {
			for index := from; index <= to; index++ {
				if err := l.StoreLogs([]*raft.Log{{Index: index, Term: 1, Data: make([]byte, 300)}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		l, err := open(st, "g")
		if err != nil {
			t.Fatal(err)
		}
		other, err := open(st, "h")
		if err != nil {
			t.Fatal(err)
		}
		store(l, 1, 9) // two segments
		broken.Store(true)
		if err := l.DeleteRange(6, 9); !errors.Is(err, syscall.EIO) {
			t.Fatalf("the segment is gone: %v", err)
		}
		store(other, 1, 60) // all files of the journal are used again
		mem.Stop()
		l.Close()
		other.Close()
		st.Close()
		opts.FS = mem.Crash(rand.New(rand.NewPCG(seed, 4)))
		if st, err = OpenStore("/data", opts); err != nil {
			t.Fatal(err)
		}
		l, err = open(st, "g")
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if last, _ := l.LastIndex(); last != 9 {
			t.Errorf("seed %d: it ends at entry %d, want 9", seed, last)
		}
		l.Close()
		st.Close()
	}
}
