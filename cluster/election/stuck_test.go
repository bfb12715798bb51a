package election_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link/peertest"
)

// TestALostCandidateWhoseLeaderIsGoneIsAnOrphan: by TimeoutNow it stood in the term in which
// another won, and it has heard of that one. When the winner ends, the third needs the vote of the
// lost one, which denies it because it knows a leader.
func TestALostCandidateWhoseLeaderIsGoneIsAnOrphan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		ms := claiming(t, n, withBeacons)
		defer stopAll(ms)
		for _, m := range ms {
			m.link.Watch([]string{"a", "b", "c"})
		}
		first := leader(t, ms...)
		propose(t, first, 0, 10)
		allHave(t, 10, ms...)
		time.Sleep(10 * time.Second)
		lost, winner := others(ms, first)[0], others(ms, first)[1]
		n.Isolate(lost.id, "a", "b", "c")
		for _, m := range []*member{lost, winner} {
			if err := m.trans.Stand(); err != nil {
				t.Fatal(err)
			}
		}
		until(t, "the winner leads", func() bool { return winner.raft.State() == raft.Leader })
		if lost.raft.CurrentTerm() != winner.raft.CurrentTerm() {
			t.Fatalf("they stood in terms %d and %d", lost.raft.CurrentTerm(), winner.raft.CurrentTerm())
		}
		n.HealAll()
		until(t, "the lost one hears of the winner", func() bool {
			_, id := lost.raft.LeaderWithID()
			return string(id) == winner.id
		})
		if lost.raft.State() != raft.Candidate {
			t.Fatalf("it is %v, this test is about a candidate", lost.raft.State())
		}
		n.Isolate(lost.id, "a", "b", "c")
		propose(t, winner, 10, 20)
		allHave(t, 20, first, winner)
		if err := winner.raft.Shutdown().Error(); err != nil {
			t.Fatal(err)
		}
		winner.raft = nil
		n.HealAll()
		ended := time.Now()
		until(t, "the lost one is without a leader", lost.trans.Unled)
		if took := time.Since(ended); took > 10*time.Second {
			t.Errorf("that was noticed after %v", took)
		}
		if lost.raft.State() != raft.Candidate {
			t.Fatalf("it is %v, this test is about a candidate", lost.raft.State())
		}
		if err := lost.trans.Yield(first.id, lost.raft.CurrentTerm()); err != nil {
			t.Fatal(err)
		}
		until(t, "it follows", func() bool { return lost.raft.State() == raft.Follower })
		if _, id := lost.raft.LeaderWithID(); id != "" {
			t.Errorf("it still takes %s for its leader", id)
		}
		if err := first.trans.Stand(); err != nil {
			t.Fatal(err)
		}
		until(t, "the third leads", func() bool { return first.raft.State() == raft.Leader })
		propose(t, first, 20, 30)
		allHave(t, 30, first, lost)
	})
}
