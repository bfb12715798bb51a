package election_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/election"
	"github.com/trimaran-io/trimaran/cluster/link/peertest"
)

// reopen starts a member's raft group again, on the log that it has.
func (m *member) reopen(t *testing.T) {
	t.Helper()
	m.fsm = &words{}
	m.open(t, "g", slow)
	m.trans.Claim(m.raft)
}

func (m *member) shut(t *testing.T) {
	t.Helper()
	if err := m.raft.Shutdown().Error(); err != nil {
		t.Fatal(err)
	}
}

// joined makes one more member, which is in no configuration yet.
func joined(t *testing.T, n *peertest.Network, id string) *member {
	t.Helper()
	m := &member{id: id, link: linkOn(t, n, id, withBeacons), fsm: &words{}, snaps: raft.NewInmemSnapshotStore(), logs: raft.NewInmemStore()}
	m.open(t, "g", slow)
	m.trans.Claim(m.raft)
	return m
}

func must(t *testing.T, f raft.Future) {
	t.Helper()
	if err := f.Error(); err != nil {
		t.Fatal(err)
	}
}

// TestAVoterThatMissedChangesOfMembersVotesForNewOnes: it was away while one voter came and another
// went. When the leader dies then, only the new one can be elected, which it has never heard of.
func TestAVoterThatMissedChangesOfMembersVotesForNewOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		ms := claiming(t, n, withBeacons)
		defer func() { stopAll(ms) }()
		l := leader(t, ms...)
		left, away := others(ms, l)[0], others(ms, l)[1]
		propose(t, l, 0, 10)
		allHave(t, 10, ms...)
		away.shut(t)
		came := joined(t, n, "d")
		ms = append(ms, came)
		must(t, l.raft.AddNonvoter("d", "d", 0, 0))
		must(t, l.raft.AddVoter("d", "d", 0, 0))
		must(t, l.raft.RemoveServer(raft.ServerID(left.id), 0, 0))
		propose(t, l, 10, 20)
		allHave(t, 20, came)

		l.shut(t)
		left.shut(t)
		away.reopen(t)
		if now := leader(t, away, came); now != came {
			t.Fatalf("%s leads", now.id)
		}
		propose(t, came, 20, 30)
		allHave(t, 30, away, came)
	})
}

// TestARemovedMemberDeposesNobody: what is forgiven of voters that know too little is not what it
// may abuse.
func TestARemovedMemberDeposesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		ms := claiming(t, n, withBeacons)
		defer stopAll(ms)
		l := leader(t, ms...)
		left := others(ms, l)[0]
		propose(t, l, 0, 10)
		allHave(t, 10, ms...)
		must(t, l.raft.RemoveServer(raft.ServerID(left.id), 0, 0))
		propose(t, l, 10, 20)
		term := l.raft.CurrentTerm()
		// As a node would that holds the leader for gone; it skips the pre-vote.
		if err := left.trans.Stand(); err != nil {
			t.Fatal(err)
		}
		until(t, "it stood", func() bool { return left.raft.CurrentTerm() > term })
		time.Sleep(time.Minute)
		if l.raft.State() != raft.Leader || l.raft.CurrentTerm() != term {
			t.Errorf("the leader is %v in term %d, it was in %d", l.raft.State(), l.raft.CurrentTerm(), term)
		}
	})
}

// TestANewcomerHasNoVoteBeforeItHasAConfiguration: it has an empty log, and would help whoever
// asks.
func TestANewcomerHasNoVoteBeforeItHasAConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		ms := claiming(t, n, withBeacons)
		defer stopAll(ms)
		l := leader(t, ms...)
		propose(t, l, 0, 10)
		allHave(t, 10, ms...)
		// Two of three come back with nothing: one as it was at first, one as a newcomer.
		fresh, anew := others(ms, l)[0], others(ms, l)[1]
		l.shut(t)
		for _, m := range []*member{fresh, anew} {
			m.shut(t)
			m.logs, m.fsm, m.snaps = raft.NewInmemStore(), &words{}, raft.NewInmemSnapshotStore()
			if m == anew {
				m.link.Transport("g").(*election.Member).Newcomer()
			}
			m.reopen(t)
		}
		must(t, fresh.raft.BootstrapCluster(configurationOf(ms...)))
		until(t, "it stood", func() bool { return fresh.raft.State() != raft.Follower })
		time.Sleep(time.Minute)
		if s := fresh.raft.State(); s == raft.Leader {
			t.Fatal("a member without records leads by the vote of another that has none")
		}
		// The real leader takes both in again.
		l.reopen(t)
		allHave(t, 10, ms...)
		propose(t, l, 10, 20)
		allHave(t, 20, ms...)
	})
}
