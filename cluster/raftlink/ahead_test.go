package raftlink_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link/peertest"
	"github.com/trimaran-io/trimaran/cluster/raftlink"
)

// leads is a Raft that leads in term 1, or what a test makes of it.
type leads struct {
	mu     sync.Mutex
	state  raft.RaftState
	term   uint64
	commit uint64
	looks  int // how often it was asked what is committed
}

func (l *leads) set(state raft.RaftState, term, commit uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state, l.term, l.commit = state, term, commit
}

func (l *leads) State() raft.RaftState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

func (l *leads) CurrentTerm() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.term
}

func (l *leads) CommitIndex() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looks++
	return l.commit
}

// asked gives how often it was asked what is committed, since asked was called before.
func (l *leads) asked() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, l.looks = l.looks, 0
	return n
}

func (l *leads) LastIndex() uint64                                 { return l.CommitIndex() }
func (l *leads) LeaderWithID() (raft.ServerAddress, raft.ServerID) { return "a", "a" }
func (l *leads) GetConfiguration() raft.ConfigurationFuture        { return nil }
func (l *leads) Barrier(time.Duration) raft.Future                 { return nil }

// aheadTest is a leader's pipeline to one follower, whose Raft took entry 1 on it.
type aheadTest struct {
	*testing.T
	a     node
	group *raftlink.Transport
	raft  *leads
	p     raft.AppendPipeline
	host  *says

	mu   sync.Mutex
	got  []*raft.AppendEntriesRequest
	gate chan struct{} // an element for each answer, once it is not nil
	say  func(raft.RPC)
}

func testAhead(t *testing.T, test func(*aheadTest)) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		x := &aheadTest{T: t, host: &says{}, raft: &leads{state: raft.Leader, term: 1}, say: accept}
		x.a = hostedOn(t, n, "a", x.host)
		b := linkOn(t, n, "b")
		defer closeAll(x.a, b)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go serve(ctx, b.Transport("g"), func(r raft.RPC) {
			x.mu.Lock()
			x.got = append(x.got, r.Command.(*raft.AppendEntriesRequest))
			gate, say := x.gate, x.say
			x.mu.Unlock()
			if gate != nil {
				select {
				case <-gate:
				case <-ctx.Done():
					return
				}
			}
			say(r)
		})
		x.group = x.a.rafts.Open("g", nil)
		x.group.Attach(x.raft)
		var err error
		if x.p, err = x.group.AppendEntriesPipeline("b", "b"); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = x.p.Close() }()
		x.ask(1, 0, entries(1, 1, 10)...)
		<-x.p.Consumer()
		test(x)
	})
}

// ask is what Raft does when it has stored entries, or has nothing new.
func (x *aheadTest) ask(term, prev uint64, logs ...*raft.Log) *raft.AppendEntriesRequest {
	x.Helper()
	return x.askFor(&raft.AppendEntriesRequest{Term: term, PrevLogEntry: prev, PrevLogTerm: min(prev, 1), Entries: logs, LeaderCommitIndex: x.raft.CommitIndex()})
}

func (x *aheadTest) askFor(req *raft.AppendEntriesRequest) *raft.AppendEntriesRequest {
	x.Helper()
	if _, err := x.p.AppendEntries(req, new(raft.AppendEntriesResponse)); err != nil {
		x.Fatal(err)
	}
	synctest.Wait()
	return req
}

// ahead is what Raft does just before it stores entries.
func (x *aheadTest) ahead(logs ...*raft.Log) {
	began := time.Now()
	x.group.Ahead(logs)
	if time.Since(began) > 0 {
		x.Error("it waited")
	}
	synctest.Wait()
}

// hold keeps answers back until answer is called.
func (x *aheadTest) hold() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.gate = make(chan struct{})
}

func (x *aheadTest) answer() {
	x.gate <- struct{}{}
	synctest.Wait()
}

// came gives what the follower got since it was asked last.
func (x *aheadTest) came() []*raft.AppendEntriesRequest {
	x.mu.Lock()
	defer x.mu.Unlock()
	got := x.got
	x.got = nil
	return got
}

// told gives the future that Raft is given now; nil: none.
func (x *aheadTest) told() raft.AppendFuture {
	select {
	case f := <-x.p.Consumer():
		return f
	default:
		return nil
	}
}

// wantTold expects that Raft is told a yes to just that request, and no more.
func (x *aheadTest) wantTold(req *raft.AppendEntriesRequest) {
	x.Helper()
	f := x.told()
	switch {
	case f == nil:
		x.Error("Raft is told nothing")
	case f.Request() != req || !f.Response().Success || f.Error() != nil:
		x.Errorf("Raft is told %+v of %+v, %v", f.Response(), f.Request(), f.Error())
	}
	if f := x.told(); f != nil {
		x.Errorf("and of %+v", f.Request())
	}
}

