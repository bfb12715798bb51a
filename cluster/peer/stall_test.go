package peer_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/trimaran-io/trimaran/cluster/peer"
	"github.com/trimaran-io/trimaran/cluster/peer/peertest"
)

// TestFollowerFarBehindIsNeededAtOnce: its disk hung while the two others went on, and when it
// moves again one of these is cut off. What the leader then takes needs the one that is behind, and nobody
// proposes anything else.
func TestFollowerFarBehindIsNeededAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count = 2000
		n := peertest.New()
		stores := map[string]*stuckLogs{}
		var ms []*member
		for _, id := range []string{"a", "b", "c"} {
			m := &member{
				id: id, fsm: &words{}, snaps: raft.NewInmemSnapshotStore(), logs: raft.NewInmemStore(),
				link: linkOn(t, n, id, func(c *peer.Config) { withSigns(c); c.MaxAppendEntries = raft.DefaultConfig().MaxAppendEntries }),
			}
			stores[id] = &stuckLogs{InmemStore: m.logs}
			m.openOn(t, "g", slow, stores[id])
			m.trans.Vouch(m.raft)
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
