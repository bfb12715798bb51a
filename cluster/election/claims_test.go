package election_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/link/peertest"
)

const slowHeartbeat = 10 * time.Second

// slow gives a raft group the timers of a cluster with many groups.
func slow(c *raft.Config) {
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = slowHeartbeat, slowHeartbeat, 4*time.Second
	c.CommitTimeout = 2 * time.Second
}

func withBeacons(c *config) { c.HeartbeatTimeout = slowHeartbeat }

// neverBroken makes connections outlive every cut, so that what was held back arrives late.
func neverBroken(c *config) {
	withBeacons(c)
	c.PingTimeout, c.SuspectAfter, c.Timeout = time.Hour, time.Hour, time.Hour
}

// claiming starts three members of one raft group whose links speak for it.
func claiming(t *testing.T, n *peertest.Network, change func(*config)) []*member {
	t.Helper()
	var ms []*member
	for _, id := range []string{"a", "b", "c"} {
		m := &member{id: id, link: linkOn(t, n, id, change), fsm: &words{}, snaps: raft.NewInmemSnapshotStore(), logs: raft.NewInmemStore()}
		m.open(t, "g", slow)
		m.trans.Claim(m.raft)
		ms = append(ms, m)
	}
	bootstrap(t, ms...)
	return ms
}

func stopAll(ms []*member) {
	for _, m := range ms {
		m.stop()
	}
}

func others(ms []*member, one *member) (out []*member) {
	for _, m := range ms {
		if m != one {
			out = append(out, m)
		}
	}
	return out
}

func TestIdleGroupSendsBeaconsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		ms := claiming(t, n, withBeacons)
		defer stopAll(ms)
		l := leader(t, ms...)
		propose(t, l, 0, 10)
		allHave(t, 10, ms...)
		time.Sleep(10 * time.Second)
		term, before := l.raft.CurrentTerm(), l.link.Stats()
		time.Sleep(time.Hour)
		after := l.link.Stats()
		if sent := after.RaftOut - before.RaftOut; sent > 0 {
			t.Errorf("%d messages of raft in an idle hour", sent)
		}
		if v := after.HeartbeatsSpared - before.HeartbeatsSpared; v < 2*1000 {
			t.Errorf("%d heartbeats were answered by beacons, which is fewer than there must have been", v)
		}
		if after.AppendsSwallowed == before.AppendsSwallowed {
			t.Error("no empty AppendEntries was spared")
		}
		for _, m := range ms {
			if m.raft.CurrentTerm() != term || (m == l) != (m.raft.State() == raft.Leader) {
				t.Errorf("%s is %v in term %d, the leader's was %d", m.id, m.raft.State(), m.raft.CurrentTerm(), term)
			}
		}
		for _, m := range others(ms, l) {
			if since := time.Since(m.raft.LastContact()); since > slowHeartbeat/2 {
				t.Errorf("%s was not in contact for %v", m.id, since)
			}
		}
	})
}

// TestVerifyLeaderDoesNotWaitForABeacon: somebody waits for it, so it takes a round trip and no
// more.
func TestVerifyLeaderDoesNotWaitForABeacon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		ms := claiming(t, n, withBeacons)
		defer stopAll(ms)
		l := leader(t, ms...)
		time.Sleep(time.Minute)
		var worst time.Duration
		for range 50 {
			began := time.Now()
			if err := l.raft.VerifyLeader().Error(); err != nil {
				t.Fatal(err)
			}
			worst = max(worst, time.Since(began))
			time.Sleep(33 * time.Millisecond)
		}
		// One may meet a heartbeat that is waiting for its beacon.
		if worst > 400*time.Millisecond {
			t.Errorf("VerifyLeader took up to %v", worst)
		}
	})
}

func TestFollowersHearOfTheCommitWithoutFurtherEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		ms := claiming(t, n, withBeacons)
		defer stopAll(ms)
		l := leader(t, ms...)
		time.Sleep(10 * time.Second)
		propose(t, l, 0, 1)
		began := time.Now()
		allHave(t, 1, ms...)
		if took := time.Since(began); took > 200*time.Millisecond {
			t.Errorf("the followers applied after %v", took)
		}
	})
}

// TestNodesAliveGroupsClosed: beacons of the nodes go on, and the leader must notice all the same.
func TestNodesAliveGroupsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		ms := claiming(t, n, withBeacons)
		defer stopAll(ms)
		l := leader(t, ms...)
		time.Sleep(time.Minute)
		for _, m := range others(ms, l) {
			if err := m.raft.Shutdown().Error(); err != nil { // closes the transport, too
				t.Fatal(err)
			}
			m.raft = nil
		}
		closed := time.Now()
		verified := l.raft.VerifyLeader()
		until(t, "the leader steps down", func() bool { return l.raft.State() != raft.Leader })
		if took := time.Since(closed); took > 9*time.Second {
			t.Errorf("the leader of a group without followers stepped down after %v, its lease is 4 s", took)
		}
		if err := verified.Error(); err == nil {
			t.Error("leadership was verified although no other member was there")
		}
	})
}

