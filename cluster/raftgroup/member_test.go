package raftgroup

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// slowMachine applies when it is let.
type slowMachine struct{ let chan struct{} }

func (m slowMachine) Apply(*raft.Log) any                 { <-m.let; return nil }
func (m slowMachine) Snapshot() (raft.FSMSnapshot, error) { return SnapshotBytes(nil), nil }
func (m slowMachine) Restore(io.ReadCloser) error         { return nil }

// TestNothingWaitsForRaftForEver: what was committed and not yet applied when Raft is shut down has
// no answer from it.
func TestNothingWaitsForRaftForEver(t *testing.T) {
	t.Parallel()
	config := raft.DefaultConfig()
	config.LocalID, config.Logger = "n1", hclog.NewNullLogger()
	config.HeartbeatTimeout, config.ElectionTimeout, config.LeaderLeaseTimeout = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	config.BatchApplyCh = false
	logs, machine := raft.NewInmemStore(), slowMachine{make(chan struct{})}
	addr, transport := raft.NewInmemTransport("")
	servers := raft.Configuration{Servers: []raft.Server{{ID: "n1", Address: addr}}}
	if err := raft.BootstrapCluster(config, logs, logs, raft.NewInmemSnapshotStore(), transport, servers); err != nil {
		t.Fatal(err)
	}
	r, err := raft.NewRaft(config, machine, logs, logs, raft.NewInmemSnapshotStore(), transport)
	if err != nil {
		t.Fatal(err)
	}
	g := &Member{Raft: r, appends: &timedLog{LogStore: logs}, stopped: make(chan struct{})}
	<-r.LeaderCh()
	const count = 40
	answers := make(chan error, count)
	for range count {
		future := r.Apply([]byte("x"), 0)
		go func() { answers <- g.Await(future) }()
	}
	stopped := r.Shutdown()
	close(machine.let)
	if err := stopped.Error(); err != nil {
		t.Fatal(err)
	}
	close(g.stopped)
	without := 0
	for range count {
		select {
		case err := <-answers:
			if errors.Is(err, raft.ErrRaftShutdown) {
				without++
			}
		case <-time.After(time.Minute):
			t.Fatal("somebody waits for an answer that will not come")
		}
	}
	t.Logf("%d of %d were not applied any more", without, count)
}
