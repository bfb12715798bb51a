package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/election"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
	"github.com/trimaran-io/trimaran/outcome"
)

// A leader whose state machine is behind a follower's answers nothing, or what the follower's
// clients have seen.
func TestALeaderAnswersWhenItsStateMachineHasCaughtUp(t *testing.T) {
	inBubble(t, testALeaderAnswersWhenItsStateMachineHasCaughtUp)
}

func testALeaderAnswersWhenItsStateMachineHasCaughtUp(t *testing.T) {
	c := newTestCluster(t, 3)
	var held atomic.Int64 // the node that applies nothing, -1: none
	held.Store(-1)
	goOn := make(chan struct{})
	for i := range c.nodes {
		c.nodes[i].cfg.beforeApply = func(id fsm.PartitionID, _ uint64) {
			if held.Load() == int64(i) && id.Topic != fsm.GroupShardsID {
				<-goOn
			}
		}
	}
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	for range 10 {
		c.mustAppend(0, id, "v")
	}
	leader := c.leaderOf(id)
	held.Store(int64(leader))
	appended := make(chan error, 1)
	go func() {
		_, err := c.nodes[leader].Append(within(t), id, batchList{prototest.Batch("w")})
		appended <- err
	}()
	follower := c.nodes[(leader+1)%3].records(id)
	eventually(t, "a follower has it", func() error {
		if _, next := follower.Bounds(); next < 11 {
			return fmt.Errorf("it ends at %d", next)
		}
		return nil
	})
	asks := map[string]func(context.Context, *Node) (fsm.Offset, error){
		"ListOffsets": func(ctx context.Context, n *Node) (fsm.Offset, error) {
			offsets, err := n.ListOffsets(ctx, id, -1, 1)
			if err != nil {
				return 0, err
			}
			return offsets[0], nil
		},
		"Read": func(ctx context.Context, n *Node) (fsm.Offset, error) {
			slice, err := n.Read(ctx, id, 11, 1000, fsm.ReadUncommitted)
			if outcome.Code(err) == outcome.ErrOffsetOutOfRange {
				t.Errorf("offset 11 was seen, and is out of range: %v", err)
			}
			return slice.HighWatermark, err
		},
		"EpochEnd": func(ctx context.Context, n *Node) (fsm.Offset, error) {
			epoch, _ := n.LeaderEpoch(id)
			_, end, err := n.EpochEnd(ctx, id, epoch)
			return end, err
		},
	}
	for name, ask := range asks {
		for i, n := range c.nodes {
			ctx, cancel := context.WithTimeout(within(t), 200*time.Millisecond)
			if end, err := ask(ctx, n.Node); err == nil && end != 11 {
				t.Errorf("%s at node %d says %d, a follower has told 11", name, i+1, end)
			}
			cancel()
		}
	}
	close(goOn)
	if err := <-appended; err != nil {
		t.Fatal(err)
	}
	for name, ask := range asks {
		for i, n := range c.nodes {
			if end, err := ask(within(t), n.Node); err != nil || end != 11 {
				t.Errorf("%s at node %d says %d, %v", name, i+1, end, err)
			}
		}
	}
}

// What only Raft reads is waited for by nobody: a new leader's first entry, barriers, and what a
// snapshot stands for.
func TestReadsDoNotWaitForEntriesWithoutACommand(t *testing.T) {
	inBubble(t, testReadsDoNotWaitForEntriesWithoutACommand)
}

