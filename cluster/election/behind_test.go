package election_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/link/peertest"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
)

// refusingLogs fail to store while they are told to.
type refusingLogs struct {
	*raft.InmemStore
	refuse  atomic.Bool
	refused atomic.Int32
}

func (s *refusingLogs) StoreLogs(logs []*raft.Log) error {
	if s.refuse.Load() {
		s.refused.Add(1)
		return errors.New("no room")
	}
	return s.InmemStore.StoreLogs(logs)
}

// idle is longer than Raft's timers.
const idle = raftgroup.DefaultHeartbeatTimeout + 5*time.Minute

// TestAFollowerThatFollowsOnIsBroughtUp: its pipeline ends with entries in flight that the others
// commit. It follows all the while, so that no claim of it is new, and nobody proposes anything
// else.
func TestAFollowerThatFollowsOnIsBroughtUp(t *testing.T) {
	for name, miss := range map[string]func(ms []*member, n *peertest.Network, c *refusingLogs, propose func()){
		"the session to it ends": func(ms []*member, n *peertest.Network, _ *refusingLogs, propose func()) {
			n.Delay("a", "c", 50*time.Millisecond)
			propose()
			ms[0].link.Peer("c").Look().Out.Close(link.ErrBroken)
		},
		"its disk has no room": func(_ []*member, _ *peertest.Network, c *refusingLogs, propose func()) {
			c.refuse.Store(true)
			propose()
			until(t, "it has refused", func() bool { return c.refused.Load() > 0 })
			c.refuse.Store(false)
		},
		"its disk has no room for long": func(_ []*member, _ *peertest.Network, c *refusingLogs, propose func()) {
			c.refuse.Store(true)
			propose()
			time.Sleep(10 * time.Second)
			c.refuse.Store(false)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := peertest.New()
				stores := map[string]*refusingLogs{}
				ms := ledOn(t, n, func(m *member) raft.LogStore {
					stores[m.id] = &refusingLogs{InmemStore: m.logs}
					return stores[m.id]
				})
				defer stopAll(ms)
				time.Sleep(10 * time.Second)
				in, term := ms[0].link.Peer("c").Look().In, ms[0].raft.CurrentTerm()
				miss(ms, n, stores["c"], func() { propose(t, ms[0], 10, 11) })
				began := time.Now()
				if ms[2].raft.LastIndex() == ms[0].raft.LastIndex() {
					t.Fatal("it has missed nothing")
				}
				allHave(t, 11, ms...)
				if took := time.Since(began); took > 15*time.Second {
					t.Errorf("it has the entry after %v", took)
				}
				if ms[0].link.Peer("c").Look().In != in || ms[0].raft.CurrentTerm() != term {
					t.Error("there is another leader, or session of the follower")
				}
				time.Sleep(5 * time.Minute)
				before := ms[0].raft.LastIndex()
				time.Sleep(idle)
				if more := ms[0].raft.LastIndex() - before; more > 0 {
					t.Errorf("%d entries while nothing happens", more)
				}
			})
		})
	}
}

// TestTimersOfTheProgramBeforeThis: while nodes are upgraded one after the other some have Raft
// timers of seconds, and follow a leader, or lead followers, that have those of minutes.
func TestTimersOfTheProgramBeforeThis(t *testing.T) {
	older := func(c *raft.Config) {
		c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 15*time.Second, 15*time.Second, 5*time.Second
		c.CommitTimeout = 4 * time.Second
	}
	for _, upgraded := range []string{"a", "bc", "ab", "c"} {
		t.Run(upgraded, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := peertest.New()
				var ms []*member
				for _, id := range []string{"a", "b", "c"} {
					raftTimers, beaconTimers := older, func(c *config) { c.HeartbeatTimeout = 15 * time.Second }
					if strings.Contains(upgraded, id) {
						raftTimers, beaconTimers = real, withRealBeacons
					}
					m := &member{id: id, link: linkOn(t, n, id, beaconTimers), fsm: &words{}, snaps: raft.NewInmemSnapshotStore(), logs: raft.NewInmemStore()}
					m.open(t, "g", raftTimers)
					m.trans.Claim(m.raft)
					ms = append(ms, m)
				}
				defer stopAll(ms)
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
				term := ms[0].raft.CurrentTerm()
				time.Sleep(idle)
				for _, m := range ms {
					if _, id := m.raft.LeaderWithID(); id != "a" || m.raft.CurrentTerm() != term {
						t.Errorf("%s follows %q in term %d, not %d", m.id, id, m.raft.CurrentTerm(), term)
					}
				}
			})
		})
	}
}
