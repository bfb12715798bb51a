package replica

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
)

// The catalog says which replicas are here: one runs when its topic is created, and its files go
// with the topic. A catalog that may be old forms nothing and deletes nothing.
func TestASetHasWhatTheCatalogSays(t *testing.T) {
	t.Parallel()
	s := newTestSet(t, nil)
	id := s.topic("a", nil)
	s.Reconcile(s.host.Topics(), false)
	if n := s.Count(); n != 0 {
		t.Fatalf("%d replicas were formed by a catalog that may be old", n)
	}
	r := s.led(id)
	appended, err := r.Append(within(t), 0, []kafkaproto.Batch{prototest.Batch("x")})
	if err != nil || appended[0].BaseOffset != 0 {
		t.Fatalf("%+v, %v", appended, err)
	}
	if slice, ok, err := r.ReadHere(0, 1<<20, fsm.ReadUncommitted); err != nil || !ok || !bytes.Contains(slice.Batches, []byte("x")) {
		t.Errorf("%+v, %v, %v", slice, ok, err)
	}
	if len(s.host.opened) != 1 || s.host.opened[0] != id {
		t.Errorf("the host was told of %v", s.host.opened)
	}
	s.apply(fsm.CatalogCommand{DeleteTopic: &fsm.DeleteTopic{Name: "a"}})
	s.Reconcile(s.host.Topics(), false)
	if s.Replica(id) == nil {
		t.Error("a catalog that may be old has closed a replica")
	}
	s.reconcile()
	if _, err := os.Stat(s.env.dirOf(id)); s.Replica(id) != nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("deleted: runs %v, files %v", s.Replica(id) != nil, err)
	}
}

// A replica whose log is damaged is closed, leaves its group by the word of another leader, and
// comes back with nothing. Without that word it stays as it is.
func TestADamagedReplicaLeavesItsGroupFirst(t *testing.T) {
	t.Parallel()
	s := newTestSet(t, nil)
	id := s.topic("a", nil)
	r := s.led(id)
	if _, err := r.Append(within(t), 0, []kafkaproto.Batch{prototest.Batch("x")}); err != nil {
		t.Fatal(err)
	}
	s.Damaged(r.Replica, fmt.Errorf("%w: by the test", raftlog.ErrDamaged))
	if s.host.woken.Load() == 0 {
		t.Error("nobody is to look at it")
	}
	eventually(t, "it stays out", func() error {
		s.reconcile()
		if err := s.WhyBroken(id); err == nil || !strings.Contains(err.Error(), "needed to rebuild") {
			return fmt.Errorf("%v", err)
		}
		return nil
	})
	if _, err := os.Stat(s.env.dirOf(id)); err != nil {
		t.Errorf("its files: %v", err)
	}
	s.host.mu.Lock()
	s.host.leave = func(fsm.PartitionID) (uint64, string, error) { return 100, "n2.bbbbbbbb", nil }
	s.host.mu.Unlock()
	eventually(t, "it begins anew", func() error {
		s.mu.Lock()
		delete(s.rebuilt, id) // or it would be tried once in some seconds
		s.mu.Unlock()
		s.reconcile()
		if r := s.Replica(id); r == nil {
			return errors.New("it does not run")
		}
		return nil
	})
	if now := s.Replica(id); len(now.Member.Voters()) > 0 || now.Member.Raft.CurrentTerm() < 100 {
		t.Errorf("it has voters %v in term %d: it was to forget who votes, and not in which term it did", now.Member.Voters(), now.Member.Raft.CurrentTerm())
	}
}

// Something damaged that Raft does not need closes nothing while the others cannot do without the
// replica, and is forgotten when retention lets go of it.
func TestAHurtReplicaServesOn(t *testing.T) {
	t.Parallel()
	s := newTestSet(t, nil)
	id := s.topic("a", nil)
	r := s.led(id)
	for range 3 {
		if _, err := r.Append(within(t), 0, []kafkaproto.Batch{prototest.Batch("x")}); err != nil {
			t.Fatal(err)
		}
	}
	s.ReadFailed(r.Replica, errors.New("too many open files"), 1)
	if _, hurt := s.Troubles(); len(hurt) > 0 {
		t.Errorf("no damage is taken for some: %v", hurt)
	}
	s.ReadFailed(r.Replica, fmt.Errorf("%w: by the test", raftlog.ErrDamaged), 1)
	s.reconcile()
	if broken, hurt := s.Troubles(); len(broken) > 0 || hurt[id] == nil || s.Replica(id) != r.Replica {
		t.Fatalf("broken %v, hurt %v, runs %v", broken, hurt, s.Replica(id) == r.Replica)
	}
	if start, err := r.DeleteRecords(within(t), 2); err != nil || start != 2 {
		t.Fatal(start, err)
	}
	s.reconcile()
	if _, hurt := s.Troubles(); len(hurt) > 0 {
		t.Errorf("it is gone and still known: %v", hurt)
	}
}

// An index is written while entries are applied. A disk that takes its time for it keeps nobody
// waiting who asks where the log ends or who leads.
func TestNobodyWaitsForAnIndex(t *testing.T) {
	t.Parallel()
	var hang atomic.Bool
	hangs, goOn := make(chan struct{}), make(chan struct{})
	s := newTestSet(t, vfs.Failing{FS: vfs.OS, Fail: func(op, name string) error {
		if op == "write" && strings.HasSuffix(name, ".idx") && hang.CompareAndSwap(true, false) {
			close(hangs)
			<-goOn
		}
		return nil
	}})
	r := s.led(s.topic("a", nil))
	hang.Store(true)
	go func() {
		value := bytes.Repeat([]byte("x"), 100<<10)
		for {
			select {
			case <-hangs:
				return
			default:
				if _, err := r.Append(t.Context(), 0, []kafkaproto.Batch{prototest.Batch(string(value))}); err != nil {
					return
				}
			}
		}
	}()
	select {
	case <-hangs:
	case <-within(t).Done():
		t.Fatal("no index was written")
	}
	done := make(chan error, 1)
	go func() {
		_, next := r.Bounds()
		if _, err := r.Leads(); err != nil {
			done <- err
			return
		}
		r.Leader()
		r.WasLed()
		r.Producer(1)
		done <- r.await(t.Context(), next-1, fsm.ReadUncommitted)
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-within(t).Done():
		t.Error("who asks the replica waits for its disk")
	}
	close(goOn)
}