// TestLeadersNodeAliveGroupClosed: the followers' timers must run although the leader's node gives
// beacons.
func TestLeadersNodeAliveGroupClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		ms := claiming(t, n, withBeacons)
		defer stopAll(ms)
		l := leader(t, ms...)
		time.Sleep(time.Minute)
		if err := l.raft.Shutdown().Error(); err != nil {
			t.Fatal(err)
		}
		l.raft = nil
		rest := others(ms, l)
		began := time.Now()
		until(t, "the followers notice", func() bool { return rest[0].trans.Unled() && rest[1].trans.Unled() })
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("the followers noticed after %v", took)
		}
		next := leader(t, rest...)
		propose(t, next, 0, 10)
		allHave(t, 10, rest...)
	})
}

// stuckLogs is a log store that can hang.
type stuckLogs struct {
	*raft.InmemStore
	mu    sync.Mutex
	stuck chan struct{}
}

func (s *stuckLogs) StoreLogs(logs []*raft.Log) error {
	s.mu.Lock()
	stuck := s.stuck
	s.mu.Unlock()
	if stuck != nil {
		<-stuck
	}
	return s.InmemStore.StoreLogs(logs)
}

// TestFollowerStuckOnItsDisk: its node gives beacons and its raft group does not move. It has not
// voted for anybody else, so it may claim to follow the leader; it must not count for a commit.
func TestFollowerStuckOnItsDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		stores := map[string]*stuckLogs{}
		var ms []*member
		for _, id := range []string{"a", "b", "c"} {
			m := &member{id: id, link: linkOn(t, n, id, withBeacons), fsm: &words{}, snaps: raft.NewInmemSnapshotStore(), logs: raft.NewInmemStore()}
			stores[id] = &stuckLogs{InmemStore: m.logs}
			m.openOn(t, "g", slow, stores[id])
			m.trans.Claim(m.raft)
			ms = append(ms, m)
		}
		defer stopAll(ms)
		bootstrap(t, ms...)
		l := leader(t, ms...)
		propose(t, l, 0, 10)
		allHave(t, 10, ms...)
		hang := make(chan struct{})
		for _, m := range others(ms, l) {
			stores[m.id].mu.Lock()
			stores[m.id].stuck = hang
			stores[m.id].mu.Unlock()
		}
		future := l.raft.Apply([]byte("entry 10"), 0)
		time.Sleep(time.Minute)
		if commit := l.raft.CommitIndex(); l.raft.AppliedIndex() != commit || len(l.fsm.applied()) != 10 {
			t.Fatalf("%d entries are committed, and only the leader can have the last", len(l.fsm.applied()))
		}
		for _, m := range ms {
			stores[m.id].mu.Lock()
			stores[m.id].stuck = nil
			stores[m.id].mu.Unlock()
		}
		close(hang)
		if err := future.Error(); err != nil {
			t.Fatalf("after the disks went on: %v", err)
		}
		allHave(t, 11, ms...)
	})
}

// verifier asks a member again and again whether it leads and keeps the calls that were answered
// yes.
type verifier struct {
	mu  sync.Mutex
	yes []time.Time // when the calls began
}

func (v *verifier) watch(m *member, stop <-chan struct{}, wg *sync.WaitGroup) {
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(7 * time.Millisecond):
			}
			if m.raft.State() != raft.Leader {
				continue
			}
			began := time.Now()
			f := m.raft.VerifyLeader()
			wg.Go(func() {
				if f.Error() == nil {
					v.mu.Lock()
					v.yes = append(v.yes, began)
					v.mu.Unlock()
				}
			})
		}
	})
}