func testReadsDoNotWaitForEntriesWithoutACommand(t *testing.T) {
	c := newTestCluster(t, 3)
	small(c, map[string]string{"segment.bytes": "20000"})
	c.startAll()
	topic := c.topic("a", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	c.fill(0, id, "v", 60)
	wantEnd := func() {
		t.Helper()
		eventually(t, "the end is told", func() error {
			offsets, err := c.any().ListOffsets(within(t), id, -1, 1)
			if err == nil && offsets[0] != 60 {
				t.Fatalf("the log ends at %d", offsets[0])
			}
			return err
		})
	}
	for range 3 {
		n := c.nodes[c.leaderOf(id)]
		if err := n.replica(id).Member.Raft.Barrier(0).Error(); err != nil && !errors.Is(err, raft.ErrLeadershipLost) {
			t.Fatal(err)
		}
		wantEnd()
		_ = n.handOver(n.replica(id).Member)
		wantEnd()
	}
	for i := range c.nodes {
		c.kill(i)
	}
	c.startAll()
	wantEnd()
}

// The catalog here does not go back to a snapshot that it is beyond, which a leader may offer late
// or twice.
func TestTheCatalogTakesNoSnapshotThatItIsBeyond(t *testing.T) {
	inBubble(t, testTheCatalogTakesNoSnapshotThatItIsBeyond)
}

func testTheCatalogTakesNoSnapshotThatItIsBeyond(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.topic("a", 1, 3)
	leader := -1
	for i, n := range c.nodes {
		if n.catalog.Member().Raft.State() == raft.Leader {
			leader = i
		}
	}
	if leader < 0 {
		t.Fatal("the catalog has no leader")
	}
	from, to := c.nodes[leader], c.nodes[(leader+1)%3]
	g, behind := from.catalog.Member(), to.catalog.Member()
	eventually(t, "the follower is there", func() error {
		if behind.Raft.AppliedIndex() < g.Raft.AppliedIndex() {
			return errors.New("behind")
		}
		return nil
	})
	var resp raft.InstallSnapshotResponse
	err := g.Transport.(*election.Member).InstallSnapshot(raft.ServerID(to.identity), raft.ServerAddress(to.identity), &raft.InstallSnapshotRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(from.identity), Addr: []byte(from.identity)},
		Term:      g.Raft.CurrentTerm(), LastLogIndex: 1, LastLogTerm: 1, SnapshotVersion: 1, Configuration: raft.EncodeConfiguration(raft.Configuration{}),
	}, &resp, nil)
	if err != nil || !resp.Success {
		t.Errorf("%+v, %v", resp, err)
	}
	if servers := behind.Raft.GetConfiguration().Configuration().Servers; len(servers) != 3 {
		t.Errorf("it knows %d members", len(servers))
	}
}

// TestALeaderProposesNothingBeforeItsBarrier: a new leader whose state machine is behind does not
// know the next offset, and what it stamps with another one is void.
func TestALeaderProposesNothingBeforeItsBarrier(t *testing.T) {
	inBubble(t, testALeaderProposesNothingBeforeItsBarrier)
}

func testALeaderProposesNothingBeforeItsBarrier(t *testing.T) {
	c := newTestCluster(t, 3)
	var held atomic.Int64 // the node that applies nothing, -1: none
	held.Store(-1)
	goOn := make(chan struct{})
	for i := range c.nodes {
		c.nodes[i].cfg.NoAutoBalance = true
		c.nodes[i].cfg.beforeApply = func(id fsm.PartitionID, _ uint64) {
			if held.Load() == int64(i) && id.Topic != fsm.GroupShardsID {
				<-goOn
			}
		}
	}
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	c.mustAppend(0, id, "v")
	leader := c.leaderOf(id)
	next := (leader + 1) % 3
	c.everywhere(id, 1)
	held.Store(int64(next))
	for range 10 {
		c.mustAppend(leader, id, "v")
	}
	eventually(t, "the one that is behind leads its group", func() error {
		r := c.nodes[next].records(id).Member.Raft
		if r.State() == raft.Leader {
			return nil
		}
		to := c.nodes[next].identity
		c.nodes[leader].records(id).Member.Raft.LeadershipTransferToServer(raft.ServerID(to), raft.ServerAddress(to))
		return errors.New("not yet")
	})
	answer := make(chan error, 1)
	go func() {
		_, err := c.nodes[next].records(id).Append(within(t), 0, batchList{prototest.Batch("w")})
		answer <- err
	}()
	time.Sleep(time.Second) // virtual
	close(goOn)
	if err := <-answer; outcome.Code(err) == outcome.ErrVoid {
		t.Errorf("it was proposed at an offset that was taken: %v", err)
	}
	if at := c.mustAppend(next, id, "x"); at < 11 {
		t.Errorf("appended at %d, where something else is", at)
	}
}
