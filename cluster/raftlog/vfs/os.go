package vfs

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// OS is the file system of the machine.
var OS FS = osFS{}

// Observed is OS that tells how long each sync of a file took, whether or not it succeeded. observe
// is called by whoever syncs, by several at once.
func Observed(observe func(took time.Duration)) FS { return osFS{observe} }

type osFS struct {
	observe func(took time.Duration) // nil: nobody wants to know
}

func (o osFS) Create(name string) (File, error) {
	locks.MayWait("creating a file")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, noSpace(err)
	}
	return osFile{f, o.observe}, nil
}

func (o osFS) Open(name string) (File, error) {
	locks.MayWait("opening a file")
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return osFile{f, o.observe}, nil
}

func (osFS) Remove(name string) error {
	locks.MayWait("removing a file")
	return os.Remove(name)
}

func (osFS) Rename(from, to string) error {
	locks.MayWait("renaming a file")
	return noSpace(os.Rename(from, to))
}

func (osFS) MkdirAll(dir string) error {
	locks.MayWait("making a folder")
	return noSpace(os.MkdirAll(dir, 0o700))
}

func (osFS) RemoveAll(dir string) error {
	locks.MayWait("removing a folder")
	return os.RemoveAll(dir)
}

func (osFS) List(dir string) ([]Entry, error) {
	locks.MayWait("listing a folder")
	found, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(found))
	for _, e := range found {
		info, err := e.Info()
		if err != nil {
			continue // gone since
		}
		entries = append(entries, Entry{Name: e.Name(), Dir: e.IsDir(), Size: info.Size()})
	}
	return entries, nil
}

func (osFS) SyncDir(dir string) error {
	locks.MayWait("syncing a folder")
	f, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

type osFile struct {
	*os.File
	observe func(took time.Duration)
}

// Sync implements File.
func (f osFile) Sync() error {
	locks.MayWait("syncing a file")
	if f.observe != nil {
		defer func(at time.Time) { f.observe(time.Since(at)) }(time.Now())
	}
	return f.sync()
}

func (f osFile) ReadAt(b []byte, at int64) (int, error) {
	locks.MayWait("reading a file")
	return f.File.ReadAt(b, at)
}

func (f osFile) WriteAt(b []byte, at int64) (int, error) {
	locks.MayWait("writing a file")
	n, err := f.File.WriteAt(b, at)
	return n, noSpace(err)
}

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// noSpace makes the operating system's word for a full disk ours.
func noSpace(err error) error {
	if err == nil {
		return nil
	}
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		if pathErr, ok := err.(*os.PathError); ok && pathErr.Err == full {
			return fmt.Errorf("%w: %w", ErrNoSpace, err)
		}
		if linkErr, ok := err.(*os.LinkError); ok && linkErr.Err == full {
			return fmt.Errorf("%w: %w", ErrNoSpace, err)
		}
		if err == full {
			return fmt.Errorf("%w: %w", ErrNoSpace, err)
		}
	}
	return err
}
