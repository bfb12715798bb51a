package vfs

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

var errDisk = errors.New("the disk")

func written(t *testing.T, m *Mem, name string, b []byte) File {
	t.Helper()
	f, err := m.Create(name)
	if err == nil {
		_, err = f.WriteAt(b, 0)
	}
	if err == nil {
		err = m.SyncDir("/")
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func content(t *testing.T, m *Mem, name string) []byte {
	t.Helper()
	f, err := m.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	size, _ := f.Size()
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n < len(b) {
		t.Fatal(err)
	}
	return b
}

// TestMemFailsAsLinuxDoes: a sync fails once, what it could not write is read as before, the next
// sync succeeds, and after a power loss it is not there.
func TestMemFailsAsLinuxDoes(t *testing.T) {
	old, now := bytes.Repeat([]byte("o"), 20*page), bytes.Repeat([]byte("n"), 20*page)
	for name, fail := range map[string]func(m *Mem, f File) error{
		"at the sync": func(m *Mem, _ File) error {
			f, err := Failing{FS: m, Fail: func(op, _ string) error {
				if op == "sync" {
					return errDisk
				}
				return nil
			}}.Open("/f")
			if err != nil {
				t.Fatal(err)
			}
			return f.Sync()
		},
		"in the background": func(m *Mem, f File) error { m.Lose("/f", errDisk); return f.Sync() },
	} {
		t.Run(name, func(t *testing.T) {
			m := NewMem()
			f := written(t, m, "/f", old)
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt(now, 0); err != nil {
				t.Fatal(err)
			}
			if err := fail(m, f); !errors.Is(err, errDisk) {
				t.Fatalf("the sync said %v", err)
			}
			if _, err := f.WriteAt(now[:page], 3*page); err != nil {
				t.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				t.Fatalf("the next sync said %v", err)
			}
			if !bytes.Equal(content(t, m, "/f"), now) {
				t.Error("what was written is not read any more")
			}
			after := content(t, m.Crash(rand.New(rand.NewPCG(1, 1))), "/f")
			lost := bytes.Count(after, old[:page])
			if lost == 0 || lost >= 19 || !bytes.Equal(after[3*page:4*page], now[:page]) {
				t.Errorf("after a power loss %d of 20 pages are the old ones", lost)
			}
		})
	}
}

// TestMemForgetsAnErrorThatNobodyHeard: of what was lost in the background, who opens the file
// later hears nothing.
func TestMemForgetsAnErrorThatNobodyHeard(t *testing.T) {
	m := NewMem()
	f := written(t, m, "/f", []byte("new"))
	m.Lose("/f", errDisk)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := m.Open("/f")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Errorf("closed and opened again, it says %v", err)
	}
}
