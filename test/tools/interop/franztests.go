package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
// kills nodes die all the while.
func franzChain(ctx context.Context, a *attempt) error {
	tests := []string{"TestTxnEtl", "TestGroupETL"}
	for _, chaos := range []string{"0", "1"} {
		for _, test := range tests {
			if err := a.franzTest(ctx, test, chaos); err != nil {
				return fmt.Errorf("%s with KGO_TEST_CHAOS=%s: %w", test, chaos, err)
			}
		}
	}
	return nil
}

func (a *attempt) franzTest(ctx context.Context, test, chaos string) error {
	a.trace("%s, KGO_TEST_CHAOS=%s", test, chaos)
	within := 4 * a.deadline()
	a.env = append(slices.Clip(a.env), "KGO_SEEDS="+a.bootstrap(a.way, nil), "KGO_TEST_CHAOS="+chaos, fmt.Sprint("KGO_TEST_RECORDS=", 3*a.records))
	c, err := a.startClient(ctx, test+"-chaos-"+chaos, "-test.run", "^"+test+"$", "-test.timeout", (within - 10*time.Second).String(), "-test.v")
	if err != nil {
		return err
	}
	stop := a.killInTurn(ctx)
	err = c.wait(within)
	return errors.Join(err, stop())
}
