package faults

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// written gives when a file was written last; 0 if it is not there.
func written(path string) (at time.Time) {
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		at = info.ModTime()
	}
	return at
}

// A cluster that keeps votes and catalog in bbolt files becomes one of this program with kill -9 at
// any moment of a node's first starts, which the older program goes on with as long as the files
// are its own, and refuses from then on. For a while nodes of both serve, and are killed. Nothing
// that was acknowledged is lost.
func TestAnUpgradeThatIsCutShort(t *testing.T) {
	t.Parallel()
	older, err := harness.ProgramOf(lastWithBolt)
	if err != nil {
		t.Skipf("skipped: %v", err)
	}
	newer, err := harness.Program("trimaran")
	must(t, err)
	c := harness.New(t, harness.Options{Program: older})
	create(t, c, "cut", 6)
	l := harness.StartLoad("cut", 6, c.Addrs(), -1)
	defer l.Stop()
	must(t, l.Progress(100, patience))
	dice := rand.New(rand.NewPCG(12, uint64(time.Now().UnixNano())))
	moments := []string{"votes", "catalog/manifest", "votes", "catalog/manifest", "node.json", "", "votes"}
	isOld := func(n *harness.Node) bool {
		b, err := os.ReadFile(filepath.Join(n.Data, "node.json"))
		must(t, err)
		return bytes.Contains(b, []byte(`"format": 1`))
	}
	half := dice.IntN(2)
	for i, n := range c.Nodes {
		must(t, n.Kill9())
		came, refused := 0, 0
		for try := range moments {
			// Each node goes through every other one, and the next node through those between.
			if (try+i+half)%2 == 1 && moments[try] != "node.json" {
				continue
			}
			n.Path = newer
			file := filepath.Join(n.Data, moments[try])
			was := written(file)
			must(t, n.Start())
			// As soon as it has made that file, or any time later.
			for began := time.Now(); written(file).Equal(was) && time.Since(began) < 2*time.Second; {
				time.Sleep(100 * time.Microsecond)
			}
			time.Sleep(time.Duration(dice.Int64N(int64(time.Millisecond) << try)))
			must(t, n.Kill9())
			before := isOld(n)
			n.Path = older
			must(t, n.Start())
			if before {
				must(t, n.WaitReady(patience))
				must(t, l.Progress(5, patience))
				must(t, n.Kill9())
				came++
				continue
			}
			code, err := n.Wait(patience)
			must(t, err)
			if log := n.Tail(3); code != 1 || !strings.Contains(log, "node.json has format 2") {
				t.Errorf("the older program ends with %d: %s", code, log)
			}
			refused++
		}
		t.Logf("%s: the older program came %d times, and refused %d times", n.ID, came, refused)
		n.Path = newer
		must(t, n.Start())
		must(t, n.WaitReady(patience))
		must(t, l.Progress(50, patience))
		for _, i := range dice.Perm(len(c.Nodes)) { // of both programs
			must(t, c.Nodes[i].Restart()) // killed
			must(t, l.Progress(20, patience))
		}
	}
	verify(t, c, l)
	replicasAgree(t, c.Addrs(), "cut")
}
