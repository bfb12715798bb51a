package election_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link/peertest"
)

// TestFollowerFarBehindIsNeededAtOnce: its disk hung while the two others went on, and when it
// moves again one of these is cut off. What the leader then takes needs the one that is behind, and
// nobody proposes anything else.
func TestFollowerFarBehindIsNeededAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count = 2000
		n := peertest.New()
		stores := map[string]*stuckLogs{}
		var ms []*member
		for _, id := range []string{"a", "b", "c"} {
			m := &member{
				id: id, fsm: &words{}, snaps: raft.NewInmemSnapshotStore(), logs: raft.NewInmemStore(),
				link: linkOn(t, n, id, func(c *config) { withBeacons(c); c.MaxAppendEntries = raft.DefaultConfig().MaxAppendEntries }),
			}
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
		slow, quick := others(ms, l)[0], others(ms, l)[1]
		hang := make(chan struct{})
		setStuck := func(stuck chan struct{}) {
			stores[slow.id].mu.Lock()
			defer stores[slow.id].mu.Unlock()
			stores[slow.id].stuck = stuck
		}
		setStuck(hang)
		propose(t, l, 10, count)
		setStuck(nil)
		n.Isolate(quick.id, l.id, slow.id)
		last := l.raft.Apply(fmt.Appendf(nil, "entry %d", count), 0)
		began := time.Now()
		close(hang)
		if err := last.Error(); err != nil {
			t.Fatalf("with a majority there: %v", err)
		}
		if took := time.Since(began); took > 1500*time.Millisecond {
			t.Errorf("it was committed after %v", took)
		}
		n.HealAll()
		allHave(t, count+1, ms...)
	})
}

// TestNextEntryAfterABrokenConnection: the connections to a follower broke while nothing was
// proposed, or the follower was restarted. The leader notices when it sends the next entry; the
// follower gets it then, although the others have committed it already and nothing else is
// proposed.
func TestNextEntryAfterABrokenConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		ms := claiming(t, n, withBeacons)
		defer stopAll(ms)
		l := leader(t, ms...)
		propose(t, l, 0, 10)
		allHave(t, 10, ms...)
		for i := range 3 {
			// what follows the last entry is over, and pipelines are open
			time.Sleep(10 * time.Second)
			n.Break(l.id, others(ms, l)[0].id)
			time.Sleep(100 * time.Millisecond)
			began := time.Now()
			propose(t, l, 10+i, 11+i)
			allHave(t, 11+i, ms...)
			if took := time.Since(began); took > 200*time.Millisecond {
				t.Errorf("everybody had entry %d after %v", 10+i, took)
			}
		}
	})
}
