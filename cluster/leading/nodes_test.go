package leading

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/election"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/outcome"
)

// The tests of this file need no node and no Raft: members are what they say of themselves, and
// calls between nodes go through calls.Server.

// told is a member that notes what it was told. A method that it does not have is not for the test.
type told struct {
	Member
	proposals raftgroup.Turnstile

	mu     sync.Mutex // guards what follows; nothing else is done under it
	state  raft.RaftState
	term   uint64
	leader string
	last   uint64
	all    []string // what it was told
	// nominated is called when its leadership is given to another node.
	nominated func(identity string)
}

var three = []string{"n1", "n2", "n3"}

func (m *told) note(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, what)
}

func (m *told) was() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.all)
}

func (m *told) set(state raft.RaftState, term uint64, leader string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state, m.term, m.leader = state, term, leader
}

func (m *told) State() raft.RaftState {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state
}

func (m *told) Leader() (string, uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leader, m.term
}

func (m *told) Group() string                   { return "g" }
func (m *told) Voters() []string                { return three }
func (m *told) Term() uint64                    { _, term := m.Leader(); return term }
func (m *told) LastEntry() (index, term uint64) { return m.last, 3 }
func (m *told) Voteless() bool                  { return false }
func (m *told) Unled() bool                     { return false }
func (m *told) Stuck() bool                     { return false }
func (m *told) LastContact() time.Time          { return time.Now() }
func (m *told) Proposing() int64                { return m.proposals.Under() }
func (m *told) Hold() (open func(), ok bool)    { return m.proposals.Hold() }
func (m *told) Stand() error                    { m.note("stand"); return nil }
func (m *told) Yield(as string, _ uint64) error { m.note("yield as " + as); return nil }
func (m *told) Expire(time.Duration) error      { m.note("expire"); return nil }
func (m *told) Nominate(_ context.Context, identity string) error {
	m.note("nominate " + identity)
	if m.nominated != nil {
		m.nominated(identity)
	}
	return nil
}

// node is a node with one member.
type node struct {
	member    *told
	failover  *Failover
	handovers *Handovers
	server    *calls.Server
}

// nodes are three of them; those that are gone answer nobody.
type nodes struct {
	all  map[string]*node
	gone map[string]bool
}

// from is the way to other nodes of one of them.
type from struct {
	*nodes
	self string
}

// Call implements calls.Caller.
func (f from) Call(ctx context.Context, identity string, kind uint8, payload ...[]byte) ([]byte, error) {
	if f.gone[identity] {
		return nil, outcome.ErrNoLeader
	}
	return calls.DecodeReply(f.all[identity].server.Serve(ctx, f.self, kind, slices.Concat(payload...)))
}

// threeNodesWith gives nodes whose members follow n1 in term 3, with logs of those lengths.
func threeNodesWith(t *testing.T, last ...uint64) *nodes {
	all := &nodes{all: map[string]*node{}, gone: map[string]bool{}}
	for i, self := range three {
		n := &node{member: &told{state: raft.Follower, term: 3, leader: "n1", last: last[i]}, server: &calls.Server{}}
		standings := Standings{Self: self, Gone: func(identity string) bool { return all.gone[identity] }, Hangs: func() bool { return false }}
		n.failover = NewFailover(FailoverConfig{
			Standings: standings, Heartbeat: 15 * time.Second, Logger: slog.New(slog.DiscardHandler), Caller: from{all, self},
			Watch: func([]string) {}, Others: func() []string { return three },
			Group: func(name string) Member {
				if name != "g" {
					return nil
				}
				return n.member
			},
		})
		n.handovers = &Handovers{
			Standings: standings, Stopped: t.Context(), Logger: slog.New(slog.DiscardHandler), Caller: from{all, self},
			Connected: func(identity string) bool { return !all.gone[identity] },
			Follows: func(identity, _ string, term uint64) bool {
				return !all.gone[identity] && all.all[identity].member.Term() == term
			},
		}
		calls.Handle(n.server, calls.Survey, n.failover.Answer)
		calls.Handle(n.server, calls.Stand, n.failover.Told)
		all.all[self] = n
	}
	all.all["n1"].member.state = raft.Leader
	return all
}

// round has a node's failover hear of its orphan and act on it.
func (n *nodes) round(t *testing.T, self string, since time.Duration) {
	var began sync.WaitGroup
	orphan := election.Orphan{Group: "g", State: raft.Follower, Term: 3, Leader: "n1", For: since}
	n.all[self].failover.round(t.Context(), []election.Orphan{orphan}, nil, &began)
	began.Wait()
}

