package election_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link/peertest"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
)

// What follows holds with the timers that nodes give their raft groups: so slow that nothing may
// wait for them.

func real(c *raft.Config) {
	h := raftgroup.DefaultHeartbeatTimeout
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = h, h, raftgroup.LeaderLease(h)
	c.CommitTimeout = raftgroup.DefaultCommitTimeout
}

func withRealBeacons(c *config) {
	c.HeartbeatTimeout = raftgroup.DefaultHeartbeatTimeout
	c.ElectionTimeout = raftgroup.LeaderLease(c.HeartbeatTimeout)
}

// led starts three members of a raft group with those timers, of which the first leads.
func led(t *testing.T, n *peertest.Network) []*member {
	t.Helper()
	return ledOn(t, n, func(m *member) raft.LogStore { return m.logs })
}

// ledOn is led with logs that the test gives.
func ledOn(t *testing.T, n *peertest.Network, logs func(*member) raft.LogStore) []*member {
	t.Helper()
	return ledOf(t, n, []string{"a", "b", "c"}, logs)
}

// ledOf is ledOn for the members that the test names.
func ledOf(t *testing.T, n *peertest.Network, ids []string, logs func(*member) raft.LogStore) []*member {
	t.Helper()
	var ms []*member
	for _, id := range ids {
		m := &member{id: id, link: linkOn(t, n, id, withRealBeacons), fsm: &words{}, snaps: raft.NewInmemSnapshotStore(), logs: raft.NewInmemStore()}
		m.openOn(t, "g", real, logs(m))
		m.trans.Claim(m.raft)
		ms = append(ms, m)
	}
	bootstrap(t, ms...)
	for _, m := range ms {
		for _, o := range others(ms, m) {
			m.link.Watch([]string{o.id})
		}
	}
	if err := ms[0].trans.Stand(); err != nil {
		t.Fatal(err)
	}
	until(t, "the first leads", func() bool { return ms[0].raft.State() == raft.Leader })
	propose(t, ms[0], 0, 10)
	allHave(t, 10, ms...)
	return ms
}

// TestHowOftenAnIdleGroupWakes counts what Raft's timers begin in an hour in which nothing happens:
// each costs a node more than it does.
func TestHowOftenAnIdleGroupWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		ms := led(t, n)
		defer stopAll(ms)
		time.Sleep(3 * raftgroup.DefaultCommitTimeout) // the first empty AppendEntries is sent
		all := func() (heartbeats, appends, fed, messages int) {
			for _, m := range ms {
				s := m.link.Stats()
				heartbeats += int(s.HeartbeatsSpared)
				appends += int(s.AppendsSwallowed)
				messages += int(s.RaftOut)
				fed += int(m.link.beacons.Stats().Fed)
			}
			return
		}
		h0, a0, f0, m0 := all()
		time.Sleep(time.Hour)
		h, a, f, m := all()
		t.Logf("in an hour: %d heartbeats, %d empty AppendEntries, %d heartbeats given to followers, %d messages", h-h0, a-a0, f-f0, m-m0)
		// Two followers: a heartbeat comes after a tenth to a fifth of the timeout, an empty
		// AppendEntries after one to two commit timeouts.
		for _, c := range []struct {
			what        string
			n           int
			least, most time.Duration
		}{
			{"heartbeats", h - h0, raftgroup.DefaultHeartbeatTimeout / 5, raftgroup.DefaultHeartbeatTimeout / 10},
			{"empty AppendEntries", a - a0, 2 * raftgroup.DefaultCommitTimeout, raftgroup.DefaultCommitTimeout},
			{"heartbeats given", f - f0, raftgroup.DefaultHeartbeatTimeout / 2, raftgroup.DefaultHeartbeatTimeout / 4},
		} {
			if least, most := 2*int(time.Hour/c.least)*9/10, 2*int(time.Hour/c.most); c.n < least || c.n > most {
				t.Errorf("%d %s, not %d to %d", c.n, c.what, least, most)
			}
		}
		// Each is a wake-up, a heartbeat two.
		if wakes := 2*(h-h0) + a - a0 + f - f0; wakes > 2*90 {
			t.Errorf("%d wake-ups in an hour", wakes)
		}
		if m > m0 {
			t.Errorf("%d messages of raft", m-m0)
		}
		if ms[0].raft.State() != raft.Leader {
			t.Errorf("the leader is %v", ms[0].raft.State())
		}
	})
}

// TestALeaderThatNobodyFollowsStepsDown long before Raft's lease, and goes on as a follower in its
// term.
func TestALeaderThatNobodyFollowsStepsDown(t *testing.T) {
	for name, cut := range map[string]func(*peertest.Network){
		"both ways":        func(n *peertest.Network) { n.Isolate("a", "b", "c") },
		"to the followers": func(n *peertest.Network) { n.CutOneWay("a", "b"); n.CutOneWay("a", "c") },
		"to the leader":    func(n *peertest.Network) { n.CutOneWay("b", "a"); n.CutOneWay("c", "a") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := peertest.New()
				ms := led(t, n)
				defer stopAll(ms)
				time.Sleep(10 * time.Second)
				term := ms[0].raft.CurrentTerm()
				cut(n)
				began := time.Now()
				until(t, "it steps down", func() bool { return ms[0].raft.State() != raft.Leader })
				if took := time.Since(began); took > 8*time.Second || took < 4*time.Second {
					t.Errorf("it stepped down after %v", took)
				}
				if ms[0].raft.CurrentTerm() != term {
					t.Errorf("in term %d, not %d", ms[0].raft.CurrentTerm(), term)
				}
				if _, id := ms[0].raft.LeaderWithID(); id != "" {
					t.Errorf("it follows %s", id)
				}
			})
		})
	}
}

// TestALeaderWithAMajorityLeadsOn, also where one follower is gone for good, and where the other is
// cut off for less than it takes.
func TestALeaderWithAMajorityLeadsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		ms := led(t, n)
		defer stopAll(ms)
		n.Isolate("c", "a", "b")
		time.Sleep(10 * time.Minute)
		n.Cut("a", "b")
		time.Sleep(3 * time.Second)
		n.Heal("a", "b")
		time.Sleep(10 * time.Minute)
		if ms[0].raft.State() != raft.Leader || ms[0].link.beacons.Stats().SteppedDown != 0 {
			t.Errorf("it is %v", ms[0].raft.State())
		}
	})
}

// TestAFollowerThatWasAwayIsBroughtUp within seconds where nobody proposes anything: a heartbeat of
// the link tells it whom it follows, and its leader is woken.
func TestAFollowerThatWasAwayIsBroughtUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		ms := led(t, n)
		defer func() { stopAll(ms) }()
		for round := range 3 {
			c := ms[2]
			c.stop()
			propose(t, ms[0], 10+10*round, 20+10*round)
			time.Sleep(time.Minute)
			again := &member{id: c.id, link: linkOn(t, n, c.id, withRealBeacons), fsm: &words{}, snaps: c.snaps, logs: c.logs}
			again.open(t, "g", real)
			again.trans.Claim(again.raft)
			again.link.Watch([]string{"a", "b"})
			ms[2] = again
			began := time.Now()
			allHave(t, 20+10*round, again)
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("after %v", took)
			}
			time.Sleep(time.Second)
		}
		before := ms[0].raft.LastIndex()
		time.Sleep(idle)
		if more := ms[0].raft.LastIndex() - before; more > 0 {
			t.Errorf("%d entries while nothing happens", more)
		}
	})
}
