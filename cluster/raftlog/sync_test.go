package raftlog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// TestTheFirstFailedSyncEndsTheStore: whichever sync it is, of a file or of a folder, and though
// each later one succeeds, as on Linux: nothing is acknowledged any more in any raft group, nothing
// more is published, and what was acknowledged before is there after the power went.
func TestTheFirstFailedSyncEndsTheStore(t *testing.T) {
	for _, journal := range []int64{2 << 10, -1} {
		for fail, last := int64(1), false; !last; fail++ {
			last = failedSyncRun(t, journal, fail)
		}
	}
}

func failedSyncRun(t *testing.T, journal, fail int64) (last bool) {
	t.Helper()
	mem := vfs.NewMem()
	mem.MkdirAll("/data")
	mem.SyncDir("/")
	var begun atomic.Bool
	var syncs, told atomic.Int64
	var what atomic.Value
	opts := Options{
		JournalBytes: journal, BypassBytes: 700, CacheBytes: 1, ReserveBytes: -1,
		OnFail: func(error) { told.Add(1) },
		FS: vfs.Failing{FS: mem, Fail: func(op, name string) error {
			if begun.Load() && (op == "sync" || op == "syncdir") && syncs.Add(1) == fail {
				what.Store(op + " " + name)
				return fmt.Errorf("%s %s: %w", op, name, syscall.EIO)
			}
			return nil
		}},
	}
	st, err := OpenStore("/data", opts)
	if err != nil {
		t.Fatal(err)
	}
	var logs [2]*PartitionLog
	for i := range logs {
		if logs[i], err = st.OpenLog(filepath.Join(st.Groups(), fmt.Sprint(i)), LogOptions{
			Group: fmt.Sprint(i), Span: testSpan, Trailing: 3, Fresh: true, SegmentBytes: func() int64 { return 2000 },
		}); err != nil {
			t.Fatal(err)
		}
	}
	acknowledged, promised := [2]uint64{}, [2]uint64{}
	store := func(i int, size int) error {
		entry := &raft.Log{Index: acknowledged[i] + 1, Term: 1, Type: raft.LogCommand, Data: make([]byte, size)}
		for k := range entry.Data {
			entry.Data[k] = byte(entry.Index) + 1
		}
		err := logs[i].StoreLog(entry)
		if err == nil {
			acknowledged[i]++
		}
		return err
	}
	snapshot := func(i int) {
		h := &held{t: t, PartitionLog: logs[i]}
		h.apply(acknowledged[i])
		if h.snapshot(1) == nil {
			promised[i] = acknowledged[i]
		}
	}
	begun.Store(true)
	func() {
		for i := range logs {
			for k := range 8 {
				if store(i, 300+900*(k%2)) != nil {
					return
				}
			}
			snapshot(i)
			for range 3 {
				if store(i, 300) != nil {
					return
				}
			}
			acknowledged[i]--
			if err := logs[i].DeleteRange(acknowledged[i]+1, acknowledged[i]+1); err != nil {
				return
			}
			if store(i, 400) != nil {
				return
			}
			snapshot(i)
			_, next := logs[i].LastApplied()
			if logs[i].EndSegment(next-700, acknowledged[i], nil) != nil {
				return
			}
			if _, err := logs[i].Trim(next-700, 0); err != nil {
				return
			}
			if store(i, 300) != nil {
				return
			}
		}
	}()
	if what.Load() == nil { // the script has no more syncs
		for _, l := range logs {
			l.Close()
		}
		st.Close()
		return true
	}
	// A flush of the journal may have met it, beside the script, and be about to say so.
	for until := time.Now().Add(10 * time.Second); told.Load() == 0 && time.Now().Before(until); {
		runtime.Gosched()
	}
	before := acknowledged
	for i := range logs {
		logs[i].view.mu.RLock()
		past := logs[i].last == acknowledged[i]
		logs[i].view.mu.RUnlock()
		if past && store(i, 300) == nil || store(i, 1000) == nil {
			t.Errorf("%s failed, and group %d acknowledges", what.Load(), i)
		}
		snapshot(i)
		if promised[i] > before[i] {
			t.Errorf("%s failed, and group %d publishes a snapshot", what.Load(), i)
		}
	}
	for _, l := range logs {
		l.Close()
	}
	st.Close()
	if told.Load() != 1 {
		t.Errorf("%s failed, and the node was told %d times", what.Load(), told.Load())
	}
	mem.Exit()
	mem = mem.Crash(rand.New(rand.NewPCG(uint64(fail), 1)))
	opts.FS, opts.OnFail = mem, nil
	if st, err = OpenStore("/data", opts); err != nil {
		t.Fatalf("%s failed: %v", what.Load(), err)
	}
	for i := range logs {
		l, err := st.OpenLog(filepath.Join(st.Groups(), fmt.Sprint(i)), LogOptions{Group: fmt.Sprint(i), Span: testSpan, SegmentBytes: func() int64 { return 2000 }})
		if err != nil {
			t.Fatalf("%s failed: %v", what.Load(), err)
		}
		if last := max(l.last, l.SnapshotIndex()); last+1 < acknowledged[i] || last < promised[i] {
			t.Errorf("%s failed: group %d ends at entry %d, acknowledged up to %d, snapshot of %d", what.Load(), i, last, acknowledged[i], promised[i])
		}
		l.Close()
	}
	st.Close()
	return false
}

// TestWhatIsNotSyncedStaysOpen: closing a file can lose the error of writing it, and it needs no
// descriptor again to be synced. With too many of them the oldest is synced, and then closed.
func TestWhatIsNotSyncedStaysOpen(t *testing.T) {
	mem := vfs.NewMem()
	mem.MkdirAll("/data")
	mem.SyncDir("/")
	var none atomic.Bool
	st, err := OpenStore("/data", Options{JournalBytes: 64 << 10, ReserveBytes: -1, files: 16, FS: vfs.Failing{FS: mem, Fail: func(op, name string) error {
		if op == "open" && none.Load() {
			return fmt.Errorf("open %s: %w", name, syscall.EMFILE)
		}
		return nil
	}}})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	var logs []*PartitionLog
	for i := range 12 {
		l, err := st.OpenLog(filepath.Join(st.Groups(), fmt.Sprint(i)), LogOptions{Group: fmt.Sprint(i), Span: testSpan, Fresh: true})
		if err == nil {
			err = l.StoreLog(entry(1, 1))
		}
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		logs = append(logs, l)
	}
	none.Store(true)
	dirty := 0
	for i, l := range logs {
		s := l.segments[0]
		if s.handle.isDirty() {
			dirty++
			if s.handle.file == nil {
				t.Errorf("segment %d is not synced and closed", i)
			}
		}
		if err := s.flush(st.disk); err != nil {
			t.Errorf("segment %d: %v", i, err)
		}
	}
	if dirty != st.handles.maxDirty {
		t.Errorf("%d segments are not synced, want %d", dirty, st.handles.maxDirty)
	}
	none.Store(false)
	mem.Lose(logs[11].segments[0].path, errors.New("nothing was lost")) // all is synced
	after := mem.Crash(rand.New(rand.NewPCG(1, 1)))
	for i := range logs {
		f, err := after.Open(logs[i].segments[0].path)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, frameHeader)
		if _, err := f.ReadAt(b, segmentHeader); err != nil || allZero(b) {
			t.Errorf("segment %d was flushed and is not there: %v", i, err)
		}
	}
}
