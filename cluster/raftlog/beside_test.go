package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
)

// TestReadersBesideCutTrimAndClose: everything that reads a log, while its end is cut off and written anew, its beginning is freed,
// snapshots are taken and at last it is closed. Nothing that is read is torn, of a hole or of an
// entry that was never there, what is applied is read as it was applied, and no replica is given up as damaged.
func TestReadersBesideCutTrimAndClose(t *testing.T) {
	for seed := range uint64(2) {
		besideRun(t, rand.New(rand.NewPCG(seed, 5)), 150)
	}
}

func besideRun(t *testing.T, random *rand.Rand, steps int) {
	t.Helper()
	h := newHeld(t)
	l := h.PartitionLog
	l.Serving()
	var terms sync.Map // of applied entries, by index
	var over atomic.Bool
	var applied atomic.Uint64
	// seen is up to where the log was applied before the entry was read: of that alone the term is
	// certain. Any other may have been cut off since.
	check := func(who string, e *raft.Log, index, seen uint64) {
		want := entry(index, e.Term)
		if e.Index != index || e.Term == 0 || e.Term > 1000 || !bytes.Equal(e.Data, want.Data) {
			t.Errorf("%s: entry %d is %d of term %d: %.40q", who, index, e.Index, e.Term, e.Data)
		}
		if term, ok := terms.Load(index); ok && index <= seen && term != e.Term {
			t.Errorf("%s: entry %d is of term %d, applied was that of term %d", who, index, e.Term, term)
		}
	}
	failed := func(who string, err error) {
		switch {
		case err == nil, errors.Is(err, raft.ErrLogNotFound), errors.Is(err, ErrNotInLog), errors.Is(err, io.EOF):
		default:
			t.Errorf("%s: %v", who, err)
		}
	}
	readers := map[string]func(random *rand.Rand){
		"GetLog": func(random *rand.Rand) {
			first, _ := l.FirstIndex()
			last, _ := l.LastIndex()
			if last == 0 {
				return
			}
			for index := first + random.Uint64N(last-first+3); index <= last+2; index++ {
				var e raft.Log
				seen := applied.Load()
				err := l.GetLog(index, &e)
				if err == nil {
					check("GetLog", &e, index, seen)
				}
				if failed("GetLog", err); err != nil {
					return
				}
			}
		},
		"Scan": func(*rand.Rand) {
			next, seen := uint64(0), applied.Load()
			failed("Scan", l.Scan(seen/2, func(e *raft.Log) bool {
				if next != 0 && e.Index != next {
					t.Errorf("Scan: entry %d where %d should be", e.Index, next)
				}
				check("Scan", e, e.Index, seen)
				next, seen = e.Index+1, applied.Load() // the next one is read after that
				return true
			}))
		},
		"Read": func(random *rand.Rand) {
			_, next := l.LastApplied()
			if next == 0 {
				return
			}
			r, err := l.ReadAt(random.Int64N(next), 1000)
			if failed("ReadAt", err); err != nil {
				return
			}
			defer r.Close()
			for {
				seen := applied.Load() // goes on while more is applied
				e, err := r.Next(seen)
				if failed("Next", err); err != nil {
					return
				}
				check("Next", &e, e.Index, seen)
				after, _ := testSpan(&e, r.Expected())
				r.Passed(after)
			}
		},
		"AppendEntries": func(random *rand.Rand) {
			seen := applied.Load()
			d, ok := l.Describe(0)
			if !ok {
				return
			}
			from := d.First + random.Uint64N(d.Index-min(d.First, d.Index)+1)
			b, err := l.AppendEntries(nil, from, d.Index, 2000)
			if failed("AppendEntries", err); err != nil || from > d.Index {
				return
			}
			entries, err := ParseEntries(b)
			if err != nil || len(entries) == 0 {
				t.Errorf("AppendEntries: %d entries, %v", len(entries), err)
			}
			for i, e := range entries {
				check("AppendEntries", e, from+uint64(i), seen)
			}
		},
		"Scrub": func(*rand.Rand) { failed("Scrub", l.Scrub(func(int) error { return nil })) },
		"looks": func(random *rand.Rand) {
			l.Has(applied.Load()+2, 1)
			l.Segments()
			l.Bytes()
			l.Unsnapshotted()
			_, _, err := l.OffsetBeforeTime(random.Int64N(500))
			failed("OffsetBeforeTime", err)
		},
	}
	var running sync.WaitGroup
	for who, read := range readers {
		running.Go(func() {
			random := rand.New(rand.NewPCG(uint64(len(who)), 1))
			for !over.Load() {
				read(random)
			}
			read(random) // the log is closed
		})
	}
	term, last := uint64(1), uint64(0)
	for range steps {
		switch random.IntN(8) {
		default:
			for range 1 + random.IntN(4) {
				last++
				if err := l.StoreLog(entry(last, term)); err != nil {
					t.Fatal(err)
				}
			}
		case 0, 1:
			if last > applied.Load() {
				from := applied.Load() + 1 + random.Uint64N(last-applied.Load())
				if err := l.DeleteRange(from, last); err != nil {
					t.Fatal(err)
				}
				last = from - 1
				term++
			}
		case 2, 3:
			to := applied.Load() + random.Uint64N(last-applied.Load()+1)
			for index := applied.Load() + 1; index <= to; index++ {
				var e raft.Log
				if err := l.readEntry(index, &e); err != nil {
					t.Fatal(err)
				}
				terms.Store(index, e.Term)
			}
			h.apply(to)
			applied.Store(to)
		case 4:
			if applied.Load() > l.SnapshotIndex() {
				if err := h.snapshot(1); err != nil {
					t.Fatal(err)
				}
			}
		case 5:
			_, next := l.LastApplied()
			if _, err := l.Trim(next/2, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	over.Store(true)
	running.Wait()
	h.st.Close()
	select {
	case err := <-h.damaged:
		t.Errorf("the replica is given up: %v", err)
	default:
	}
}

// TestAFileThatCannotBeOpenedIsNoDamage: without a descriptor nothing is wrong with the file. Raft waits until there is one,
// and others try again.
func TestAFileThatCannotBeOpenedIsNoDamage(t *testing.T) {
	h := newHeld(t)
	h.store(1, 40, 1)
	h.apply(40)
	h.mustSnapshot()
	if err := h.PartitionLog.Close(); err != nil {
		t.Fatal(err)
	}
	h.st.Close()
	h.open(false)
	h.Serving()
	none := fmt.Errorf("open: %w", syscall.EMFILE)
	h.st.handles.closeClean()
	h.openError.Store(&none)
	if _, err := h.ReadAt(0, 10); !errors.Is(err, syscall.EMFILE) || errors.Is(err, ErrDamaged) {
		t.Errorf("a reader is told %v", err)
	}
	if _, _, err := h.OffsetBeforeTime(1); !errors.Is(err, syscall.EMFILE) || errors.Is(err, ErrDamaged) {
		t.Errorf("who looks for a time is told %v", err)
	}
	if err := h.Scrub(func(int) error { return nil }); !errors.Is(err, syscall.EMFILE) || errors.Is(err, ErrDamaged) {
		t.Errorf("the scrub says %v", err)
	}
	first, _ := h.FirstIndex()
	got := make(chan error)
	go func() {
		var e raft.Log
		err := h.GetLog(first, &e)
		if err == nil && !bytes.Equal(e.Data, entry(first, 1).Data) {
			err = fmt.Errorf("it got %q", e.Data)
		}
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("Raft was told %v", err)
	case err := <-h.damaged:
		t.Fatalf("the replica is given up: %v", err)
	case <-h.opens: // it has tried
	}
	h.openError.Store(nil)
	if err := <-got; err != nil {
		t.Error(err)
	}
	if h.said("made again") {
		t.Error("an index was made again")
	}
	h.PartitionLog.Close()
	h.st.Close()
}

// TestAReadBesideACutLooksAgain: the end is cut off, and may be written anew, between the moment at which a reader has found an
// entry's place and that at which it reads there.
func TestAReadBesideACutLooksAgain(t *testing.T) {
	for _, anew := range []bool{false, true} {
		for who, read := range map[string]func(h *held, e *raft.Log) error{
			"GetLog": func(h *held, e *raft.Log) error { return h.GetLog(38, e) },
			"Scan": func(h *held, e *raft.Log) error {
				err := h.Scan(38, func(found *raft.Log) bool { *e = *found; return false })
				if err == nil && e.Index == 0 {
					err = raft.ErrLogNotFound
				}
				return err
			},
		} {
			h := newHeld(t)
			h.store(1, 40, 1)
			h.cache.forget(0)
			h.Serving()
			beside := func() {
				h.beforeRead.Store(nil) // the cut reads, too
				if err := h.DeleteRange(2, 40); err != nil {
					t.Error(err)
				}
				for i := uint64(2); anew && i <= 60; i++ {
					if err := h.StoreLog(&raft.Log{Index: i, Term: 2, Type: raft.LogCommand, Data: []byte("new")}); err != nil {
						t.Error(err)
					}
				}
			}
			h.beforeRead.Store(&beside)
			var e raft.Log
			err := read(h, &e)
			if !anew && !errors.Is(err, raft.ErrLogNotFound) || anew && (err != nil || e.Index != 38 || e.Term != 2) {
				t.Errorf("%s, written anew %v: entry %d of term %d, %v", who, anew, e.Index, e.Term, err)
			}
			select {
			case err := <-h.damaged:
				t.Errorf("%s: the replica is given up: %v", who, err)
			default:
			}
			h.PartitionLog.Close()
			h.st.Close()
		}
	}
}
