package raftlog

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// heldJournal is a store whose journal syncs when it is let, and fails to when it is told.
type heldJournal struct {
	*Store
	logs   []*PartitionLog
	let    chan error
	hold   atomic.Bool
	writes atomic.Int64 // of the journal
	syncs  atomic.Int64
}

func newHeldJournal(t *testing.T, groups int) *heldJournal {
	t.Helper()
	h := &heldJournal{let: make(chan error)}
	mem := vfs.NewMem()
	mem.MkdirAll("/data")
	mem.SyncDir("/")
	fs := vfs.Failing{FS: mem, Fail: func(op, name string) error {
		if !h.hold.Load() || !strings.HasSuffix(name, ".journal") {
			return nil
		}
		switch op {
		case "write":
			h.writes.Add(1)
		case "sync":
			h.syncs.Add(1)
			return <-h.let
		}
		return nil
	}}
	var err error
	if h.Store, err = OpenStore("/data", Options{FS: fs, JournalBytes: 4 << 20, ReserveBytes: -1, OnFail: func(error) {}}); err != nil {
		t.Fatal(err)
	}
	for i := range groups {
		name := fmt.Sprint("g", i)
		l, err := h.OpenLog(filepath.Join(h.Groups(), name), LogOptions{Group: name, Span: testSpan, Fresh: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.StoreLog(entry(1, 1)); err != nil {
			t.Fatal(err)
		}
		h.logs = append(h.logs, l)
	}
	h.hold.Store(true)
	return h
}

// appends begins an append to each of these logs.
func (h *heldJournal) appends(wg *sync.WaitGroup, errs []error, logs ...int) {
	for _, i := range logs {
		wg.Go(func() { errs[i] = h.logs[i].StoreLogs([]*raft.Log{entry(2, 1)}) })
		synctest.Wait()
	}
}

func (h *heldJournal) close(t *testing.T) {
	t.Helper()
	h.hold.Store(false)
	for _, l := range h.logs {
		l.Close()
	}
	h.Close()
}

// What comes while somebody writes shares the next write and the next sync, and a close waits for
// it.
func TestAppendsThatWaitShareTheNextSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeldJournal(t, 5)
		errs := make([]error, 5)
		var wg sync.WaitGroup
		h.appends(&wg, errs, 0, 1, 2, 3, 4)
		if w, s := h.writes.Load(), h.syncs.Load(); w != 1 || s != 1 {
			t.Errorf("%d writes, %d syncs while the first is under way", w, s)
		}
		closed := make(chan struct{})
		go func() { h.journal.close(); close(closed) }()
		synctest.Wait()
		h.let <- nil
		synctest.Wait()
		select {
		case <-closed:
			t.Error("closed before what waited is written")
		default:
		}
		h.let <- nil
		<-closed
		wg.Wait()
		if w, s := h.writes.Load(), h.syncs.Load(); w != 2 || s != 2 || errors.Join(errs...) != nil {
			t.Errorf("%d writes, %d syncs for five appends: %v", w, s, errs)
		}
		if err := h.journal.append(&segment{}, 0, nil); !errors.Is(err, errClosed) {
			t.Errorf("after the close: %v", err)
		}
		h.Store.journal = nil
		h.close(t)
	})
}

// A sync that fails fails those of its batch and all that wait: none is acknowledged.
func TestASyncThatFailsFailsAllThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeldJournal(t, 4)
		errs := make([]error, 4)
		var wg sync.WaitGroup
		h.appends(&wg, errs, 0, 1, 2, 3)
		h.let <- errors.New("the disk is broken")
		wg.Wait()
		for i, err := range errs {
			if err == nil {
				t.Errorf("append %d was acknowledged", i)
			}
		}
		if h.failed() == nil || h.syncs.Load() != 1 {
			t.Errorf("%d syncs: %v", h.syncs.Load(), h.failed())
		}
		h.close(t)
	})
}