// TestRaftGetsTheAnswerToWhatWasSentAhead: what is sent ahead is what Raft would send; it is not
// sent again, and Raft hears of the answer when it has asked, not before.
func TestRaftGetsTheAnswerToWhatWasSentAhead(t *testing.T) {
	for _, early := range []bool{true, false} {
		testAhead(t, func(x *aheadTest) {
			x.came()
			x.raft.set(raft.Leader, 1, 1)
			if !early {
				x.hold()
			}
			x.ahead(entries(2, 2, 10)...)
			got := x.came()
			if len(got) != 1 || got[0].Term != 1 || got[0].PrevLogEntry != 1 || got[0].PrevLogTerm != 1 || len(got[0].Entries) != 2 || got[0].Entries[1].Index != 3 || got[0].LeaderCommitIndex != 1 {
				t.Fatalf("sent ahead: %+v", got)
			}
			if f := x.told(); f != nil {
				t.Fatal("Raft is told of what it does not have yet")
			}
			req := x.ask(1, 1, entries(2, 2, 10)...)
			if !early {
				if x.told() != nil {
					t.Error("Raft is told of an answer before it is there")
				}
				x.answer()
			}
			x.wantTold(req)
			if more := x.came(); len(more) > 0 {
				t.Errorf("sent again: %+v", more[0])
			}
			if s := x.a.rafts.Stats(); s.Ahead != 1 || s.AheadUsed != 1 {
				t.Errorf("%d ahead, %d used", s.Ahead, s.AheadUsed)
			}
		})
	}
}

// TestOnlyWhatRaftAsksForCounts: where Raft's request is another one than what was sent ahead, it
// is sent.
func TestOnlyWhatRaftAsksForCounts(t *testing.T) {
	of := func(term uint64, logs []*raft.Log) []*raft.Log {
		for _, l := range logs {
			l.Term = term
		}
		return logs
	}
	for what, c := range map[string]struct {
		req   raft.AppendEntriesRequest
		after time.Duration
	}{
		"another term":           {req: raft.AppendEntriesRequest{Term: 2, PrevLogEntry: 1, PrevLogTerm: 1, Entries: entries(2, 2, 10)}},
		"from another entry":     {req: raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 0, PrevLogTerm: 0, Entries: entries(1, 3, 10)}},
		"behind an entry":        {req: raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 1, PrevLogTerm: 0, Entries: entries(2, 2, 10)}},
		"fewer entries":          {req: raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 1, PrevLogTerm: 1, Entries: entries(2, 1, 10)}},
		"entries of another":     {req: raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 1, PrevLogTerm: 1, Entries: of(3, entries(2, 2, 10))}},
		"other entries":          {req: raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 1, PrevLogTerm: 1, Entries: entries(3, 2, 10)}},
		"an answer that was old": {req: raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 1, PrevLogTerm: 1, Entries: entries(2, 2, 10)}, after: time.Second},
	} {
		t.Run(what, func(t *testing.T) {
			testAhead(t, func(x *aheadTest) {
				x.ahead(entries(2, 2, 10)...)
				x.came()
				time.Sleep(c.after)
				x.came() // notices of a commit
				req := x.askFor(&c.req)
				if got := x.came(); len(got) != 1 || got[0].Term != req.Term || got[0].PrevLogEntry != req.PrevLogEntry || got[0].PrevLogTerm != req.PrevLogTerm || len(got[0].Entries) != len(req.Entries) {
					t.Errorf("sent: %+v", got)
				}
				x.wantTold(req)
				if s := x.a.rafts.Stats(); s.Ahead != 1 || s.AheadUsed != 0 {
					t.Errorf("%d ahead, %d used", s.Ahead, s.AheadUsed)
				}
			})
		})
	}
}

// TestOnlyALeadersNextEntriesGoAhead: everything else waits for Raft.
func TestOnlyALeadersNextEntriesGoAhead(t *testing.T) {
	kind := func(k raft.LogType) []*raft.Log {
		logs := entries(2, 2, 10)
		logs[1].Type = k
		return logs
	}
	for what, c := range map[string]struct {
		state raft.RaftState
		term  uint64
		logs  []*raft.Log
	}{
		"a follower's":        {raft.Follower, 1, entries(2, 1, 10)},
		"a candidate's":       {raft.Candidate, 1, entries(2, 1, 10)},
		"of an older term":    {raft.Leader, 2, entries(2, 1, 10)},
		"a configuration":     {raft.Leader, 1, kind(raft.LogConfiguration)},
		"a barrier":           {raft.Leader, 1, kind(raft.LogBarrier)},
		"with a gap":          {raft.Leader, 1, entries(3, 1, 10)},
		"what was sent":       {raft.Leader, 1, entries(1, 1, 10)},
		"nothing":             {raft.Leader, 1, nil},
		"more than a message": {raft.Leader, 1, entries(2, 2, 3<<20)},
	} {
		t.Run(what, func(t *testing.T) {
			testAhead(t, func(x *aheadTest) {
				x.came()
				x.raft.set(c.state, c.term, 0)
				x.ahead(c.logs...)
				if got := x.came(); len(got) > 0 {
					t.Errorf("sent: %+v", got[0])
				}
			})
		})
	}
	t.Run("before Raft has sent anything", func(t *testing.T) {
		testAhead(t, func(x *aheadTest) {
			p, err := x.group.AppendEntriesPipeline("b", "b")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = p.Close() }()
			x.came()
			x.ahead(entries(2, 1, 10)...)
			if got := x.came(); len(got) > 0 {
				t.Errorf("sent: %+v", got[0])
			}
		})
	})
}

