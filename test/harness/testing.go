package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// New starts a cluster for one test and ends it with the test. When the test
// fails, the last lines of every log are printed and, with TRIMARAN_KEEP set to
// a folder, the full logs are copied there. A data race or a panic in any
// process fails the test.
func New(t testing.TB, o Options) *Cluster {
	t.Helper()
	c, err := Start(o)
	Watch(t, c)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Watch ends a cluster with the test, as New does.
func Watch(t testing.TB, c *Cluster) {
	t.Cleanup(func() {
		if t.Failed() {
			report(t, c)
		}
		if s := c.Close(); s != "" {
			t.Errorf("a process complained:\n%s", s)
		}
	})
}

func report(t testing.TB, c *Cluster) {
	t.Logf("logs:\n%s", c.Logs(40))
	if keep := os.Getenv("TRIMARAN_KEEP"); keep != "" {
		dir := filepath.Join(keep, filepath.Base(c.Dir))
		os.MkdirAll(dir, 0o777)
		logs, _ := filepath.Glob(filepath.Join(c.Dir, "*.log"))
		for _, l := range logs {
			b, _ := os.ReadFile(l)
			os.WriteFile(filepath.Join(dir, filepath.Base(l)), b, 0o666)
		}
		t.Logf("full logs in %s", dir)
	}
}

var shared struct {
	sync.Mutex
	cluster *Cluster
	err     error
}

// Shared gives the one cluster that the quiet tests of a package use together:
// three nodes and a shim. Tests that break nodes start their own with New. Main
// ends it.
func Shared(t testing.TB) *Cluster {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster == nil && shared.err == nil {
		shared.cluster, shared.err = Start(Options{})
		if shared.err != nil && shared.cluster != nil {
			shared.err = fmt.Errorf("%w\n%s", shared.err, shared.cluster.Logs(40))
		}
	}
	if shared.err != nil {
		t.Fatalf("the shared cluster: %v", shared.err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			report(t, shared.cluster)
		}
	})
	return shared.cluster
}

// Main runs a package's tests and leaves nothing behind. Call it from TestMain.
func Main(m *testing.M) {
	code := m.Run()
	if shared.cluster != nil {
		if s := shared.cluster.Close(); s != "" {
			fmt.Fprintf(os.Stderr, "FAIL: a process of the shared cluster complained:\n%s\n", s)
			code = 1
		}
	}
	RemoveBinaries()
	os.Exit(code)
}

// Need skips a test whose tool is missing on this machine, with the reason; with
// CI=true or TRIMARAN_REQUIRE_CLIENTS=1 a missing tool fails the test.
func Need(t testing.TB, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if os.Getenv("CI") == "true" || os.Getenv("TRIMARAN_REQUIRE_CLIENTS") == "1" {
		t.Fatalf("needed here: %v", err)
	}
	t.Skipf("skipped: %v (CI=true or TRIMARAN_REQUIRE_CLIENTS=1 makes this a failure)", err)
}