// TestADeposedLeaderIsNeverConfirmed: connections outlive the cut, so that beacons and answers from
// before reach the old leader after it was deposed, as they reach a process that was stopped.
func TestADeposedLeaderIsNeverConfirmed(t *testing.T) {
	for name, cut := range map[string]func(n *peertest.Network, l string, others []*member){
		"both ways": func(n *peertest.Network, l string, others []*member) {
			for _, o := range others {
				n.Cut(l, o.id)
			}
		},
		"its words do not arrive": func(n *peertest.Network, l string, others []*member) {
			for _, o := range others {
				n.CutOneWay(l, o.id)
			}
		},
		"answers do not arrive": func(n *peertest.Network, l string, others []*member) {
			for _, o := range others {
				n.CutOneWay(o.id, l)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, broken := range []bool{false, true} {
				change := neverBroken
				if broken {
					change = withBeacons
				}
				synctest.Test(t, func(t *testing.T) {
					n := peertest.New()
					ms := claiming(t, n, change)
					defer stopAll(ms)
					first := leader(t, ms...)
					propose(t, first, 0, 10)
					time.Sleep(30 * time.Second)
					var v verifier
					var wg sync.WaitGroup
					stop := make(chan struct{})
					v.watch(first, stop, &wg)
					time.Sleep(5 * time.Second)

					rest := others(ms, first)
					cut(n, first.id, rest)
					// Before the old leader's lease ends, which only a majority that holds it for
					// gone may do.
					time.Sleep(time.Second)
					if err := rest[0].trans.Stand(); err != nil {
						t.Fatal(err)
					}
					until(t, "a new leader", func() bool { return rest[0].raft.State() == raft.Leader || rest[1].raft.State() == raft.Leader })
					elected := time.Now()
					time.Sleep(500 * time.Millisecond)
					n.HealAll()
					second := leader(t, rest...)
					propose(t, second, 10, 20)
					until(t, "the old leader steps down", func() bool { return first.raft.State() != raft.Leader })
					stepped := time.Since(elected)
					close(stop)
					wg.Wait()
					for _, began := range v.yes {
						if began.After(elected) {
							t.Errorf("the old leader was confirmed %v after another was elected", began.Sub(elected))
						}
					}
					if len(v.yes) == 0 {
						t.Error("the leader was never confirmed")
					}
					if stepped > 12*time.Second {
						t.Errorf("the old leader stepped down after %v", stepped)
					}
					allHave(t, 20, ms...)
				})
			}
		})
	}
}

// TestOneWayCutToOneFollowerChangesNothing: a minority's silence, either way, moves no term.
func TestOneWayCutToOneFollowerChangesNothing(t *testing.T) {
	for _, towards := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			n := peertest.New()
			ms := claiming(t, n, withBeacons)
			defer stopAll(ms)
			l := leader(t, ms...)
			time.Sleep(time.Minute)
			term := l.raft.CurrentTerm()
			f := others(ms, l)[0]
			if towards {
				n.CutOneWay(l.id, f.id)
			} else {
				n.CutOneWay(f.id, l.id)
			}
			time.Sleep(5 * time.Minute)
			if l.raft.State() != raft.Leader || l.raft.CurrentTerm() != term {
				t.Errorf("the leader is %v in term %d, was in term %d", l.raft.State(), l.raft.CurrentTerm(), term)
			}
			n.HealAll()
			time.Sleep(time.Minute)
			propose(t, l, 0, 10)
			allHave(t, 10, ms...)
			if l.raft.CurrentTerm() != term {
				t.Errorf("term %d after the cut, %d before", l.raft.CurrentTerm(), term)
			}
		})
	}
}

// TestRestartedFollowerIsBroughtUpToDate: what another process, or another opening of the raft
// group, had agreed to proves nothing of this one.
func TestRestartedFollowerIsBroughtUpToDate(t *testing.T) {
	for _, process := range []bool{true, false} {
		t.Run(fmt.Sprintf("process %v", process), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := peertest.New()
				ms := claiming(t, n, withBeacons)
				defer stopAll(ms)
				l := leader(t, ms...)
				propose(t, l, 0, 100)
				allHave(t, 100, ms...)
				time.Sleep(time.Minute)
				f := others(ms, l)[0]
				_ = f.raft.Shutdown().Error()
				if process {
					_ = f.link.Close()
					f.link = linkOn(t, n, f.id, withBeacons)
				}
				// It has kept its term and its vote and lost entries: a store that this cannot
				// happen to is not what this test is about.
				last, _ := f.logs.LastIndex()
				if err := f.logs.DeleteRange(50, last); err != nil {
					t.Fatal(err)
				}
				f.fsm = &words{}
				f.open(t, "g", slow)
				f.trans.Claim(f.raft)
				allHave(t, 100, f) // nothing new is proposed
				if l.raft.State() != raft.Leader {
					t.Errorf("the leader is %v", l.raft.State())
				}
			})
		})
	}
}

func TestGoneIsNoticedAndForgotten(t *testing.T) {
	for name, c := range map[string]struct {
		take   func(n *peertest.Network, b node)
		within time.Duration
	}{
		"refused": {func(_ *peertest.Network, b node) { _ = b.Close() }, 100 * time.Millisecond},
		"silent":  {func(n *peertest.Network, _ node) { n.Cut("a", "b") }, 700 * time.Millisecond},
		"mute":    {func(n *peertest.Network, _ node) { n.CutOneWay("b", "a") }, 700 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := peertest.New()
				a, b := linkOn(t, n, "a", withBeacons), linkOn(t, n, "b", withBeacons)
				a.Watch([]string{"a", "b"})
				time.Sleep(2 * time.Second)
				if a.Gone("b") || b.Gone("a") {
					t.Fatal("gone from the start")
				}
				began := time.Now()
				c.take(n, b)
				until(t, "b is gone", func() bool { return a.Gone("b") })
				if took := time.Since(began); took > c.within {
					t.Errorf("noticed after %v", took)
				}
				n.HealAll()
				if name == "refused" {
					b = linkOn(t, n, "b", withBeacons)
				}
				until(t, "b is back", func() bool { return !a.Gone("b") && !b.Gone("a") })
				_, _ = a.Close(), b.Close()
			})
		})
	}
}

