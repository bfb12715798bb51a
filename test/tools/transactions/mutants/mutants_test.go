package main

import (
	"testing"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/trimaran-io/trimaran/test/harness/mutant"
)

// The code that the mutants change is there; make transactions-mutants takes too long to run each
// time.
func TestMutantsFit(t *testing.T) {
	for _, m := range mutants {
		if err := mutant.Fits(harness.Root(), t.TempDir(), m.changes); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
}
