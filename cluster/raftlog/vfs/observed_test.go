package vfs

import (
	"path/filepath"
	"testing"
	"time"
)

// Each sync of each file is told, of files made and of files opened, and nothing else is.
func TestObservedSyncs(t *testing.T) {
	var told []time.Duration
	disk := Observed(func(took time.Duration) { told = append(told, took) })
	name := filepath.Join(t.TempDir(), "file")
	made, err := disk.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	opened, err := disk.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	for _, f := range []File{made, opened, made} {
		if _, err := f.WriteAt([]byte("x"), 0); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	if len(told) != 3 {
		t.Fatalf("%d syncs were told, want 3", len(told))
	}
	for _, took := range told {
		if took <= 0 {
			t.Errorf("a sync took %v", took)
		}
	}
}
