package main

import (
	"testing"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/trimaran-io/trimaran/test/harness/mutant"
)

// The code that the mutants change is there, and so are their tests; make invariants
// takes too long to run each time.
func TestMutantsFit(t *testing.T) {
	seen := map[int]bool{}
	for _, m := range mutants {
		seen[m.invariant] = true
		if err := mutant.Fits(harness.Root(), t.TempDir(), m.list()); err != nil {
			t.Errorf("%d, %s: %v", m.invariant, m.what, err)
		}
	}
	for i := 1; i <= 11; i++ {
		if !seen[i] {
			t.Errorf("nothing tries invariant %d", i)
		}
	}
}
