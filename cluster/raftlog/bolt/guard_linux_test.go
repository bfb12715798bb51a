package bolt

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// TestAPageThatCannotBeReadIsAnError: bbolt reads by memory, where that is a fault which ends a
// process.
func TestAPageThatCannotBeReadIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	log, err := OpenLog(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := log.StoreLog(&raft.Log{Index: 1, Term: 1, Data: make([]byte, 100<<10)}); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 0); err != nil { // what is mapped has no bytes any more
		t.Fatal(err)
	}
	if err := log.GetLog(1, new(raft.Log)); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("reading says %v", err)
	}
}

func TestBoltRefusesASecondOpener(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	log, err := OpenLog(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if _, err := OpenLog(path, nil); err == nil || !strings.Contains(err.Error(), path) {
		t.Fatalf("second open: %v", err)
	}
}