func (n *nodes) wants(t *testing.T, what string, want map[string][]string) {
	t.Helper()
	for self, node := range n.all {
		if got := node.member.was(); !slices.Equal(got, want[self]) {
			t.Errorf("%s: %s was told %v, want %v", what, self, got, want[self])
		}
	}
}

// TestTheVoterWithTheLongestLogIsToldToStand, once, by the first that lives.
func TestTheVoterWithTheLongestLogIsToldToStand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := threeNodesWith(t, 9, 9, 10)
		all.round(t, "n2", time.Second)
		all.wants(t, "the leader lives", nil)
		all.gone["n1"] = true
		all.round(t, "n3", 0)
		all.wants(t, "it is not the first that lives", nil)
		all.round(t, "n2", 0)
		all.wants(t, "it is gone", map[string][]string{"n3": {"stand"}})
		all.round(t, "n2", time.Second)
		all.wants(t, "a moment later", map[string][]string{"n3": {"stand"}})
		time.Sleep(restAfter)
		all.round(t, "n2", time.Second)
		all.wants(t, "it was not elected", map[string][]string{"n3": {"stand", "stand"}})
		all.all["n3"].member.set(raft.Leader, 4, "n3")
		time.Sleep(restAfter)
		all.round(t, "n2", time.Second)
		all.wants(t, "it is elected", map[string][]string{"n3": {"stand", "stand"}})
		if asked := all.all["n2"].failover.Surveys(); asked != 3 {
			t.Errorf("%d surveys", asked)
		}
	})
}

// TestACandidateThatHasLostYieldsFirst, and one that nobody's leader holds back stands gently.
func TestACandidateThatHasLostYieldsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := threeNodesWith(t, 9, 10, 9)
		all.gone["n1"] = true
		all.all["n2"].member.set(raft.Candidate, 3, "")
		all.all["n3"].member.set(raft.Follower, 3, "")
		all.round(t, "n2", time.Minute)
		all.wants(t, "a candidate", map[string][]string{"n2": {"yield as n1"}})
		all.all["n2"].member.set(raft.Follower, 3, "")
		time.Sleep(restAfter)
		all.all["n2"].failover.cfg.Heartbeat = 0 // it has heard of no leader for so long
		all.round(t, "n2", time.Minute)
		all.wants(t, "nobody knows a leader", map[string][]string{"n2": {"yield as n1", "expire"}})
	})
}

// TestALeadershipIsGivenWhenProposalsHaveTheirFate, to the first that takes it.
func TestALeadershipIsGivenWhenProposalsHaveTheirFate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := threeNodesWith(t, 9, 9, 9)
		leader := all.all["n1"].member
		leader.nominated = func(identity string) {
			if identity == "n3" { // the other one's disk hangs, say
				leader.set(raft.Follower, 4, "n3")
			}
		}
		if !leader.proposals.Enter(t.Context()) {
			t.Fatal("proposals are held up")
		}
		given := make(chan error, 1)
		began := time.Now()
		go func() { given <- all.all["n1"].handovers.Give(leader) }()
		time.Sleep(handOverPatience / 2)
		all.wants(t, "a proposal is under way", nil)
		leader.proposals.Leave()
		if err := <-given; err != nil {
			t.Errorf("it is not given: %v", err)
		}
		all.wants(t, "given", map[string][]string{"n1": {"nominate n2", "nominate n3"}})
		if took := time.Since(began); took > 2*handOverPatience {
			t.Errorf("it took %v", took)
		}
		if !leader.proposals.Enter(t.Context()) {
			t.Error("proposals are still held up")
		}
	})
}

// TestALeadershipIsGivenToWhoIsHeardOfLate: another did not take it in the meantime, and is not
// waited for again.
func TestALeadershipIsGivenToWhoIsHeardOfLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := threeNodesWith(t, 9, 9, 9)
		leader := all.all["n1"].member
		leader.nominated = func(identity string) {
			if identity == "n3" {
				leader.set(raft.Follower, 4, "n3")
			}
		}
		began := time.Now()
		follows := all.all["n1"].handovers.Follows
		all.all["n1"].handovers.Follows = func(identity, group string, term uint64) bool {
			late := identity == "n3" && time.Since(began) < 3*handOverPatience/2
			return !late && follows(identity, group, term)
		}
		if err := all.all["n1"].handovers.Give(leader); err != nil {
			t.Errorf("it is not given: %v", err)
		}
		all.wants(t, "given", map[string][]string{"n1": {"nominate n2", "nominate n3"}})
		if took := time.Since(began); took > 3*handOverPatience/2+surveyTimeout {
			t.Errorf("it took %v", took)
		}
	})
}

