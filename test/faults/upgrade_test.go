package faults

import (
	"testing"

	"github.com/trimaran-io/trimaran/test/harness"
)

// A cluster of an older program becomes one of this, node by node, while producers go on: through the shim
// without one error. Clusters are upgraded from the commit before this one and from the first whose
// nodes tell each other what they know. The first node goes
// back in between, if its program then is not much older.
func TestRollingUpgrade(t *testing.T) {
	for _, commit := range []string{"HEAD~1", "99cb287"} {
		t.Run(commit, func(t *testing.T) {
			t.Parallel()
			older, err := harness.ProgramOf(commit, t.TempDir())
			if err != nil {
				t.Skipf("skipped: %v", err)
			}
			newer, err := harness.Program("trimaran")
			must(t, err)
			c := harness.New(t, harness.Options{Program: older})
			create(t, c, "up", 3)
			create(t, c, "up-shim", 3)
			l := harness.StartLoad("up", 3, c.Addrs(), -1)
			defer l.Stop()
			behind := harness.StartLoad("up-shim", 3, []string{c.ShimAddr()}, -1)
			defer behind.Stop()
			must(t, l.Progress(50, patience))
			for i, n := range c.Nodes {
				_, err := n.Terminate(patience)
				must(t, err)
				n.Path = newer
				must(t, n.Start())
				must(t, n.WaitReady(patience))
				must(t, l.Progress(50, patience))
				if i == 0 && commit != "99cb287" { // that one's catalog has no CRCs, and is damaged to this one
					// While others are older it can go back to what it was.
					for _, path := range []string{older, newer} {
						_, err := n.Terminate(patience)
						must(t, err)
						n.Path = path
						must(t, n.Start())
						must(t, n.WaitReady(patience))
						must(t, l.Progress(50, patience))
					}
					// An older node is no stranger to a topic that was made by a newer one, and the other way round.
					must(t, harness.CreateTopic(t.Context(), n.Addr(), "by-newer", 2, 3))
					must(t, harness.CreateTopic(t.Context(), c.Node(3).Addr(), "by-older", 2, 3))
				}
			}
			verify(t, c, l)
			verify(t, c, behind)
			// How a binary that is out already stops cannot be mended: 99cb287 may, on a busy machine, miss to hand
			// over a partition. One from before this change has to.
			missed := map[string]int{"99cb287": 3}[commit]
			if failures := behind.Failures(); failures > missed {
				t.Errorf("%d errors behind the shim", failures)
			}
			for _, topic := range []string{"by-newer", "by-older"} {
				after := harness.StartLoad(topic, 2, []string{c.ShimAddr()}, -1)
				must(t, after.Progress(10, patience))
				verify(t, c, after)
			}
		})
	}
}