// TestABrokenConnectionIsNoDeath: the node answers the next dial.
func TestABrokenConnectionIsNoDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		a, b := linkOn(t, n, "a", withBeacons), linkOn(t, n, "b", withBeacons)
		a.Watch([]string{"b"})
		time.Sleep(2 * time.Second)
		for range 20 {
			n.Break("a", "b")
			for range 200 {
				time.Sleep(5 * time.Millisecond)
				if a.Gone("b") || b.Gone("a") {
					t.Fatal("a broken connection was taken for a death")
				}
			}
		}
		_, _ = a.Close(), b.Close()
	})
}

// TestRequestsToADeadNodeAreParked: raft asks for every raft group again and again.
func TestRequestsToADeadNodeAreParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		ms := claiming(t, n, withBeacons)
		defer stopAll(ms)
		l := leader(t, ms...)
		propose(t, l, 0, 10)
		f := others(ms, l)[0]
		n.Isolate(f.id, "a", "b", "c")
		until(t, "gone", func() bool { return l.link.Gone(f.id) })
		propose(t, l, 10, 20)
		before := l.link.Stats().RaftOut
		time.Sleep(10 * time.Minute)
		if asked := l.link.Stats().RaftOut - before; asked > 200 {
			t.Errorf("%d requests in ten minutes", asked)
		}
		n.HealAll()
		began := time.Now()
		allHave(t, 20, ms...)
		// A request may just have failed: raft then waits ten seconds, whatever happens.
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("the follower was up to date %v after its return", took)
		}
	})
}

// TestYieldEndsACandidacy: without it a lost candidate waits for its timer.
func TestYieldEndsACandidacy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		ms := claiming(t, n, withBeacons)
		defer stopAll(ms)
		l := leader(t, ms...)
		propose(t, l, 0, 10)
		allHave(t, 10, ms...)
		f := others(ms, l)[0]
		for _, m := range others(ms, f) {
			n.Cut(f.id, m.id)
		}
		if err := f.trans.Stand(); err != nil {
			t.Fatal(err)
		}
		until(t, "a candidate", func() bool { return f.raft.State() == raft.Candidate })
		time.Sleep(100 * time.Millisecond)
		if err := f.trans.Yield(l.id, f.raft.CurrentTerm()); err != nil {
			t.Fatal(err)
		}
		until(t, "a follower", func() bool { return f.raft.State() == raft.Follower })
		n.HealAll()
		time.Sleep(time.Second)
		if err := f.trans.Stand(); err != nil {
			t.Fatal(err)
		}
		until(t, "it leads", func() bool { return f.raft.State() == raft.Leader })
		propose(t, f, 10, 20)
		allHave(t, 20, ms...)
	})
}

// TestASlowPeerTakesBoundedMemory: what many raft groups have for a node that does not read is
// bounded for all of them.
func TestASlowPeerTakesBoundedMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		a, b := linkOn(t, n, "a", withBeacons), linkOn(t, n, "b", withBeacons)
		a.Watch([]string{"b"})
		time.Sleep(time.Second)
		n.CutOneWay("a", "b")
		big := make([]byte, 90<<20)
		ask := func(group string) error {
			req := &raft.AppendEntriesRequest{Term: 1, Entries: []*raft.Log{{Index: 1, Term: 1, Data: big}}}
			return a.Transport(group).AppendEntries("b", "b", req, new(raft.AppendEntriesResponse))
		}
		first := make(chan error, 1)
		go func() { first <- ask("one") }()
		synctest.Wait()
		began := time.Now()
		if err := ask("two"); !errors.Is(err, link.ErrBusy) || !errors.Is(err, link.ErrNotSent) {
			t.Errorf("the second group got %v", err)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("it waited %v with its entries in memory", took)
		}
		if err := <-first; err == nil {
			t.Error("the first was answered")
		}
		n.HealAll()
		until(t, "b is back", func() bool { return !a.Gone("b") })
		if err := ask("two"); errors.Is(err, link.ErrBusy) {
			t.Errorf("what failed still counts: %v", err)
		}
		_, _ = a.Close(), b.Close()
	})
}
