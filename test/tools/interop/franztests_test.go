package main

import (
	"os"
	"path/filepath"
	"testing"
)

// A test is run again where a member gave up joining, and not where anything else is wrong with it.
func TestGaveUpJoining(t *testing.T) {
	const (
		told  = "    helpers_test.go:855: TestTxnEtl/range completed in 19.8s\n    helpers_test.go:921: FAILED TESTING -- NOT DELETING GROUP 08eb\n    helpers_test.go:923: unable to delete group \"b1\": NON_EMPTY_GROUP\n"
		gone  = "    testConsumer sendErr group=68: poll got unexpected errs: [{ 0 unable to join group session: NOT_COORDINATOR}]\n"
		fatal = "    helpers_test.go:978: poll got unexpected errs: [{ 0 unable to join group session: NOT_COORDINATOR}]\n"
	)
	for name, c := range map[string]struct {
		log  string
		want bool
	}{
		"well":            {told, false},
		"gave up":         {told + gone + fatal, true},
		"twice":           {gone + told + "    testConsumer sendErr group=68: saw double offset t p0 o3\n", false},
		"refused":         {gone + "    txn_test.go:83: unexpected produce err: INVALID_TXN_STATE\n", false},
		"too much, panic": {gone + "panic: invalid: consumed too much from t\n", false},
	} {
		file := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(file, []byte("--- kgo.test\n=== RUN   TestTxnEtl\n"+c.log+"FAIL\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := gaveUpJoining(file); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if gaveUpJoining(filepath.Join(t.TempDir(), "none")) {
		t.Error("no log")
	}
}
