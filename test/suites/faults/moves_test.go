package faults

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// Replicas are on the move all the time, in a storm: a node joins, the oldest one is
// decommissioned, and until it has left nodes are killed and stopped at random, it among them. Each
// round has a topic of its own, created just before. STORM_SECONDS and STORM_SEED are as for
// TestKillStorm; the last round is finished.
func TestMovesInAStorm(t *testing.T) {
	t.Parallel()
	lasts, seed := fromEnv(t, "STORM_SECONDS", 15), fromEnv(t, "STORM_SEED", rand.Uint64()>>1)
	t.Logf("STORM_SEED=%d STORM_SECONDS=%d", seed, lasts)
	c := harness.New(t, harness.Options{Nodes: 5, NoShim: true})
	story := &comeAndGo{t: t, c: c, began: time.Now(), away: map[*harness.Node]bool{}}
	s := &storm{t: t, dice: rand.New(rand.NewPCG(seed, 0)), began: story.began}
	loads := map[string]*harness.Load{}
	present := slices.Clone(c.Nodes)
	for round := 1; time.Since(s.began) < time.Duration(lasts)*time.Second; round++ {
		topic := fmt.Sprint("moves-", round)
		create(t, c, topic, 6)
		leaving := present[0]
		present = present[1:]
		l := harness.StartLoad(topic, 6, []string{present[0].Addr(), present[1].Addr()}, -1)
		defer l.Stop()
		loads[topic] = l
		must(t, l.Progress(10, patience))

		story.tell("a node joins, and " + leaving.ID + " is decommissioned")
		n, err := c.AddNode()
		must(t, err)
		must(t, n.Start())
		must(t, n.WaitReady(patience))
		present = append(present, n)
		trimaran(t, story.addrs(), "node", "decommission", leaving.ID)
		if s.dice.IntN(2) == 0 {
			// In the midst of it, or when it has just left: then it ends at once.
			s.pause(s.upTo(4 * time.Second))
			if leaving.Running() {
				story.tell("  " + leaving.ID + " is killed and started")
				must(t, leaving.Kill9())
				must(t, leaving.Start())
			}
		}
		story.away[leaving] = true
		s.nodes = present
		for blow := 1; !story.left(leaving.ID); blow++ {
			if blow > 40 {
				story.leaves(leaving.ID) // in calm it must
				break
			}
			s.strike()
			s.pause(s.upTo(2 * time.Second))
			if blow%3 == 0 {
				must(t, l.Progress(5, patience))
			}
		}
		story.leaves(leaving.ID)
		_, err = leaving.Wait(patience)
		must(t, err)
		for _, n := range present {
			must(t, n.WaitReady(patience))
		}
		must(t, l.Progress(10, patience))
		must(t, l.Stop())
	}
	story.until("everything has three replicas", threeOfEach)
	for topic, l := range loads {
		t.Log(l)
		waitNoLag(t, c, topic)
		for _, addr := range story.addrs() {
			if err := l.Verify(addr, patience); err != nil {
				t.Errorf("%s: %v", topic, err)
			}
		}
		replicasAgree(t, story.addrs(), topic)
	}
	t.Logf("%d kills, %d pauses", s.kills, s.pauses)
}

// threeOfEach: every partition and shard has a leader and three replicas that run, and none is on
// the move.
func threeOfEach(s *harness.Status) bool {
	for _, p := range everyPartition(s) {
		if len(p.Replicas) != 3 || p.Leader == "" {
			return false
		}
	}
	return settled(s)
}
