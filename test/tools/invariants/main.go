// Command invariants takes away the code that keeps each invariant of the partition
// log (docs/architecture.md, "What the log holds to"), one piece at a time, in a copy
// of the repository, and runs the test that must notice. It fails if a test passes
// without the code that it is about.
//
// Usage: go run ./tools/invariants [-only 5], in the folder test. About three minutes.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/trimaran-io/trimaran/test/harness/mutant"
)

// change is a mutant.Change. There are many of them.
type change struct{ File, Old, New string }

// broken is code that is taken away, and the test that must fail then.
type broken struct {
	invariant int
	what      string
	changes   []change
	pkg, test string
}

func main() {
	only := flag.Int("only", 0, "the invariant to try; 0: all")
	flag.Parse()
	if err := run(*only); err != nil {
		fmt.Fprintln(os.Stderr, "invariants:", err)
		os.Exit(1)
	}
}

func run(only int) error {
	dir, err := os.MkdirTemp("", "trimaran-invariants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := mutant.Copy(harness.Root(), dir); err != nil {
		return err
	}
	var survivors []string
	for _, m := range mutants {
		if only != 0 && m.invariant != only {
			continue
		}
		began := time.Now()
		verdict, err := m.try(dir)
		if err != nil {
			return fmt.Errorf("%d, %s: %w", m.invariant, m.what, err)
		}
		if verdict != "noticed" {
			survivors = append(survivors, m.what)
		}
		fmt.Printf("%2d  %-58s %-10s %s, %.0f s\n", m.invariant, m.what, verdict, m.test, time.Since(began).Seconds())
	}
	if len(survivors) > 0 {
		return fmt.Errorf("no test noticed: %s", strings.Join(survivors, "; "))
	}
	return nil
}

func (m broken) list() (all []mutant.Change) {
	for _, c := range m.changes {
		all = append(all, mutant.Change(c))
	}
	return all
}

func (m broken) try(dir string) (verdict string, err error) {
	undo, err := mutant.Apply(dir, m.list())
	if err != nil {
		return "", errors.Join(err, undo())
	}
	cmd := exec.Command("go", "test", "-count=1", "-timeout=4m", "-run", "^("+m.test+")$", m.pkg)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if uerr := undo(); uerr != nil {
		return "", uerr
	}
	switch {
	case strings.Contains(string(out), "[build failed]"), strings.Contains(string(out), "no tests to run"), strings.Contains(string(out), "[setup failed]"):
		return "", errors.New(string(out))
	case err == nil:
		return "NOT NOTICED", nil
	}
	return "noticed", nil
}
