package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/trimaran-io/trimaran/test/harness"
)

// The code that the mutants change is there, and so are their tests; make invariants
// takes too long to run each time.
func TestMutantsFit(t *testing.T) {
	seen := map[int]bool{}
	for _, m := range mutants {
		seen[m.invariant] = true
		dir := t.TempDir()
		for _, c := range m.changes {
			b, err := os.ReadFile(filepath.Join(harness.Root(), c.file))
			if err != nil {
				t.Fatal(err)
			}
			to := filepath.Join(dir, c.file)
			if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to, b, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := m.apply(dir); err != nil {
			t.Errorf("%d, %s: %v", m.invariant, m.what, err)
		}
	}
	for i := 1; i <= 11; i++ {
		if !seen[i] {
			t.Errorf("nothing tries invariant %d", i)
		}
	}
}