// TestALeadershipThatIsBeingGivenAway stays with who asked for that, and goes if that was in vain.
func TestALeadershipThatIsBeingGivenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := threeNodesWith(t, 9, 9, 9)
		leader := all.all["n1"].member
		leader.nominated = func(identity string) { leader.set(raft.Follower, 4, identity) }
		open, ok := leader.Hold() // to balance leaders, say
		if !ok {
			t.Fatal("proposals are held up")
		}
		time.AfterFunc(handOverPatience, open)
		if err := all.all["n1"].handovers.Give(leader); err != nil {
			t.Errorf("it is not given: %v", err)
		}
		all.wants(t, "given", map[string][]string{"n1": {"nominate n2"}})

		// Where that was not in vain nothing is left to give.
		leader.set(raft.Leader, 5, "n1")
		for _, other := range three[1:] {
			all.all[other].member.set(raft.Follower, 5, "n1")
		}
		if open, ok = leader.Hold(); !ok {
			t.Fatal("proposals are held up")
		}
		time.AfterFunc(handOverPatience, func() { leader.set(raft.Follower, 6, "n3"); open() })
		if err := all.all["n1"].handovers.Give(leader); err != nil {
			t.Errorf("it has gone: %v", err)
		}
		all.wants(t, "gone", map[string][]string{"n1": {"nominate n2"}})
	})
}

// TestNothingIsHeldUpForALogThatIsFarBehind: it does not catch up within the time.
func TestNothingIsHeldUpForALogThatIsFarBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := threeNodesWith(t, 10+farBehind, 9, 10)
		leader := all.all["n1"].member
		began := time.Now()
		if err := all.all["n1"].handovers.GiveTo(leader, func(identity string) bool { return identity == "n2" }); err == nil || time.Since(began) > 0 {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		began = time.Now()
		if err := all.all["n1"].handovers.GiveTo(leader, func(string) bool { return true }); err == nil || time.Since(began) < handOverPatience {
			t.Errorf("one that may catch up, after %v: %v", time.Since(began), err)
		}
	})
}

// TestALeadershipThatNobodyTakesStays, and proposals are taken again.
func TestALeadershipThatNobodyTakesStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := threeNodesWith(t, 10, 9, 9)
		leader := all.all["n1"].member
		began := time.Now()
		if err := all.all["n1"].handovers.GiveTo(leader, func(identity string) bool { return identity == "n2" }); err == nil {
			t.Error("a log that is behind was given the leadership")
		}
		all.wants(t, "behind", nil)
		if took := time.Since(began); took < handOverPatience || took > handOverPatience+time.Millisecond {
			t.Errorf("it took %v", took)
		}
		all.gone["n2"], all.gone["n3"] = true, true
		if err := all.all["n1"].handovers.Give(leader); err == nil {
			t.Error("nobody was there")
		}
		if open, ok := leader.Hold(); !ok {
			t.Error("proposals are still held up")
		} else {
			open()
		}
	})
}

// TestAStoppingNodeGivesAwayWhatItLeads and nothing else; what hangs is offered to the longest log.
func TestAStoppingNodeGivesAwayWhatItLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := threeNodesWith(t, 9, 9, 10)
		leader, follower := all.all["n1"].member, all.all["n2"].member
		leader.nominated = func(identity string) { all.all[identity].member.set(raft.Leader, 4, identity) }
		if !all.all["n1"].handovers.Offer(leader) {
			t.Error("the leadership of a disk that hangs was not offered")
		}
		all.wants(t, "hangs", map[string][]string{"n1": {"nominate n3"}})
		all.all["n3"].member.set(raft.Follower, 3, "n1")
		leader.nominated = func(identity string) { leader.set(raft.Follower, 4, identity) }
		all.all["n1"].handovers.GiveAll(t.Context(), []Member{follower, leader})
		all.wants(t, "stops", map[string][]string{"n1": {"nominate n3", "nominate n2"}})
	})
}
