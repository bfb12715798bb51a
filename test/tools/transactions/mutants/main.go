// Command mutants takes away one defence of transactions after the other, in a copy of the
// repository, builds the program without it, and has the checker of transactions (the folder above)
// look at it: it must name an anomaly. Nothing taken away, it must name none.
//
// Usage: go run ./tools/transactions/mutants [-only guard,epoch] [-seconds 60], in the folder test,
// as root. It ends with 1 if a mutant was not found.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/trimaran-io/trimaran/test/harness/mutant"
)

// broken is a program without one of its defences.
type broken struct {
	name, what string
	changes    []mutant.Change
	version    int  // of the protocol in which it counts; everyone: both
	harmless   bool // no anomaly comes of it
}

func main() {
	only := flag.String("only", "", "names of mutants, with commas between them; all when empty: "+strings.Join(names(), ","))
	seconds := flag.Int("seconds", 60, "how long to produce; with a mutant that is not found once more, twice as long")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *only, *seconds); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func names() (all []string) {
	for _, m := range mutants {
		all = append(all, m.name)
	}
	return all
}

func run(ctx context.Context, only string, seconds int) error {
	wanted := names()
	if only != "" {
		wanted = strings.Split(only, ",")
	}
	for _, name := range wanted {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("there is no mutant %q", name)
		}
	}
	dir, err := os.MkdirTemp("", "trimaran-mutants-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	tree, bin := filepath.Join(dir, "tree"), filepath.Join(dir, "bin")
	if err := mutant.Copy(harness.Root(), tree); err != nil {
		return err
	}
	checker := filepath.Join(dir, "checker")
	if err := build(ctx, filepath.Join(tree, "test"), checker, "./tools/transactions"); err != nil {
		return err
	}
	var wrong []string
	for _, m := range mutants {
		if !slices.Contains(wanted, m.name) {
			continue
		}
		undo, err := mutant.Apply(tree, m.changes)
		if err == nil {
			err = build(ctx, tree, bin+string(filepath.Separator), "./cmd/trimaran", "./cmd/trimaran-shim")
		}
		if err = errors.Join(err, undo()); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		for _, version := range []int{2, 1} {
			if m.version != everyone && m.version != version {
				continue
			}
			began := time.Now()
			found, err := m.check(ctx, checker, bin, version, seconds)
			if err == nil && len(found) == 0 && !m.harmless {
				found, err = m.check(ctx, checker, bin, version, 2*seconds)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			what := strings.Join(found, ", ")
			if len(found) == 0 {
				what = "no anomaly"
			}
			if m.harmless != (len(found) == 0) {
				wrong = append(wrong, m.name)
				what = "WRONG: " + what
			}
			fmt.Printf("%-8s  version %d  %-58s %s (%.0f s)\n", m.name, version, m.what, what, time.Since(began).Seconds())
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("not as it should be: %s", strings.Join(wrong, ", "))
	}
	return nil
}

func build(ctx context.Context, dir, to string, packages ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-buildvcs=false", "-o", to}, packages...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

var anomaly = regexp.MustCompile(`(?m)^ANOMALY +(\d+) × (.*)$`)

// check runs the checker and gives the anomalies that it named.
func (m broken) check(ctx context.Context, checker, bin string, version, seconds int) (found []string, err error) {
	args := []string{"-seconds", strconv.Itoa(seconds), "-seed", "1"}
	if version == 1 {
		args = append(args, "-v1")
	}
	cmd := exec.CommandContext(ctx, checker, args...)
	// So that the checker takes its nodes down.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Env = append(os.Environ(), "TRIMARAN_BIN="+bin)
	out, err := cmd.CombinedOutput()
	for _, line := range anomaly.FindAllStringSubmatch(string(out), -1) {
		found = append(found, line[1]+" × "+line[2])
	}
	if len(found) == 0 && err != nil {
		return nil, fmt.Errorf("the checker ended with %w and names no anomaly:\n%s", err, out)
	}
	return found, nil
}
