package raftlog

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// TestSharedBatchesAfterCrashes lets raft groups append at once, so that their appends share
// batches, while the journal's disk has no room for a moment, fails a sync, or the power goes. What
// was acknowledged is there afterwards, and what was refused is not. CRASH_SEED and CRASH_RUNS are
// as for TestCrashes.
func TestSharedBatchesAfterCrashes(t *testing.T) {
	start, most := crashStart(t), 0
	for seed := start; seed < start+uint64(crashSeeds(t)/10); seed++ {
		r := &sharedRun{random: rand.New(rand.NewPCG(seed, 3)), mem: vfs.NewMem()}
		if err := r.run(); err != nil {
			t.Fatalf("seed %d (CRASH_SEED=%d repeats it): %v", seed, seed, err)
		}
		most = max(most, int(r.most.Load()))
	}
	if most < 2 && crashSeeds(t) > 100 {
		t.Error("no two appends were in one batch")
	}
}

const sharers = 6

type sharedRun struct {
	random *rand.Rand
	mem    *vfs.Mem
	acked  [sharers][]string // in order, from index 1 on
	trying [sharers]string   // what is at the index behind, if anything is
	lives  int
	most   atomic.Int64 // appends in one batch, at least
}

func (r *sharedRun) run() error {
	r.mem.MkdirAll("/data")
	r.mem.SyncDir("/")
	for r.lives = range 3 {
		if err := r.live(); err != nil {
			return err
		}
		r.mem.Exit()
		if r.random.IntN(3) > 0 {
			r.mem = r.mem.Crash(r.random)
		}
	}
	return nil
}

// live opens the store, holds it against what was acknowledged, and appends until something ends.
func (r *sharedRun) live() error {
	var left atomic.Int64
	left.Store(int64(10 + r.random.IntN(300)))
	how, mem := r.random.IntN(3), r.mem
	disk := vfs.Failing{FS: mem, Fail: func(op, name string) error {
		if !strings.HasSuffix(name, ".journal") {
			return nil
		}
		for range 3 { // others come meanwhile
			runtime.Gosched()
		}
		switch n := left.Add(-1); {
		case how == 0 && op == "write" && n%7 == 0:
			return vfs.ShortWrite{Bytes: 100, Err: vfs.ErrNoSpace}
		case n > 0:
		case how == 1 && op == "sync":
			return fmt.Errorf("sync %s: %w", name, syscall.EIO)
		default:
			mem.Stop()
		}
		return nil
	}}
	st, err := OpenStore("/data", Options{FS: disk, JournalBytes: 4 << 10, ReserveBytes: -1, OnFail: func(error) {}})
	if err != nil {
		return r.ended(err)
	}
	defer st.Close()
	var logs [sharers]*PartitionLog
	for i := range logs {
		name := fmt.Sprint("g", i)
		if logs[i], err = st.OpenLog(filepath.Join(st.Groups(), name), LogOptions{Group: name, Span: testSpan, Fresh: true}); err != nil {
			return r.ended(err)
		}
		defer logs[i].Close()
		if err := r.compare(i, logs[i]); err != nil {
			return err
		}
	}
	var wg sync.WaitGroup
	var errs [sharers]error
	for i, l := range logs {
		wg.Go(func() { errs[i] = r.append(i, l, st) })
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}

// ended gives an error that is none of those that are made.
func (r *sharedRun) ended(err error) error {
	if errors.Is(err, syscall.EIO) || errors.Is(err, fs.ErrClosed) || errors.Is(err, vfs.ErrNoSpace) {
		return nil
	}
	return err
}

func (r *sharedRun) append(i int, l *PartitionLog, st *Store) error {
	for try := range 400 {
		r.trying[i] = fmt.Sprintf("try %d of log %d in life %d", try, i, r.lives)
		err := l.StoreLogs([]*raft.Log{{Index: uint64(len(r.acked[i])) + 1, Term: 1, Data: []byte(r.trying[i])}})
		st.journal.mu.Lock()
		waiting := int64(len(st.journal.queue))
		st.journal.mu.Unlock()
		for m := r.most.Load(); waiting > m && !r.most.CompareAndSwap(m, waiting); m = r.most.Load() {
		}
		switch {
		case err == nil:
			r.acked[i] = append(r.acked[i], r.trying[i])
			r.trying[i] = ""
		case errors.Is(err, vfs.ErrNoSpace) && !errors.Is(err, fs.ErrClosed) && st.failed() == nil:
			r.trying[i] = "" // surely not there: it was taken back
		default:
			return r.ended(err)
		}
	}
	return nil
}

// compare says whether a log has what it must, and what it may. What is there of what was under way
// counts as acknowledged from then on.
func (r *sharedRun) compare(i int, l *PartitionLog) error {
	last, _ := l.LastIndex()
	if r.trying[i] != "" && last > uint64(len(r.acked[i])) {
		r.acked[i] = append(r.acked[i], r.trying[i])
	}
	r.trying[i] = ""
	if last != uint64(len(r.acked[i])) {
		return fmt.Errorf("log %d ends at %d, want %d", i, last, len(r.acked[i]))
	}
	for at, want := range r.acked[i] {
		var e raft.Log
		if err := l.GetLog(uint64(at)+1, &e); err != nil {
			return r.ended(err)
		}
		if string(e.Data) != want {
			return fmt.Errorf("log %d has %q at %d, want %q", i, e.Data, at+1, want)
		}
	}
	return nil
}
