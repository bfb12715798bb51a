// Package commands uses the programs, scripts and examples as their help and
// the README say, word for word where that is possible.
//
// You are here: the outside, a user with a terminal.
package commands

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// patience bounds what a command may take on a machine that is busy with other tests.
const patience = 90 * time.Second

// command is one run of a program.
type command struct {
	stdin string
	env   []string
	dir   string
	limit time.Duration // patience if 0
}

// result is what it did.
type result struct {
	out, err string
	code     int
}

func (c command) run(t *testing.T, name string, args ...string) result {
	t.Helper()
	// Not the test's own context: clean-up runs commands too.
	limit := patience
	if c.limit > 0 {
		limit = c.limit
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(c.stdin)
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Dir = c.dir
	// In a group of its own, so that what a script started ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	r := result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%s %s: %v (%v)\n%s%s", name, strings.Join(args, " "), err, ctx.Err(), r.out, r.err)
	}
	return r
}

// ok runs a program that must succeed and gives its output.
func (c command) ok(t *testing.T, name string, args ...string) string {
	t.Helper()
	r := c.run(t, name, args...)
	if r.code != 0 {
		t.Fatalf("%s %s: exit code %d\n%s%s", name, strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

// known waits until every node has heard of a topic that a command has created: the next command
// may meet another one.
func known(t *testing.T, c *harness.Cluster, topic string, partitions int32) {
	t.Helper()
	if err := c.WaitTopic(topic, partitions); err != nil {
		t.Fatal(err)
	}
}

// program gives the path of a program as users have it.
func program(t *testing.T, name string) string {
	t.Helper()
	dir, err := harness.PlainBinaries()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// contains complains about each wanted text that is missing.
func contains(t *testing.T, what, text string, wanted ...string) {
	t.Helper()
	for _, w := range wanted {
		if !strings.Contains(text, w) {
			t.Errorf("%s does not show %q:\n%s", what, w, text)
		}
	}
}
