package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A test is run again where a member gave up joining, and not where anything else is wrong with it.
func TestGaveUpJoining(t *testing.T) {
	const (
		told  = "    helpers_test.go:855: TestTxnEtl/range completed in 19.8s\n    helpers_test.go:921: FAILED TESTING -- NOT DELETING GROUP 08eb\n    helpers_test.go:923: unable to delete group \"b1\": NON_EMPTY_GROUP\n"
		gone  = "    testConsumer sendErr group=68: poll got unexpected errs: [{ 0 unable to join group session: NOT_COORDINATOR}]\n"
		fatal = "    helpers_test.go:978: poll got unexpected errs: [{ 0 unable to join group session: NOT_COORDINATOR}]\n"
	)
	const twice = "    testConsumer sendErr group=68: saw double offset t p0 o3\n"
	for name, c := range map[string]struct {
		log, test string
		want      bool
	}{
		"well":                    {told, "TestTxnEtl", false},
		"gave up":                 {told + gone + fatal, "TestTxnEtl", true},
		"twice":                   {gone + told + twice, "TestTxnEtl", false},
		"not committed":           {gone + told + twice, "TestGroupETL", true},
		"twice, and then gave up": {twice + gone, "TestGroupETL", false},
		"twice in another group":  {gone + strings.ReplaceAll(twice, "68", "69"), "TestGroupETL", false},
		"refused":                 {gone + "    txn_test.go:83: unexpected produce err: INVALID_TXN_STATE\n", "TestTxnEtl", false},
		"too much, panic":         {gone + "panic: invalid: consumed too much from t\n", "TestGroupETL", false},
	} {
		file := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(file, []byte("--- kgo.test\n=== RUN   TestTxnEtl\n"+c.log+"FAIL\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := gaveUpJoining(file, c.test); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if gaveUpJoining(filepath.Join(t.TempDir(), "none"), "TestGroupETL") {
		t.Error("no log")
	}
}
