package faults

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// hasLeftCode is the exit code of a node that is started and has left the cluster, see
// docs/operations.md.
const hasLeftCode = 3

// All three nodes are replaced one after the other by a script that looks at the exit code of 'node
// replace --wait' and nothing else. Nodes are killed and started meanwhile, so that it is often
// answered by one that has just started. When it says that a node has left, the next one is killed
// at once: had it not, what is left would have no majority.
func TestAScriptThatTrustsTheExitCodeReplacesAllNodes(t *testing.T) {
	t.Parallel()
	c := harness.New(t, harness.Options{NoShim: true})
	create(t, c, "script", 2)
	story := &comeAndGo{t: t, c: c, began: time.Now(), away: map[*harness.Node]bool{}}
	for i := 1; i <= 3; i++ {
		next, err := c.AddNode()
		must(t, err)
		must(t, next.Start())
		must(t, next.WaitReady(patience))
		lost := c.Node(i)
		story.tell(fmt.Sprintf("%s is killed, and %s takes over", lost.ID, next.ID))
		must(t, lost.Kill9())
		story.away[lost] = true
		var here []*harness.Node
		var addrs []string
		for _, n := range c.Nodes {
			if !story.away[n] {
				here, addrs = append(here, n), append(addrs, n.Addr())
			}
		}
		over := make(chan struct{})
		var kills sync.WaitGroup
		var killed error
		kills.Go(func() {
			for round := 0; killed == nil; round++ {
				select {
				case <-over:
					return
				case <-time.After(time.Second):
				}
				killed = here[round%len(here)].Restart()
			}
		})
		// Those that are killed next are asked first.
		out, err := tryTrimaran(addrs, "node", "replace", lost.ID, next.ID, "--wait", "--timeout", patience.String())
		close(over)
		must(t, err)
		if !strings.Contains(out, lost.ID+" has left the cluster") {
			t.Errorf("it says %q", out)
		}
		kills.Wait()
		must(t, killed)
		story.tell("  " + strings.TrimSpace(out))
		must(t, harness.Eventually(patience, func() bool {
			s, err := next.Status()
			if err != nil || !s.Confirmed || len(s.CatalogVoters) == 0 {
				return false
			}
			for _, n := range s.Nodes {
				if n.ID == lost.ID {
					t.Fatalf("%s is in the catalog", lost.ID)
				}
			}
			if slices.ContainsFunc(s.CatalogVoters, func(v string) bool { return strings.HasPrefix(v, lost.ID+".") }) {
				t.Fatalf("%s votes", lost.ID)
			}
			return true
		}))
		// Once more: it is done already.
		trimaran(t, addrs, "node", "replace", lost.ID, next.ID, "--wait")
	}
	l := harness.StartLoad("script", 2, story.addrs(), -1)
	must(t, l.Progress(20, patience))
	must(t, l.Stop())
	for _, addr := range story.addrs() {
		must(t, l.Verify(addr, patience))
	}
	// What was lost comes back, hears that it has left, and ends as asked for; then it does not
	// start.
	for i := 1; i <= 3; i++ {
		for _, want := range []int{0, hasLeftCode} {
			must(t, c.Node(i).Start())
			if code, err := c.Node(i).Wait(patience); err != nil || code != want {
				t.Errorf("%s ends with %d, %v; want %d\n%s", c.Node(i).ID, code, err, want, c.Node(i).Tail(5))
			}
		}
	}
}
