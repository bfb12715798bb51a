// Package mutant takes code away from a copy of the repository, to see who notices.
//
// You are here: below tools/invariants, where tests have to notice, and tools/transactions/mutants,
// where the checker of transactions has to.
package mutant

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Change replaces a text that occurs once in a file, whose name is within the repository.
type Change struct{ File, Old, New string }

// Copy copies what git knows of the repository at root, and what is new, without what it ignores.
func Copy(root, dir string) error {
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

// Apply makes the changes in the copy and gives what takes them back, also with an error.
func Apply(dir string, changes []Change) (undo func() error, err error) {
	before := map[string][]byte{}
	undo = func() (err error) {
		for name, b := range before {
			err = errors.Join(err, os.WriteFile(name, b, 0o666))
		}
		return err
	}
	for _, c := range changes {
		name := filepath.Join(dir, c.File)
		b, err := os.ReadFile(name)
		if err != nil {
			return undo, err
		}
		if n := strings.Count(string(b), c.Old); n != 1 {
			return undo, fmt.Errorf("%s has %q %d times", c.File, c.Old, n)
		}
		if before[name] == nil {
			before[name] = b
		}
		if err := os.WriteFile(name, []byte(strings.Replace(string(b), c.Old, c.New, 1)), 0o666); err != nil {
			return undo, err
		}
	}
	return undo, nil
}

// Fits says why the changes cannot be made in the repository as it is; nil: they can.
// It works in dir, which is empty.
func Fits(root, dir string, changes []Change) error {
	for _, c := range changes {
		b, err := os.ReadFile(filepath.Join(root, c.File))
		if err != nil {
			return err
		}
		to := filepath.Join(dir, c.File)
		if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
			return err
		}
		if err := os.WriteFile(to, b, 0o666); err != nil {
			return err
		}
	}
	_, err := Apply(dir, changes)
	return err
}
