package commands

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// localCluster is one cluster of scripts/cluster.sh with ports and a folder of its own.
type localCluster struct {
	t       *testing.T
	command command
	run     string
	port    int // the first
}

func newLocalCluster(t *testing.T, nodes int) *localCluster {
	t.Helper()
	offsets := []int{0}
	for i := 1; i <= nodes; i++ {
		offsets = append(offsets, i, 100+i, 200+i)
	}
	port, err := harness.FreePortBase(offsets...)
	if err != nil {
		t.Fatal(err)
	}
	l := &localCluster{t: t, run: filepath.Join(t.TempDir(), "run"), port: port}
	bin, err := harness.PlainBinaries()
	if err != nil {
		t.Fatal(err)
	}
	l.command.env = []string{"TRIMARAN_RUN=" + l.run, fmt.Sprint("TRIMARAN_PORT=", port), "TRIMARAN_BIN=" + bin}
	l.command.dir = harness.Root()
	t.Cleanup(func() { l.sh("clean") })
	return l
}

func (l *localCluster) sh(args ...string) result {
	l.t.Helper()
	return l.command.run(l.t, filepath.Join(harness.Root(), "scripts", "cluster.sh"), args...)
}

func (l *localCluster) ok(args ...string) string {
	l.t.Helper()
	r := l.sh(args...)
	if r.code != 0 {
		l.t.Fatalf("cluster.sh %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

// env reads the file that start writes.
func (l *localCluster) env() map[string]string {
	l.t.Helper()
	b, err := os.ReadFile(filepath.Join(l.run, "env"))
	if err != nil {
		l.t.Fatal(err)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(b)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok {
			out[strings.TrimPrefix(name, "export ")] = strings.Trim(value, `"'`)
		}
	}
	return out
}

// pid gives node n's process id as PIDS says ("1:123 2:456").
func (l *localCluster) pid(n int) string {
	m := regexp.MustCompile(fmt.Sprintf(`(?:^| )%d:(\d+)`, n)).FindStringSubmatch(l.env()["PIDS"])
	if m == nil {
		return ""
	}
	return m[1]
}

func processState(pid string) string {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return ""
	}
	s := string(b)
	return strings.Fields(s[strings.LastIndexByte(s, ')')+1:])[0]
}

// Every verb of scripts/cluster.sh, while a second cluster runs beside it.
func TestClusterScript(t *testing.T) {
	t.Parallel()
	a, b := newLocalCluster(t, 3), newLocalCluster(t, 1)
	a.ok("start")
	b.ok("start", "--nodes", "1")
	env := a.env()
	if n := len(strings.Split(env["BROKERS"], ",")); n != 3 || env["SHIM"] == "" || len(strings.Split(env["GATEWAYS"], ",")) != 3 {
		t.Fatalf("env: %v", env)
	}
	if b.env()["SHIM"] == env["SHIM"] {
		t.Fatal("the two clusters share an address")
	}
	bin := program(t, "trimaran")
	use := func(brokers, stdin string) command {
		return command{env: []string{"TRIMARAN_BROKERS=" + brokers}, stdin: stdin}
	}
	contains(t, "status", a.ok("status"), "n1", "n2", "n3")
	use(env["SHIM"], "one\n").ok(t, bin, "produce", "script")

	pid := a.pid(2)
	a.ok("kill", "2")
	if s := processState(pid); s != "" && s != "Z" {
		t.Errorf("node 2 (pid %s) lives after kill: %s", pid, s)
	}
	if r := a.sh("kill", "2"); r.code == 0 {
		t.Errorf("a dead node was killed again, with success")
	}
	use(env["SHIM"], "two\n").ok(t, bin, "produce", "script")
	a.ok("restart", "2")
	if a.pid(2) == pid || a.pid(2) == "" {
		t.Errorf("PIDS still names %s for node 2: %v", pid, a.env()["PIDS"])
	}
	a.ok("pause", "3")
	// A signal is taken a moment after it was sent.
	state := func(want func(string) bool) func() bool {
		return func() bool { return want(processState(a.pid(3))) }
	}
	if err := harness.Eventually(10*time.Second, state(func(s string) bool { return s == "T" })); err != nil {
		t.Errorf("node 3 is in state %q after pause", processState(a.pid(3)))
	}
	a.ok("resume", "3")
	if err := harness.Eventually(10*time.Second, state(func(s string) bool { return s != "T" })); err != nil {
		t.Errorf("node 3 is still stopped after resume")
	}
	for _, broker := range strings.Split(env["BROKERS"], ",") {
		if got := sorted(use(broker, "").ok(t, bin, "consume", "script")); got != "one two" {
			t.Errorf("%s gives %q", broker, got)
		}
	}

	// Stop keeps the data; start brings it back.
	pids := []string{a.pid(1), a.pid(2), a.pid(3)}
	a.ok("stop")
	for _, pid := range pids {
		if s := processState(pid); s != "" && s != "Z" {
			t.Errorf("pid %s lives after stop: %s", pid, s)
		}
	}
	contains(t, "the other cluster's status", b.ok("status"), "n1")
	a.ok("start")
	if got := sorted(use(a.env()["SHIM"], "").ok(t, bin, "consume", "script")); got != "one two" {
		t.Errorf("after stop and start: %q", got)
	}
	if strings.Contains(use(b.env()["SHIM"], "").ok(t, bin, "topic", "list"), "script") {
		t.Errorf("the other cluster has the topic too")
	}
	a.ok("clean")
	if _, err := os.Stat(a.run); err == nil {
		left, _ := os.ReadDir(a.run)
		if len(left) > 0 {
			t.Errorf("clean leaves %v", left)
		}
	}
	for _, verb := range [][]string{{"frobnicate"}, {"kill"}, {"kill", "77"}, {"kill", "1", "2"}, {"status", "1"}, {"start", "--nodes", "x"}} {
		if r := b.sh(verb...); r.code == 0 {
			t.Errorf("cluster.sh %v succeeds", verb)
		}
	}
}

// A port of the second node is taken: start says so at once, and leaves nothing running.
func TestClusterScriptSaysWhoseStartFailed(t *testing.T) {
	l := newLocalCluster(t, 3)
	taken, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", l.port+202))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	began := time.Now()
	r := l.sh("start")
	if r.code == 0 || time.Since(began) > 30*time.Second {
		t.Errorf("exit code %d after %v", r.code, time.Since(began))
	}
	contains(t, "what start says", r.err, "node 2 has ended", "address already in use")
	contains(t, "status", l.sh("status").out, "nothing runs")
}

// A node starts its program once more in its process, which has no command line for a moment.
func TestClusterScriptKnowsAProcessThatStartsItselfAnew(t *testing.T) {
	l := newLocalCluster(t, 1)
	bin := t.TempDir()
	fake := filepath.Join(bin, "trimaran")
	script := "#!/bin/bash\n[ \"$1\" = serve ] || exit 0\n" +
		"[ \"${N:-0}\" -ge 100000 ] || N=$((N+1)) exec \"$0\" \"$@\"\n"
	if err := os.WriteFile(fake, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	l.command.env = append(l.command.env, "TRIMARAN_BIN="+bin)
	if err := os.Mkdir(l.run, 0o755); err != nil {
		t.Fatal(err)
	}
	node := exec.Command(fake, "serve", "--data", filepath.Join(l.run, "n1"), "--node-id", "n1")
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = node.Process.Kill(); _ = node.Wait() }()
	for file, what := range map[string]string{"n1.log": "", "n1.pid": fmt.Sprintln(node.Process.Pid)} {
		if err := os.WriteFile(filepath.Join(l.run, file), []byte(what), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 30 {
		if out := l.sh("status").out; !strings.Contains(out, "n1: runs") {
			t.Fatalf("look %d: %s", i, out)
		}
	}
}

func sorted(lines string) string {
	f := strings.Fields(lines)
	for i := range f {
		for j := i; j > 0 && f[j] < f[j-1]; j-- {
			f[j], f[j-1] = f[j-1], f[j]
		}
	}
	return strings.Join(f, " ")
}

// A short run of the durability script: it counts, loses nothing and leaves nothing.
func TestDurabilityScript(t *testing.T) {
	t.Parallel()
	l := newLocalCluster(t, 3)
	l.command.limit = 2 * patience
	start := time.Now()
	r := l.command.run(t, filepath.Join(harness.Root(), "scripts", "durability.sh"), "--seconds", "12")
	t.Logf("%s in %s:\n%s", "durability.sh --seconds 12", time.Since(start).Round(time.Second), r.out)
	if r.code != 0 {
		t.Fatalf("exit code %d\n%s", r.code, r.err)
	}
	low := strings.ToLower(r.out)
	contains(t, "the report", low, "acknowledged", "lost", "moved", "duplicate")
}

// What cannot be is said before a cluster is started.
func TestDurabilityScriptRefusesNonsense(t *testing.T) {
	t.Parallel()
	l := newLocalCluster(t, 3)
	for _, args := range [][]string{{"--seconds", "x"}, {"--seconds"}, {"--nodes", "10"}, {"--seed", "-1"}, {"--tempest"}} {
		if r := l.command.run(t, filepath.Join(harness.Root(), "scripts", "durability.sh"), args...); r.code == 0 || strings.Contains(r.out, "node(s)") {
			t.Errorf("%v: exit code %d\n%s", args, r.code, r.out)
		}
	}
}

// A short storm over five nodes.
func TestStormScript(t *testing.T) {
	t.Parallel()
	l := newLocalCluster(t, 5)
	l.command.limit = 2 * patience
	r := l.command.run(t, filepath.Join(harness.Root(), "scripts", "durability.sh"), "--storm", "--seconds", "8")
	t.Logf("durability.sh --storm:\n%s", r.out)
	if r.code != 0 {
		t.Fatalf("exit code %d\n%s", r.code, r.err)
	}
	contains(t, "the report", r.out, "5 node(s)", "seed", "result: nothing lost, moved or doubled")
	l.nothingRuns()
}

// Nodes join, one is decommissioned, one is replaced. Those that went are forgotten: the
// cluster starts again without them.
func TestComeAndGoScript(t *testing.T) {
	t.Parallel()
	l := newLocalCluster(t, 6)
	l.command.limit = 5 * time.Minute
	r := l.command.run(t, filepath.Join(harness.Root(), "scripts", "durability.sh"), "--come-and-go", "--seconds", "5")
	t.Logf("durability.sh --come-and-go:\n%s", r.out)
	if r.code != 0 {
		t.Fatalf("exit code %d\n%s", r.code, r.err)
	}
	contains(t, "the report", r.out, "n1 has left the cluster", "n2 has left the cluster", "result: nothing lost, moved or doubled")
	l.nothingRuns()
	l.ok("start")
	if pids := l.env()["PIDS"]; l.pid(1) != "" || l.pid(2) != "" || len(strings.Fields(pids)) != 4 || len(strings.Split(l.env()["BROKERS"], ",")) != 4 {
		t.Errorf("started again: %v", l.env())
	}
	if r := l.sh("restart", "1"); r.code == 0 {
		t.Error("a forgotten node was started again")
	}
}

func (l *localCluster) nothingRuns() {
	l.t.Helper()
	if r := l.sh("status"); r.code == 0 || !strings.Contains(r.out, "nothing runs") {
		l.t.Errorf("cluster.sh status: exit code %d\n%s", r.code, r.out)
	}
}

// The program behind make demo.
func TestDemo(t *testing.T) {
	t.Parallel()
	bin, err := harness.PlainBinaries()
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile(filepath.Join(harness.Root(), "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^demo:`).Match(makefile) {
		t.Fatal("the Makefile has no target demo")
	}
	port, err := harness.FreePortBase(0, 1, 2, 3, 101, 102, 103, 201, 202, 203)
	if err != nil {
		t.Fatal(err)
	}
	c := command{dir: harness.Root(), env: []string{
		"TRIMARAN_RUN=" + filepath.Join(t.TempDir(), "run"), fmt.Sprint("TRIMARAN_PORT=", port), "TRIMARAN_BIN=" + bin,
	}}
	out := c.ok(t, "make", "demo")
	t.Log(out)
	contains(t, "the report", strings.ToLower(out), "kill")
	if err := harness.WaitTCP(harness.Loopback(port), 100*time.Millisecond); err == nil {
		t.Error("something still listens on the shim's port")
	}
}
