package raftgroup

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

type emptyMachine struct{}

func (emptyMachine) Apply(*raft.Log) any                 { return nil }
func (emptyMachine) Snapshot() (raft.FSMSnapshot, error) { return SnapshotBytes(nil), nil }
func (emptyMachine) Restore(io.ReadCloser) error         { return nil }

type nowhere struct{ *raft.InmemTransport }

func (nowhere) Confirm(context.Context) (uint64, error) { return 0, errors.New("nobody is there") }
func (nowhere) Ahead([]*raft.Log)                       {}

type inMemory struct{ *raft.InmemStore }

func (inMemory) Scan(uint64, func(*raft.Log) bool) error { return nil }
func (inMemory) Close() error                            { return nil }

// later is a log in which something happens when Raft first looks at it: not when Open does.
type later struct {
	inMemory
	looked *atomic.Int64
	then   func()
}

func (l later) LastIndex() (uint64, error) {
	if l.looked.Add(1) == 3 { // Open looks, and who forms the group
		l.then()
	}
	return l.inMemory.LastIndex()
}

// TestAMemberIsLetGoOfWhileItStarts: Raft stores its term while it starts and panics if that fails,
// so it is held there when the disk has just failed; when its node ends, that ends, too.
func TestAMemberIsLetGoOfWhileItStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fails atomic.Bool
		disk := vfs.Failing{FS: vfs.NewMem(), Fail: func(op, _ string) error {
			if op == "sync" && fails.Load() {
				return errors.New("the disk has failed")
			}
			return nil
		}}
		votes, err := raftlog.OpenStable("/votes", raftlog.Options{FS: disk})
		if err != nil {
			t.Fatal(err)
		}
		ends, end := context.WithCancel(t.Context())
		opened, closed := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(closed)
			_, transport := raft.NewInmemTransport("n1")
			m, err := Open(Options{
				Name: "g", Machine: emptyMachine{}, Transport: nowhere{transport}, Stable: votes.Group("g"),
				Voters: []string{"n1"}, Ends: ends,
				Config: Config("n1", time.Second, 50*time.Millisecond, 100, hclog.NewNullLogger()),
				Files: func(bool) (Files, error) {
					log := later{inMemory{raft.NewInmemStore()}, new(atomic.Int64), func() {
						fails.Store(true)
						if votes.Group("other").MarkCreated() == nil {
							t.Error("the disk has not failed")
						}
					}}
					return Files{Log: log, Snapshots: raft.NewInmemSnapshotStore(), Serving: func() {}}, nil
				},
			})
			close(opened)
			if err == nil {
				m.End()
				m.Close()
			}
		}()
		synctest.Wait()
		select {
		case <-opened:
			t.Error("Raft was not held where the disk had failed")
		default:
		}
		end()
		<-closed
		votes.Close()
	})
}

// full is a log that takes nothing.
type full struct{ inMemory }

func (full) StoreLog(*raft.Log) error { return errors.New("no room") }

// TestAMemberIsFormedAfterItWasCutShort: the term is stored and the configuration is not.
func TestAMemberIsFormedAfterItWasCutShort(t *testing.T) {
	votes, err := raftlog.OpenStable("/votes", raftlog.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer votes.Close()
	open := func(log raftlog.Log) (*Member, error) {
		_, transport := raft.NewInmemTransport("n1")
		return Open(Options{
			Name: "g", Machine: emptyMachine{}, Transport: nowhere{transport}, Stable: votes.Group("g"),
			Voters: []string{"n1"}, Ends: t.Context(),
			Config: Config("n1", time.Second, 50*time.Millisecond, 100, hclog.NewNullLogger()),
			Files: func(bool) (Files, error) {
				return Files{Log: log, Snapshots: raft.NewInmemSnapshotStore(), Serving: func() {}}, nil
			},
		})
	}
	if _, err := open(full{inMemory{raft.NewInmemStore()}}); err == nil {
		t.Fatal("it is formed without a configuration")
	}
	if term, err := votes.Group("g").GetUint64([]byte("CurrentTerm")); term != 1 || err != nil {
		t.Fatalf("the term is %d, %v: this is not where it is to be cut short", term, err)
	}
	m, err := open(inMemory{raft.NewInmemStore()})
	if err != nil {
		t.Fatal(err)
	}
	m.End()
	m.Close()

	// Who has voted in that term has met others: something else was lost.
	voted := votes.Group("other")
	if err := errors.Join(voted.SetUint64([]byte("LastVoteTerm"), 1), voted.Set([]byte("LastVoteCand"), []byte("n2")), voted.SetUint64([]byte("CurrentTerm"), 1)); err != nil {
		t.Fatal(err)
	}
	if term, err := (unformed{voted}).GetUint64([]byte("CurrentTerm")); term != 1 || err != nil {
		t.Errorf("a member that has voted is taken for one that never was: term %d, %v", term, err)
	}
}
