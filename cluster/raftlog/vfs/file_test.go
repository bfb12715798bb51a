package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"testing"
)

// A crash at any operation leaves one of the two contents, and the new one once the call has
// returned.
func TestReplaceFileIsOneStep(t *testing.T) {
	for steps := 0; ; steps++ {
		m := NewMem()
		if err := m.MkdirAll("/d"); err != nil {
			t.Fatal(err)
		}
		if err := m.SyncDir("/"); err != nil {
			t.Fatal(err)
		}
		if err := ReplaceFile(m, "/d/f", []byte("old")); err != nil {
			t.Fatal(err)
		}
		done := 0
		m.OnStep(func(string, string) {
			if done++; done > steps {
				m.Stop()
			}
		})
		err := ReplaceFile(m, "/d/f", []byte("newer"))
		after := m.Crash(rand.New(rand.NewPCG(uint64(steps), 7)))
		got, rerr := ReadFile(after, "/d/f", 10)
		if rerr != nil || string(got) != "newer" && (err == nil || string(got) != "old") {
			t.Fatalf("after %d operations, which gave %v: %q, %v", steps, err, got, rerr)
		}
		if err == nil {
			if steps < 4 {
				t.Errorf("it took %d operations", steps)
			}
			return
		}
	}
}

func TestReplaceFileTellsWhatASyncSays(t *testing.T) {
	for _, op := range []string{"sync", "syncdir"} {
		failing := Failing{FS: NewMem(), Fail: func(did, _ string) error {
			if did == op {
				return errors.New("medium error")
			}
			return nil
		}}
		if err := ReplaceFile(failing, "/f", nil); !errors.As(err, new(NotSynced)) {
			t.Errorf("%s: %v", op, err)
		}
	}
	failing := Failing{FS: NewMem(), Fail: func(op, _ string) error {
		if op == "write" {
			return errors.New("medium error")
		}
		return nil
	}}
	if err := ReplaceFile(failing, "/f", []byte("x")); err == nil || errors.As(err, new(NotSynced)) {
		t.Errorf("a write: %v", err)
	}
}

func TestAFileIsReadAsFarAsItMay(t *testing.T) {
	for name, fsys := range map[string]FS{"memory": NewMem(), "disk": OS} {
		dir := "/"
		if name == "disk" {
			dir = t.TempDir()
		}
		path := filepath.Join(dir, "f")
		if _, err := ReadFile(fsys, path, 10); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
		if there, err := Exists(fsys, path); there || err != nil {
			t.Errorf("%s: %v, %v", name, there, err)
		}
		if there, err := Exists(fsys, filepath.Join(dir, "no", "folder")); there || err != nil {
			t.Errorf("%s: %v, %v", name, there, err)
		}
		if err := ReplaceFile(fsys, path, []byte("0123456789")); err != nil {
			t.Fatal(err)
		}
		if there, err := Exists(fsys, path); !there || err != nil {
			t.Errorf("%s: %v, %v", name, there, err)
		}
		if b, err := ReadFile(fsys, path, 10); err != nil || string(b) != "0123456789" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		if b, err := ReadFile(fsys, path, 9); err == nil {
			t.Errorf("%s: %q", name, b)
		}
	}
}

func TestALockIsOnes(t *testing.T) {
	mem := NewMem()
	for name, fsys := range map[string]FS{"memory": mem, "disk": OS} {
		dir := "/"
		if name == "disk" {
			dir = t.TempDir()
		}
		path := filepath.Join(dir, "LOCK")
		first, err := fsys.Lock(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fsys.Lock(path); !errors.Is(err, ErrLocked) {
			t.Errorf("%s: locked twice: %v", name, err)
		}
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		second, err := fsys.Lock(path)
		if err != nil {
			t.Fatal(fmt.Errorf("%s: %w", name, err))
		}
		if name == "memory" {
			mem.Exit() // the process that had it is gone
			if second, err = fsys.Lock(path); err != nil {
				t.Fatal(err)
			}
			first.Close() // late, and not the one that is held
			if _, err := fsys.Lock(path); !errors.Is(err, ErrLocked) {
				t.Errorf("%s: %v", name, err)
			}
		}
		second.Close()
	}
}
