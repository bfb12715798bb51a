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
	"path/filepath"
	"strings"
	"time"
)

// change replaces a text that occurs once in a file.
type change struct{ file, old, new string }

// mutant is code that is taken away, and the test that must fail then.
type mutant struct {
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
	root, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "trimaran-invariants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := copyTree(strings.TrimSpace(string(root)), dir); err != nil {
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

// copyTree copies what git knows, and what is new, without what it ignores.
func copyTree(root, dir string) error {
	list, err := exec.Command("git", "-C", root, "ls-files", "-co", "--exclude-standard").Output()
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(list)) {
		b, err := os.ReadFile(filepath.Join(root, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
			return err
		}
		if err := os.WriteFile(to, b, 0o666); err != nil {
			return err
		}
	}
	return nil
}

// apply makes the changes and gives what takes them back.
func (m mutant) apply(dir string) (undo func() error, err error) {
	before := map[string][]byte{}
	undo = func() (err error) {
		for name, b := range before {
			err = errors.Join(err, os.WriteFile(name, b, 0o666))
		}
		return err
	}
	for _, c := range m.changes {
		name := filepath.Join(dir, c.file)
		b, err := os.ReadFile(name)
		if err != nil {
			return undo, err
		}
		if n := strings.Count(string(b), c.old); n != 1 {
			return undo, fmt.Errorf("%s has %q %d times", c.file, c.old, n)
		}
		if before[name] == nil {
			before[name] = b
		}
		if err := os.WriteFile(name, []byte(strings.Replace(string(b), c.old, c.new, 1)), 0o666); err != nil {
			return undo, err
		}
	}
	return undo, nil
}

func (m mutant) try(dir string) (verdict string, err error) {
	undo, err := m.apply(dir)
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
