package backup

import (
	"errors"
	"path/filepath"
	"testing"
)

// TestAFileCountsAsThereWhenItIsSynced: after a sync that failed, an attempt does not take what it
// finds for stored before the file and all its folders were synced.
func TestAFileCountsAsThereWhenItIsSynced(t *testing.T) {
	for _, folder := range []string{"", "a", "a/b"} {
		s := newFileStore(t.TempDir())
		bad, synced := errors.New("bad disk"), map[string]bool{}
		fails := true
		s.sync = func(path string) error {
			if fails && path == filepath.Join(s.root, folder) {
				return bad
			}
			synced[path] = true
			return syncPath(path)
		}
		for range 3 {
			if err := s.Put(t.Context(), "a/b/key", []byte("x")); !errors.Is(err, bad) {
				t.Errorf("%q is not synced: %v", folder, err)
			}
		}
		fails = false
		clear(synced)
		if err := s.Put(t.Context(), "a/b/key", []byte("x")); err != nil && !errors.Is(err, ErrExists) {
			t.Errorf("%q: %v", folder, err)
		}
		if !synced[filepath.Join(s.root, folder)] || !synced[filepath.Join(s.root, "a/b")] {
			t.Errorf("%q: synced are %v", folder, synced)
		}
	}
}