// TestRaftAsksForSeveralAtOnce: what was sent ahead in several requests, or in part, is asked for
// in one.
func TestRaftAsksForSeveralAtOnce(t *testing.T) {
	testAhead(t, func(x *aheadTest) {
		x.ahead(entries(2, 1, 10)...)
		x.ahead(entries(3, 2, 10)...)
		x.came()
		req := x.ask(1, 1, entries(2, 3, 10)...)
		x.wantTold(req)
		if got := x.came(); len(got) > 0 {
			t.Errorf("sent again: %+v", got[0])
		}

		x.hold()
		x.ahead(entries(5, 1, 10)...)
		x.came()
		req = x.ask(1, 4, entries(5, 3, 10)...)
		x.answer()
		if got := x.came(); len(got) != 1 || got[0].PrevLogEntry != 5 || got[0].PrevLogTerm != 1 || len(got[0].Entries) != 2 {
			t.Errorf("sent for the rest: %+v", got)
		}
		if x.told() != nil {
			t.Error("Raft is told before all is answered")
		}
		x.answer()
		x.wantTold(req)
	})
}

// TestARefusalIsToldAtOnce: that the follower is in a newer term concerns Raft whether it has asked
// or not. The pipeline has ended then.
func TestARefusalIsToldAtOnce(t *testing.T) {
	testAhead(t, func(x *aheadTest) {
		x.mu.Lock()
		x.say = func(r raft.RPC) { r.Respond(&raft.AppendEntriesResponse{Term: 9}, nil) }
		x.mu.Unlock()
		x.ahead(entries(2, 1, 10)...)
		f := x.told()
		if f == nil || f.Response().Success || f.Response().Term != 9 || f.Request().Term != 1 {
			t.Errorf("Raft is told %+v", f)
		}
		if _, err := x.p.AppendEntries(&raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 1, PrevLogTerm: 1, Entries: entries(2, 1, 10)}, new(raft.AppendEntriesResponse)); err == nil {
			t.Error("the pipeline goes on")
		}
	})
}

// TestNothingGoesAheadOfWhatIsFull: who stores waits for no follower. What it could not send Raft
// sends.
func TestNothingGoesAheadOfWhatIsFull(t *testing.T) {
	testAhead(t, func(x *aheadTest) {
		x.hold()
		for i := range 4 {
			x.ahead(entries(2+i, 1, 10)...)
		}
		if s := x.a.rafts.Stats(); s.Ahead != 2 {
			t.Errorf("%d were sent", s.Ahead)
		}
		x.answer()
		x.answer()
		x.ahead(entries(4, 1, 10)...)
		if s := x.a.rafts.Stats(); s.Ahead != 2 {
			t.Errorf("%d were sent, 2 of which nobody has asked for", s.Ahead)
		}
		x.came()
		req := x.ask(1, 1, entries(2, 4, 10)...)
		if got := x.came(); len(got) != 1 || got[0].PrevLogEntry != 3 || len(got[0].Entries) != 2 {
			t.Errorf("sent for the rest: %+v", got)
		}
		x.answer()
		x.wantTold(req)
	})
}

// TestWhatWentAheadSaysNoMoreThanItSaid: Raft's own request, which is not sent, may know of more
// that is committed. The follower must still be told.
func TestWhatWentAheadSaysNoMoreThanItSaid(t *testing.T) {
	testAhead(t, func(x *aheadTest) {
		x.host.instance.Store(7)
		x.ahead(entries(2, 1, 10)...)
		x.raft.set(raft.Leader, 1, 1)
		x.wantTold(x.ask(1, 1, entries(2, 1, 10)...))
		x.came()
		x.ask(1, 2)
		if got := x.came(); len(got) != 1 || got[0].LeaderCommitIndex != 1 {
			t.Errorf("sent: %+v", got)
		}
	})
}

// TestAnEmptyRequestBehindWhatWentAheadHidesNothing: Raft wakes its senders more often than there
// is something new, so an empty request may come behind what was sent ahead of it. The follower is
// told all the same when that is committed, and not after Raft's commit timeout.
func TestAnEmptyRequestBehindWhatWentAheadHidesNothing(t *testing.T) {
	testAhead(t, func(x *aheadTest) {
		x.host.instance.Store(7)
		x.ask(1, 1)
		<-x.p.Consumer()
		x.ahead(entries(2, 1, 10)...)
		x.ask(1, 1)
		<-x.p.Consumer()
		x.wantTold(x.ask(1, 1, entries(2, 1, 10)...))
		x.came()
		x.raft.set(raft.Leader, 1, 2)
		time.Sleep(time.Second)
		if got := x.came(); len(got) != 1 || got[0].LeaderCommitIndex != 2 || got[0].PrevLogEntry != 2 {
			t.Errorf("sent: %+v", got)
		}
	})
}
