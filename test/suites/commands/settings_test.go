package commands

import (
	"bytes"
	"os"
	"testing"

	"github.com/trimaran-io/trimaran/test/harness"
)

// An acknowledgement means stable storage at a majority, and there is no setting under which it
// does not: the variables that benchmarks turn syncing and the journal off with are not in the
// program that users have. A program that does not hold a variable's name cannot ask for it.
func TestNoSettingTurnsSyncOff(t *testing.T) {
	variables := []string{"TRIMARAN_TEST_SYNC", "TRIMARAN_TEST_JOURNAL", "TRIMARAN_TEST_AHEAD"}
	read := func(path string, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	users := read(program(t, "trimaran"), nil)
	measuring := read(harness.MeasuringProgram())
	for _, v := range variables {
		if bytes.Contains(users, []byte(v)) {
			t.Errorf("the program that users have knows %s", v)
		}
		if !bytes.Contains(measuring, []byte(v)) {
			t.Errorf("the program that benchmarks run does not know %s: this test would not see it either", v)
		}
	}
	// Somebody who sets it all the same has what everybody has.
	c := harness.New(t, harness.Options{Nodes: 1, NoShim: true, Env: []string{"TRIMARAN_TEST_SYNC=off"}})
	log, err := os.ReadFile(c.Node(1).Log)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(log, []byte("not on stable storage")) {
		t.Errorf("TRIMARAN_TEST_SYNC=off is obeyed:\n%s", log)
	}
}
