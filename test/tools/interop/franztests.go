package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// franzTests builds franz-go's own tests, as they are in the module that go.mod of the test module
// names.
func (p *preparer) franzTests(ctx context.Context, r row) (program, error) {
	dir, err := p.onceIn("franz-go-tests-"+r.version, nil, nil, func(dir string) error {
		list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/twmb/franz-go")
		list.Dir = filepath.Join(harness.Root(), "test")
		out, err := list.Output()
		if err != nil {
			return err
		}
		module := strings.TrimSpace(string(out))
		if !strings.HasSuffix(module, "@v"+r.version) {
			return fmt.Errorf("go.mod has %s, want %s", filepath.Base(module), r.version)
		}
		// The module's own go.mod says what its tests need; what Go has in its cache may not be
		// changed.
		if err := os.CopyFS(filepath.Join(dir, "module"), os.DirFS(module)); err != nil {
			return err
		}
		return command(ctx, filepath.Join(dir, "module"), nil, "go", "test", "-c", "-o", filepath.Join(dir, "kgo.test"), "./pkg/kgo")
	})
	// What tests say of a failure is on stdout, and the log is stderr.
	return program{command: []string{"sh", "-c", `exec "$0" "$@" >&2`, filepath.Join(dir, "kgo.test")},
		env: []string{"KGO_LOG_LEVEL=" + cmp.Or(os.Getenv("KGO_LOG_LEVEL"), "none")}}, err
}

// franzChain runs franz-go's tests of chains of groups that consume, modify and produce, in
// transactions and without, with each of its balancers: each record must come through each chain
// once. They run twice, the second time with connections that end after a second. In the pass with
// kills nodes die all the while. Without the shim clients see the nodes then, not one broker: this
// client looks for a broker that is down at its last address until its metadata is old.
func franzChain(ctx context.Context, a *attempt) (err error) {
	if a.pass == "kill" && a.way == "tcp" {
		end, failed := a.ownCluster(harness.Options{NodeArgs: []string{"--list-gateways"}})
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, end()) }()
	}
	for _, chaos := range []string{"0", "1"} {
		for _, test := range []string{"TestTxnEtl", "TestGroupETL"} {
			if err := a.franzTest(ctx, test, chaos); err != nil {
				return fmt.Errorf("%s with KGO_TEST_CHAOS=%s: %w", test, chaos, err)
			}
		}
	}
	return nil
}

// franzTries is how often a test is run in which a member gives up joining its group. The client
// gives up when it finds no coordinator in two tries, both at the node that was killed, and then a
// test ends, before any cluster.
const franzTries = 4

func (a *attempt) franzTest(ctx context.Context, test, chaos string) error {
	for try := 1; ; try++ {
		c, err := a.franzTestOnce(ctx, fmt.Sprintf("%s-chaos-%s-%d", test, chaos, try), test, chaos)
		if err == nil || c == nil || try == franzTries || !gaveUpJoining(c.log, test) {
			return err
		}
		a.note("%s with KGO_TEST_CHAOS=%s once more: a member gave up joining its group", test, chaos)
	}
}

func (a *attempt) franzTestOnce(ctx context.Context, name, test, chaos string) (*client, error) {
	a.trace("%s", name)
	within := 4 * a.deadline()
	a.env = append(slices.Clip(a.env), "KGO_SEEDS="+a.bootstrap(a.way, nil), "KGO_TEST_CHAOS="+chaos, fmt.Sprint("KGO_TEST_RECORDS=", 3*a.records))
	c, err := a.startClient(ctx, name, "-test.run", "^"+test+"$", "-test.timeout", (within - 10*time.Second).String(), "-test.v")
	if err != nil {
		return nil, err
	}
	stop := a.killInTurn(ctx)
	err = c.wait(within)
	return c, errors.Join(err, stop())
}

// What a test says: all of it, and what of it is no complaint.
var (
	franzSays  = regexp.MustCompile(`^\s*(\w+_test\.go:\d+: |testConsumer sendErr |panic: )`)
	franzTells = regexp.MustCompile(`_test\.go:\d+: (deleting |FAILED TESTING|unable to delete |broker does not support|\S+ completed in )`)
)

// franzGroup finds the group in what a member says.
var franzGroup = regexp.MustCompile(`testConsumer sendErr group=(\w+): `)

// gaveUpJoining reports whether the test complains of that and of nothing else, but for what
// follows from it where there are no transactions: who gives up has not committed what it read, and
// others of its group read it again.
func gaveUpJoining(log, test string) bool {
	b, err := os.ReadFile(log)
	if err != nil {
		return false
	}
	gaveUp := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		if !franzSays.MatchString(line) || franzTells.MatchString(line) {
			continue
		}
		group := ""
		if m := franzGroup.FindStringSubmatch(line); m != nil {
			group = m[1]
		}
		switch {
		case strings.Contains(line, "unable to join group session"):
			gaveUp[group] = true
		case test == "TestGroupETL" && group != "" && gaveUp[group] && strings.Contains(line, ": saw double offset "):
		default:
			return false
		}
	}
	return len(gaveUp) > 0
}
