package raftgroup

import (
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// asked is a log that counts how often its oldest entry is asked for.
type asked struct {
	inMemory
	times *atomic.Int64
}

func (a asked) FirstIndex() (uint64, error) {
	a.times.Add(1)
	return a.inMemory.FirstIndex()
}

// TestALeaderIsNotAskedForItsOldestEntry: Raft's goroutine that asks every 10 s waits for as long
// as the leadership lasts, and no longer.
func TestALeaderIsNotAskedForItsOldestEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		votes, err := raftlog.OpenStable("/votes", raftlog.Options{FS: vfs.NewMem()})
		if err != nil {
			t.Fatal(err)
		}
		defer votes.Close()
		log := asked{inMemory{raft.NewInmemStore()}, new(atomic.Int64)}
		addr, transport := raft.NewInmemTransport("n1")
		m, err := Open(Options{
			Name: "g", Machine: emptyMachine{}, Transport: nowhere{transport}, Stable: votes.Group("g"),
			Voters: []string{"n1"}, Ends: t.Context(),
			Config: Config("n1", time.Second, 50*time.Millisecond, 100, hclog.NewNullLogger()),
			Files: func(bool) (Files, error) {
				return Files{Log: log, Snapshots: raft.NewInmemSnapshotStore(), Serving: func() {}}, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close() // and the goroutine ends: the bubble waits for it
		leads := func() {
			t.Helper()
			time.Sleep(time.Minute)
			if state := m.Raft.State(); state != raft.Leader {
				t.Fatal(state)
			}
			if n := gauges(); n != 1 {
				t.Errorf("%d goroutines ask for the oldest entry of one leader", n)
			}
		}
		leads()
		before := log.times.Load()
		time.Sleep(time.Hour)
		if n := log.times.Load() - before; n > 0 {
			t.Errorf("asked %d times in an hour", n)
		}
		// Who removes what is below a snapshot has its answer.
		if first, err := m.appends.FirstIndex(); first != 1 || err != nil {
			t.Errorf("the log begins with entry %d, %v", first, err)
		}

		_, other := raft.NewInmemTransport("n2")
		other.Connect(addr, transport)
		request := raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("n2"), Addr: []byte("n2")}, Term: m.Raft.CurrentTerm() + 5}
		if err := other.AppendEntries("n1", addr, &request, new(raft.AppendEntriesResponse)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := gauges(); m.Raft.State() != raft.Follower || n > 0 {
			t.Errorf("a %v has %d goroutines that ask for its oldest entry", m.Raft.State(), n)
		}
		leads()
	})
}

// gauges is how many goroutines run hashicorp/raft's gauge.
func gauges() int {
	stacks := make([]byte, 1<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), raftPackage+"emitLogStoreMetrics(")
}
