package commands

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// Nobody behind the shim notices a rolling restart, and nothing is lost.
func TestRollingRestart(t *testing.T) {
	a := newLocalCluster(t, 3)
	a.ok("start")
	env := a.env()
	if err := harness.CreateTopic(t.Context(), env["SHIM"], "rolling", 6, 3); err != nil {
		t.Fatal(err)
	}
	before := env["PIDS"]
	load := harness.StartLoad("rolling", 6, []string{env["SHIM"]}, -1)
	defer load.Stop()
	if err := load.Progress(50, time.Minute); err != nil {
		t.Fatal(err)
	}
	r := a.command.run(t, filepath.Join(harness.Root(), "scripts", "rolling-restart.sh"))
	if r.code != 0 || strings.Count(r.out, "drained, restarted, caught up") != 3 {
		t.Fatalf("exit code %d\n%s%s", r.code, r.out, r.err)
	}
	if err := load.Progress(50, time.Minute); err != nil {
		t.Fatal(err)
	}
	if after := a.env()["PIDS"]; after == before {
		t.Errorf("the nodes are the same: %s", after)
	}
	t.Log(load)
	if n := load.Failures(); n > 0 {
		t.Errorf("%d errors behind the shim", n)
	}
	if err := load.Stop(); err != nil {
		t.Error(err)
	}
	for _, addr := range strings.Split(env["BROKERS"], ",") {
		if err := load.Verify(addr, time.Minute); err != nil {
			t.Error(err)
		}
	}
}

// Where a node is down the restart of another one could take a majority away, so it is refused.
func TestRollingRestartNeedsTheOtherNodes(t *testing.T) {
	a := newLocalCluster(t, 3)
	a.ok("start")
	a.ok("kill", "3")
	script := filepath.Join(harness.Root(), "scripts", "rolling-restart.sh")
	before := a.pid(1)
	err := harness.Eventually(time.Minute, func() bool { // until the others know
		return strings.Contains(a.ok("status"), "2 of 3 nodes up")
	})
	if err != nil {
		t.Fatal(err)
	}
	if r := a.command.run(t, script); r.code != 1 || !strings.Contains(r.err, "n3 is down") || a.pid(1) != before {
		t.Errorf("with a node down: exit code %d, node 1 was %s and is %s\n%s%s", r.code, before, a.pid(1), r.out, r.err)
	}
	if r := a.command.run(t, script, "3"); r.code != 1 || !strings.Contains(r.err, "node 3 does not run") {
		t.Errorf("of the node that is down: exit code %d\n%s", r.code, r.err)
	}
}
