// Package vfs is the small part of a file system that a node needs, so that the
// same code runs on a disk, on a file system in memory that can lose power
// (Mem), and on one that fails at chosen moments (Failing).
//
// You are here: below package raftlog and the other packages that keep something in a node's data
// directory. Names are paths as the operating system has them.
//
// Locks: Mem.mu is the only one, and nothing is called or taken under it. Whoever has a file system
// change, open, list or read something may have to wait for the disk, so it must hold no mutex but
// a locks.Slow (package internal/locks); Mem says so, too, although it waits for nothing.
package vfs

import (
	"bytes"
	"errors"
	"io"
	"syscall"
)

// ErrNoSpace is in the error of a write or an allocation that did not fit.
var ErrNoSpace = errors.New("no space left on device")

// OutOfFiles reports whether an error says that this process, or the machine, has no file
// descriptor left. Nothing is wrong with the file then, and later there may be one.
func OutOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// MaxFiles gives how many files this process may have open, sockets included (RLIMIT_NOFILE; Go
// raises it to the hard limit at the start).
func MaxFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024
	}
	return int(min(limit.Cur, 1<<20))
}

// FS is a file system. What Create, Remove, Rename and MkdirAll do to a folder is
// on stable storage only after SyncDir of that folder.
type FS interface {
	// Create makes an empty file, in place of one that is there.
	Create(name string) (File, error)
	// Open opens a file that is there, for reading and writing. The error wraps
	// fs.ErrNotExist if it is not.
	Open(name string) (File, error)
	Remove(name string) error
	// Rename replaces what is at the new name, in one step.
	Rename(from, to string) error
	// List gives what lies in a folder, sorted by name. The error wraps
	// fs.ErrNotExist if there is no such folder.
	List(dir string) ([]Entry, error)
	MkdirAll(dir string) error
	// RemoveAll removes a folder and what is in it; that it is not there is no error.
	RemoveAll(dir string) error
	SyncDir(dir string) error
	// Lock makes a file if there is none, and keeps it from everybody else until it is closed. The
	// error wraps ErrLocked if somebody else has it.
	Lock(name string) (io.Closer, error)
	// Space gives the bytes that can still be written below dir, and the size of
	// the file system.
	Space(dir string) (free, total int64, err error)
}

// Entry is one name in a folder.
type Entry struct {
	Name string
	Dir  bool
	Size int64
}

// File is an open file. Positions are explicit, so any number of goroutines may
// read while one writes elsewhere in the file.
type File interface {
	io.ReaderAt
	io.WriterAt
	// WriteVector writes pieces one behind the other, with one call if it can. After
	// an error a part of them may be written.
	WriteVector(pieces [][]byte, at int64) error
	Size() (int64, error)
	// Truncate sets the size. What is beyond a smaller size is gone: when the file
	// grows again, it reads as zeros there.
	Truncate(size int64) error
	// Allocate makes sure that there is room up to size, and grows the file to it;
	// new bytes are zeros. The error wraps ErrNoSpace if there is none.
	Allocate(size int64) error
	// Sync returns when all that was written, and the size, are on stable storage
	// (fdatasync). After an error nobody knows what is; it must not be called again
	// in the hope that it succeeds.
	Sync() error
	Close() error
}

// writePieces is WriteVector by one write for all.
func writePieces(f io.WriterAt, pieces [][]byte, at int64) error {
	_, err := f.WriteAt(bytes.Join(pieces, nil), at)
	return err
}

// WriteOnce writes data to a file that is empty, past the kernel's page cache where the file system
// can do that and there is enough: what nobody reads again soon does not push out what is read, is
// not in the way of a sync, and costs the processor little.
func WriteOnce(f File, data []byte) error {
	n := 0
	if o, ok := f.(osFile); ok {
		var err error
		if n, err = o.writePast(data); err != nil {
			return err
		}
	}
	if n == len(data) {
		return nil
	}
	_, err := f.WriteAt(data[n:], int64(n))
	return err
}
