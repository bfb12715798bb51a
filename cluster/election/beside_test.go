package election_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link/peertest"
)

// TestADeposedLeaderAppendsNothingInTheNewTerm: Raft's handler for heartbeats runs beside its main
// loop. There it makes a follower of the newer term out of a leader whose main loop does not notice
// before its next event, and if that is a proposal, it is appended in the term of the other leader.
func TestADeposedLeaderAppendsNothingInTheNewTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		old := startMember(t, n, "a", "g", slow)
		old.trans.Claim(old.raft)
		link := linkOn(t, n, "b", withBeacons)
		defer old.stop()
		defer func() { _ = link.Close() }()
		other := link.Transport("g")
		if err := old.raft.BootstrapCluster(raft.Configuration{Servers: []raft.Server{
			{ID: "a", Address: "a"}, {ID: "b", Address: "b", Suffrage: raft.Nonvoter},
		}}).Error(); err != nil {
			t.Fatal(err)
		}
		until(t, "it leads", func() bool { return old.raft.State() == raft.Leader })
		until(t, "it is quiet", func() bool { return old.raft.VerifyLeader().Error() == nil })
		for range 50 {
			term := old.raft.CurrentTerm() + 1
			if err := other.AppendEntries("a", "a", &raft.AppendEntriesRequest{
				RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("b"), Addr: []byte("b")}, Term: term,
			}, new(raft.AppendEntriesResponse)); err != nil {
				t.Fatal(err)
			}
			if err := old.raft.Apply([]byte("x"), time.Second).Error(); err == nil {
				t.Fatal("a proposal was committed by a leader that had heard of another")
			}
			last, err := old.logs.LastIndex()
			if err != nil {
				t.Fatal(err)
			}
			var e raft.Log
			if err := old.logs.GetLog(last, &e); err != nil {
				t.Fatal(err)
			}
			if e.Term >= term {
				t.Fatalf("it appended %q in term %d, in which another leads", e.Data, e.Term)
			}
			until(t, "it leads again", func() bool { return old.raft.State() == raft.Leader })
			time.Sleep(time.Second)
		}
	})
}
