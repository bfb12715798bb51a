package election_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/election"
	"github.com/trimaran-io/trimaran/cluster/link/peertest"
	"github.com/trimaran-io/trimaran/cluster/raftlink"
)

// confirmed asks a member whether it leads.
func confirmed(m *member) (uint64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return m.trans.Confirm(ctx)
}

// A read costs what it did: one round trip to the followers, and those who ask at once share it.
func TestConfirmationsShareARoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		ms := claiming(t, n, withBeacons)
		defer stopAll(ms)
		l := leader(t, ms...)
		propose(t, l, 0, 1)
		time.Sleep(time.Minute)
		const trip = 20 * time.Millisecond // there and back
		for _, m := range others(ms, l) {
			n.Delay(l.id, m.id, trip/2)
		}
		time.Sleep(time.Second)
		ask := func(readers int) (rounds float64, took time.Duration) {
			before, began := l.link.Stats().RaftOut, time.Now()
			var wg sync.WaitGroup
			for range readers {
				wg.Go(func() {
					if term, err := confirmed(l); err != nil || term != l.raft.CurrentTerm() {
						t.Errorf("term %d, %v", term, err)
					}
				})
			}
			wg.Wait()
			return float64(l.link.Stats().RaftOut-before) / 2, time.Since(began)
		}
		if rounds, took := ask(1); rounds != 1 || took > trip {
			t.Errorf("one reader: %v messages to each follower, %v", rounds, took)
		}
		if rounds, took := ask(1000); rounds > 2 || took > 2*trip {
			t.Errorf("1000 readers: %v messages to each follower, %v", rounds, took)
		}
	})
}

// Members without a vote have no say in who leads: VerifyLeader of hashicorp/raft counts them.
func TestMembersWithoutAVoteConfirmNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		ms := claiming(t, n, withBeacons)
		defer stopAll(ms)
		l := leader(t, ms...)
		rest := others(ms, l)
		for _, id := range []string{"x", "y"} {
			m := &member{id: id, link: linkOn(t, n, id, withBeacons), fsm: &words{}, snaps: raft.NewInmemSnapshotStore(), logs: raft.NewInmemStore()}
			m.open(t, "g", slow)
			m.trans.Claim(m.raft)
			defer m.stop()
			if err := l.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(id), 0, 0).Error(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := confirmed(l); err != nil {
			t.Fatal(err)
		}
		// Who has not the last entry yet is not elected at once, and the old leader's lease ends.
		until(t, "the log everywhere", func() bool {
			return !slices.ContainsFunc(rest, func(m *member) bool { return m.raft.LastIndex() < l.raft.LastIndex() })
		})
		for _, m := range rest {
			n.Cut(l.id, m.id)
			n.Cut("x", m.id)
			n.Cut("y", m.id)
		}
		if err := rest[0].trans.Stand(); err != nil {
			t.Fatal(err)
		}
		next := leader(t, rest...)
		if _, err := confirmed(next); err != nil {
			t.Errorf("the new leader: %v", err)
		}
		if l.raft.State() != raft.Leader {
			t.Fatal("the old leader has heard of it")
		}
		if term, err := confirmed(l); !errors.Is(err, election.ErrNotConfirmed) {
			t.Errorf("the old leader is confirmed in term %d by members without a vote: %v", term, err)
		}
	})
}

// What a follower said before the question is no answer to it, whatever it comes with: here a yes
// to entries, which the network held back until another had been elected.
func TestLateAnswersToEntriesConfirmNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		ms := claiming(t, n, neverBroken)
		defer stopAll(ms)
		first := leader(t, ms...)
		propose(t, first, 0, 10)
		time.Sleep(30 * time.Second)
		rest := others(ms, first)
		for _, m := range rest {
			n.CutOneWay(m.id, first.id)
		}
		first.raft.Apply([]byte("in between"), time.Second) // its answers are on their way for long
		time.Sleep(time.Second)
		// Nor are they asked anything any more that they could say no to.
		for _, m := range rest {
			n.Cut(m.id, first.id)
		}
		if err := rest[0].trans.Stand(); err != nil {
			t.Fatal(err)
		}
		until(t, "a new leader", func() bool { return rest[0].raft.State() == raft.Leader })
		var asking sync.WaitGroup
		for range 20 {
			asking.Go(func() {
				if term, err := confirmed(first); err == nil {
					t.Errorf("the old leader is confirmed in term %d after another was elected", term)
				}
			})
			time.Sleep(20 * time.Millisecond)
		}
		n.Delay(rest[1].id, first.id, 50*time.Millisecond)
		n.Heal(rest[1].id, first.id)
		asking.Wait()
		if _, err := confirmed(rest[0]); err != nil {
			t.Errorf("the new leader: %v", err)
		}
	})
}

// Whoever has heard of a newer term says no to a snapshot, also where it has what is in it, and to
// nobody yes who leads in another term than it is in.
func TestSuccessIsSaidInOnesOwnTermOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		m := startMember(t, n, "a", "g", slow)
		m.trans.Claim(m.raft)
		m.trans.BeforeInstall(func(context.Context, string, *raft.InstallSnapshotRequest) error { return raftlink.ErrInstalled })
		link := linkOn(t, n, "b", withBeacons)
		defer m.stop()
		defer func() { _ = link.Close() }()
		other := link.Transport("g")
		header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("b"), Addr: []byte("b")}
		if err := other.AppendEntries("a", "a", &raft.AppendEntriesRequest{RPCHeader: header, Term: 5}, new(raft.AppendEntriesResponse)); err != nil {
			t.Fatal(err)
		}
		for term, want := range map[uint64]bool{4: false, 5: true, 6: false} {
			var resp raft.InstallSnapshotResponse
			err := other.InstallSnapshot("a", "a", &raft.InstallSnapshotRequest{
				RPCHeader: header, Term: term, LastLogIndex: 3, LastLogTerm: 2, SnapshotVersion: 1, Configuration: raft.EncodeConfiguration(raft.Configuration{}),
			}, &resp, nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp.Success != want || resp.Term != 5 {
				t.Errorf("a snapshot of a leader of term %d: %v in term %d", term, resp.Success, resp.Term)
			}
		}
	})
}

// A leader whose followers cannot be asked says so in time, and whoever asks does not wait longer
// than it likes.
func TestAConfirmationEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		ms := claiming(t, n, neverBroken)
		defer stopAll(ms)
		l := leader(t, ms...)
		for _, m := range others(ms, l) {
			n.Cut(l.id, m.id)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		began := time.Now()
		if _, err := l.trans.Confirm(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 200*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		began = time.Now()
		if _, err := l.trans.Confirm(context.Background()); !errors.Is(err, election.ErrNotConfirmed) || time.Since(began) > 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		f := others(ms, l)[0]
		if _, err := f.trans.Confirm(context.Background()); !errors.Is(err, election.ErrNotConfirmed) {
			t.Errorf("a follower: %v", err)
		}
		n.HealAll()
		if _, err := l.trans.Confirm(context.Background()); err != nil {
			t.Errorf("all is well again: %v", err)
		}
	})
}
