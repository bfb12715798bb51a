package raftlog

import (
	"errors"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// steps are what an outbox is told and what a disk is asked for, in order.
type steps struct {
	mu  sync.Mutex
	all []string
	let chan struct{} // not nil: a sync of the journal waits for it
}

func (s *steps) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, what)
}

// taken gives the steps since it was called before.
func (s *steps) taken() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.all
	s.all = nil
	return all
}

func (s *steps) Enter() { s.note("outbox: enter") }
func (s *steps) Leave() { s.note("outbox: leave") }
func (s *steps) Write() { s.note("outbox: write") }
func (s *steps) Wake()  { s.note("outbox: wake") }

func (s *steps) disk(op, name string) error {
	kind := map[string]string{".journal": "journal", ".log": "segment"}[filepath.Ext(name)]
	if kind == "" || op != "write" && op != "sync" && op != "allocate" {
		return nil
	}
	s.note(kind + ": " + op)
	s.mu.Lock()
	let := s.let
	s.mu.Unlock()
	if let != nil && kind == "journal" && op == "sync" {
		<-let
	}
	return nil
}

// noted gives a store of some logs with an entry each, and the steps of what follows.
func noted(t *testing.T, groups ...string) (*Store, map[string]*PartitionLog, *steps) {
	t.Helper()
	s, mem := &steps{}, vfs.NewMem()
	mem.MkdirAll("/data")
	mem.SyncDir("/")
	st, err := OpenStore("/data", Options{FS: vfs.Failing{FS: mem, Fail: s.disk}, JournalBytes: 4 << 20, ReserveBytes: -1, OnFail: func(error) {}, Outbox: s})
	if err != nil {
		t.Fatal(err)
	}
	logs := map[string]*PartitionLog{}
	for _, name := range groups {
		l, err := st.OpenLog(filepath.Join(st.Groups(), name), LogOptions{Group: name, Span: testSpan, Fresh: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.StoreLog(entry(1, 1)); err != nil {
			t.Fatal(err)
		}
		logs[name] = l
	}
	s.taken()
	return st, logs, s
}

// closeNoted ends a store, whatever it holds.
func closeNoted(st *Store, logs map[string]*PartitionLog) {
	for _, l := range logs {
		l.Close()
	}
	st.Close()
}

func wantSteps(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %s; want %s", what, strings.Join(got, ", "), strings.Join(want, ", "))
	}
}

// What followers are to store leaves before its leader goes to the disk.
func TestTheOutboxIsWrittenBeforeTheDisk(t *testing.T) {
	st, logs, s := noted(t, "g")
	defer closeNoted(st, logs)
	if err := logs["g"].StoreLog(entry(2, 1)); err != nil {
		t.Fatal(err)
	}
	wantSteps(t, "an append", s.taken(), "outbox: enter", "segment: write", "outbox: write", "journal: write", "journal: sync", "outbox: leave")

	// Up to the one for which the first room of a segment is too small.
	index, got := uint64(3), []string(nil)
	for ; !slices.Contains(got, "segment: allocate"); index++ {
		some := entry(index, 1)
		some.Data = make([]byte, 4<<10)
		if err := logs["g"].StoreLog(some); err != nil {
			t.Fatal(err)
		}
		got = s.taken()
	}
	wantSteps(t, "an append that needs room", got, "outbox: enter", "outbox: write", "segment: allocate",
		"segment: write", "outbox: write", "journal: write", "journal: sync", "outbox: leave")

	large := entry(index, 1)
	large.Data = make([]byte, 100<<10)
	if err := logs["g"].StoreLog(large); err != nil {
		t.Fatal(err)
	}
	got = slices.Compact(s.taken()) // in several writes
	wantSteps(t, "a large append", got, "outbox: enter", "outbox: write", "segment: allocate", "segment: write", "segment: sync", "outbox: leave")
}

// Who appends says so, and whatever else it waits for.
func TestTheOutboxIsToldBeforeAnAppendWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, logs, s := noted(t, "g", "h", "i")
		defer closeNoted(st, logs)
		s.let = make(chan struct{})
		var wg sync.WaitGroup
		begin := func(name string, index uint64) {
			wg.Go(func() {
				if err := logs[name].StoreLogs([]*raft.Log{entry(index, 1)}); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		begin("g", 2)
		s.taken()
		begin("h", 2)
		wantSteps(t, "an append while another syncs", s.taken(), "outbox: enter", "segment: write")
		begin("i", 2)
		wantSteps(t, "one more", s.taken(), "outbox: enter", "segment: write")
		s.let <- struct{}{}
		synctest.Wait()
		wantSteps(t, "the next batch", s.taken(), "outbox: leave", "outbox: write", "journal: write", "journal: sync")
		s.let <- struct{}{}
		wg.Wait()
		s.taken()

		begin("g", 3)
		wantSteps(t, "an append after a batch of several", s.taken(), "outbox: enter", "segment: write", "outbox: wake",
			"outbox: write", "journal: write", "journal: sync")
		s.let <- struct{}{}
		wg.Wait()
		s.taken()

		logs["g"].turn.wait() // as retention does
		began := make(chan error)
		go func() { began <- logs["g"].StoreLogs([]*raft.Log{entry(4, 1)}) }()
		// Not synctest.Wait: who waits for a lock is not idle for it.
		for len(s.seen()) < 2 {
			runtime.Gosched()
		}
		wantSteps(t, "an append that waits for its turn", s.taken(), "outbox: enter", "outbox: wake")
		s.mu.Lock()
		s.let = nil
		s.mu.Unlock()
		logs["g"].turn.pass()
		if err := <-began; err != nil {
			t.Error(err)
		}
	})
}

func (s *steps) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// What waits does not stay there when nothing is stored.
func TestTheOutboxIsToldWhenNothingIsStored(t *testing.T) {
	st, logs, s := noted(t, "g", "h")
	defer closeNoted(st, logs)
	if err := logs["g"].StoreLog(entry(7, 1)); err == nil {
		t.Error("an entry behind a hole was stored")
	}
	wantSteps(t, "a hole", s.taken(), "outbox: enter", "outbox: leave", "outbox: wake")
	st.fail(errors.New("the disk is broken"))
	if err := logs["g"].StoreLog(entry(2, 1)); err == nil {
		t.Error("a store that has failed stored")
	}
	wantSteps(t, "a failed disk", s.taken(), "outbox: enter", "outbox: leave", "outbox: wake")
}
