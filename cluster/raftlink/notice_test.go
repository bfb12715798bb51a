package raftlink_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link/peertest"
)

// says is a Host for which one other node speaks.
type says struct {
	gone     atomic.Bool
	instance atomic.Uint64
}

func (s *says) Gone(string) bool                               { return s.gone.Load() }
func (s *says) Instance(string, uint64, string, uint64) uint64 { return s.instance.Load() }

// TestWhatWasAgreedToIsNotRepeated: an empty AppendEntries is left out as long as the host says
// that the follower is the one that agreed to the same.
func TestWhatWasAgreedToIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		host := &says{}
		a := hostedOn(t, n, "a", host)
		b := linkOn(t, n, "b")
		defer closeAll(a, b)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go serve(ctx, b.Transport("g"), accept)
		p, err := a.Transport("g").AppendEntriesPipeline("b", "b")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = p.Close() }()
		send := func(prev uint64, logs []*raft.Log) (sent bool) {
			t.Helper()
			before := a.rafts.Stats().Out
			req := &raft.AppendEntriesRequest{Term: 1, PrevLogEntry: prev, PrevLogTerm: min(prev, 1), Entries: logs, LeaderCommitIndex: prev}
			if _, err := p.AppendEntries(req, new(raft.AppendEntriesResponse)); err != nil {
				t.Fatal(err)
			}
			if sent = a.rafts.Stats().Out > before; sent {
				<-p.Consumer()
			}
			return sent
		}
		host.instance.Store(7)
		send(0, entries(1, 1, 10))
		if !send(1, nil) {
			t.Error("what was never said is left out")
		}
		if send(1, nil) {
			t.Error("what was agreed to is said again")
		}
		if !send(0, nil) {
			t.Error("something else is left out")
		}
		send(1, nil)
		host.instance.Store(8) // closed, and opened anew
		if !send(1, nil) {
			t.Error("what another has agreed to is left out")
		}
		host.instance.Store(0) // says nothing
		if !send(1, nil) {
			t.Error("it is left out for a follower that says nothing")
		}
		if s := a.rafts.Stats(); s.Swallowed != 1 {
			t.Errorf("%d were left out", s.Swallowed)
		}
	})
}

// TestWhoIsGoneIsWaitedFor: a request to a node that is gone waits for it, and goes out when it is
// back.
func TestWhoIsGoneIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		host := &says{}
		a := hostedOn(t, n, "a", host)
		defer closeAll(a)
		host.gone.Store(true)
		ended := make(chan error, 1)
		go func() {
			req := &raft.AppendEntriesRequest{Term: 1, Entries: entries(1, 1, 10)}
			ended <- a.Transport("g").AppendEntries("b", "b", req, new(raft.AppendEntriesResponse))
		}()
		time.Sleep(5 * time.Second)
		select {
		case err := <-ended:
			t.Fatalf("it did not wait: %v", err)
		default:
		}
		b := linkOn(t, n, "b")
		defer closeAll(b)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go serve(ctx, b.Transport("g"), accept)
		a.Peer("b").Dial()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if s := a.rafts.Stats(); s.Parked != 1 {
			t.Errorf("%d were parked", s.Parked)
		}
	})
}

// TestANoticeComesUntilTheFollowerIsTold what it has last is committed, also where the one before
// is on its way when it is committed. Then nothing is looked at any more, and nothing while there
// is no pipeline.
func TestANoticeComesUntilTheFollowerIsTold(t *testing.T) {
	testAhead(t, func(x *aheadTest) {
		x.ask(1, 1, entries(1, 2, 10)...)
		<-x.p.Consumer()
		gate := make(chan struct{})
		x.mu.Lock()
		x.gate, x.got = gate, nil
		x.mu.Unlock()
		said := func() (commits []uint64) {
			x.mu.Lock()
			defer x.mu.Unlock()
			for _, req := range x.got {
				commits = append(commits, req.LeaderCommitIndex)
			}
			return commits
		}
		x.raft.set(raft.Leader, 1, 1)
		time.Sleep(time.Second)
		x.raft.set(raft.Leader, 1, 2)
		time.Sleep(time.Second)
		if got := said(); !slices.Equal(got, []uint64{1}) {
			t.Fatalf("told of %d, and it has not answered the first", got)
		}
		close(gate)
		time.Sleep(2 * time.Second)
		if got := said(); !slices.Equal(got, []uint64{1, 2}) {
			t.Errorf("told of %d", got)
		}
		x.raft.asked()
		time.Sleep(time.Hour)
		if n := x.raft.asked(); n > 0 {
			t.Errorf("looked at %d times in an hour, and it is told", n)
		}
		x.ask(1, 2, entries(1, 3, 10)...)
		<-x.p.Consumer()
		time.Sleep(10 * time.Second)
		x.raft.asked()
		time.Sleep(128 * time.Second)
		if n := x.raft.asked(); n < 99 || n > 101 {
			t.Errorf("looked at %d times in 128 s, and it is not committed", n)
		}
		if err := x.p.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if n := x.raft.asked(); n > 0 {
			t.Errorf("looked at %d times, and there is no pipeline", n)
		}
	})
}
