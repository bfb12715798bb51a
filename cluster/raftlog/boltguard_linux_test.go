package raftlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
)

// breakFile makes everything fail that this process writes to a file that it has open, and gives what mends that.
func breakFile(t *testing.T, path string) (mend func()) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		var fd int
		fmt.Sscan(e.Name(), &fd)
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err != nil || target != path {
			continue
		}
		kept, err := syscall.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		readOnly, err := os.Open(path)
		if err == nil {
			err = syscall.Dup3(int(readOnly.Fd()), fd, syscall.O_CLOEXEC)
		}
		if err != nil {
			t.Fatal(err)
		}
		readOnly.Close()
		return func() {
			if err := syscall.Dup3(kept, fd, syscall.O_CLOEXEC); err != nil {
				t.Error(err)
			}
			syscall.Close(kept)
		}
	}
	t.Fatalf("%s is not open", path)
	return nil
}

// TestAVoteThatCannotBeStoredEndsTheVoteStore: Raft, which would panic, waits until its group is closed; the node is told once, what is
// tried later fails, too, though the disk would take it, and nothing of it was stored.
func TestAVoteThatCannotBeStoredEndsTheVoteStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "votes.db")
	stable := openStable(t, path)
	var told atomic.Int64
	notice := make(chan error, 1)
	stable.OnFail(func(err error) { told.Add(1); notice <- err })
	running, other, starting := stable.Group("running"), stable.Group("other"), stable.Group("starting")
	if err := errors.Join(running.SetUint64([]byte("CurrentTerm"), 7), other.SetUint64([]byte("CurrentTerm"), 7)); err != nil {
		t.Fatal(err)
	}
	running.Serving()
	other.Serving()
	mend := breakFile(t, path)
	done := make(chan error)
	go func() { done <- running.SetUint64([]byte("CurrentTerm"), 8) }()
	select {
	case err := <-notice:
		t.Log(err)
	case err := <-done:
		t.Fatalf("Raft was told %v", err)
	}
	mend()
	if err := starting.MarkCreated(); err == nil {
		t.Error("a later write is believed")
	}
	if _, err := running.GetUint64([]byte("CurrentTerm")); err == nil {
		t.Error("what may not be stored is read")
	}
	go func() { done <- other.Set([]byte("LastVoteCand"), []byte("a")) }()
	select {
	case err := <-done:
		t.Fatalf("Raft was told %v", err)
	default:
	}
	running.Abandon()
	other.Abandon()
	for range 2 {
		if err := <-done; err != nil {
			t.Errorf("Raft, which is shut down, is told %v", err)
		}
	}
	if told.Load() != 1 {
		t.Errorf("the node was told %d times", told.Load())
	}
	if err := stable.Close(); err != nil {
		t.Error(err)
	}
	again := openStable(t, path)
	if term, err := again.Group("running").GetUint64([]byte("CurrentTerm")); err != nil || term != 7 {
		t.Errorf("stored is term %d, %v", term, err)
	}
}

// TestACatalogThatCannotBeStoredEndsItsLog: an error of the disk is none that passes. What cannot be read Raft, which would
// panic, waits for until the group is closed.
func TestACatalogThatCannotBeStoredEndsItsLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	log, err := OpenBolt(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 2)
	log.OnFail(func(err error) { told <- err })
	if err := log.StoreLog(&raft.Log{Index: 1, Term: 1}); err != nil {
		t.Fatal(err)
	}
	log.Serving()
	mend := breakFile(t, path)
	if err := log.StoreLog(&raft.Log{Index: 2, Term: 1}); err == nil {
		t.Fatal("it was stored")
	}
	mend()
	if err := log.StoreLog(&raft.Log{Index: 2, Term: 1}); err == nil {
		t.Error("a later write is believed")
	}
	if err := log.DeleteRange(1, 1); err == nil {
		t.Error("a later deletion is believed")
	}
	done := make(chan error)
	go func() { done <- log.GetLog(1, new(raft.Log)) }()
	select {
	case err := <-done:
		t.Fatalf("Raft was told %v", err)
	default:
	}
	log.Abandon()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := log.Close(); err != nil {
		t.Error(err)
	}
	if len(told) != 1 {
		t.Errorf("the node was told %d times", len(told))
	}
}

// TestAPageThatCannotBeReadIsAnError: bbolt reads by memory, where that is a fault which ends a process.
func TestAPageThatCannotBeReadIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "votes.db")
	stable := openStable(t, path)
	told := make(chan error, 2)
	stable.OnFail(func(err error) { told <- err })
	group := stable.Group("g")
	if err := group.SetUint64([]byte("CurrentTerm"), 7); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 0); err != nil { // what is mapped has no bytes any more
		t.Fatal(err)
	}
	if _, err := group.GetUint64([]byte("CurrentTerm")); err == nil || len(told) != 1 {
		t.Errorf("reading says %v, and the node was told %d times", err, len(told))
	}
	if err := group.MarkCreated(); err == nil {
		t.Error("a write is believed")
	}
}
