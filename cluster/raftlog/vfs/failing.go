package vfs

import (
	"errors"
	"io/fs"
)

// Failing passes everything on to another file system, but asks before each
// operation on it whether it should fail.
type Failing struct {
	FS
	// Fail is asked before create, open, rename, remove, syncdir, write, allocate,
	// truncate, sync and read. With an error the operation is not done; a write is
	// done for its first Short bytes, if the error is a ShortWrite, and a sync on Mem
	// loses what it should have written (Mem.Lose) unless the error wraps fs.ErrClosed: then
	// it is the process that has ended, and not the disk that fails.
	Fail func(op, name string) error
}

// ShortWrite is an error that lets the first bytes of a write through.
type ShortWrite struct {
	Bytes int
	Err   error
}

func (s ShortWrite) Error() string { return s.Err.Error() }
func (s ShortWrite) Unwrap() error { return s.Err }

// Create implements FS.
func (f Failing) Create(name string) (File, error) {
	if err := f.Fail("create", name); err != nil {
		return nil, err
	}
	file, err := f.FS.Create(name)
	if err != nil {
		return nil, err
	}
	return failingFile{file, f, name}, nil
}

// Open implements FS.
func (f Failing) Open(name string) (File, error) {
	if err := f.Fail("open", name); err != nil {
		return nil, err
	}
	file, err := f.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return failingFile{file, f, name}, nil
}

// Remove implements FS.
func (f Failing) Remove(name string) error {
	if err := f.Fail("remove", name); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

// Rename implements FS.
func (f Failing) Rename(from, to string) error {
	if err := f.Fail("rename", from); err != nil {
		return err
	}
	return f.FS.Rename(from, to)
}

// SyncDir implements FS.
func (f Failing) SyncDir(dir string) error {
	if err := f.Fail("syncdir", dir); err != nil {
		return err
	}
	return f.FS.SyncDir(dir)
}

type failingFile struct {
	File
	fs   Failing
	name string
}

func (f failingFile) ReadAt(b []byte, at int64) (int, error) {
	if err := f.fs.Fail("read", f.name); err != nil {
		return 0, err
	}
	return f.File.ReadAt(b, at)
}

func (f failingFile) WriteAt(b []byte, at int64) (int, error) {
	if err := f.fs.Fail("write", f.name); err != nil {
		if short, ok := err.(ShortWrite); ok {
			n, _ := f.File.WriteAt(b[:min(short.Bytes, len(b))], at)
			return n, err
		}
		return 0, err
	}
	return f.File.WriteAt(b, at)
}

func (f failingFile) WriteVector(pieces [][]byte, at int64) error { return writePieces(f, pieces, at) }

func (f failingFile) Truncate(size int64) error {
	if err := f.fs.Fail("truncate", f.name); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f failingFile) Allocate(size int64) error {
	if err := f.fs.Fail("allocate", f.name); err != nil {
		return err
	}
	return f.File.Allocate(size)
}

func (f failingFile) Sync() error {
	if err := f.fs.Fail("sync", f.name); err != nil {
		if mem, ok := f.File.(*memFile); ok && !errors.Is(err, fs.ErrClosed) {
			mem.fail()
		}
		return err
	}
	return f.File.Sync()
}
