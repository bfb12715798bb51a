package vfs

import (
	"fmt"
	"io"
	"slices"

	"github.com/trimaran-io/trimaran/internal/locks"
)

type memFile struct {
	fs     *Mem
	name   string
	node   *memNode
	closed bool
}

func (f *memFile) ReadAt(b []byte, at int64) (int, error) {
	locks.MayWait("reading a file")
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.fs.dead {
		return 0, errNoPower
	}
	if at >= f.node.data.size {
		return 0, io.EOF
	}
	n := f.node.data.read(b, at)
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// take counts growth against what is free; the lock is held.
func (f *memFile) take(size int64) error {
	growth := size - f.node.data.size
	if growth <= 0 || f.fs.free < 0 {
		return nil
	}
	if growth > f.fs.free {
		return fmt.Errorf("%s: %w", f.name, ErrNoSpace)
	}
	f.fs.free -= growth
	return nil
}

func (f *memFile) WriteAt(b []byte, at int64) (int, error) {
	if err := f.fs.change("write", f.name); err != nil {
		return 0, err
	}
	defer f.fs.mu.Unlock()
	if err := f.take(at + int64(len(b))); err != nil {
		return 0, err
	}
	f.node.data.write(b, at)
	f.node.pending = append(f.node.pending, memWrite{at, slices.Clone(b)})
	return len(b), nil
}

func (f *memFile) WriteVector(pieces [][]byte, at int64) error { return writePieces(f, pieces, at) }

func (f *memFile) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.fs.dead {
		return 0, errNoPower
	}
	return f.node.data.size, nil
}

func (f *memFile) Truncate(size int64) error {
	if err := f.fs.change("truncate", f.name); err != nil {
		return err
	}
	defer f.fs.mu.Unlock()
	return f.resize(size)
}

func (f *memFile) resize(size int64) error {
	if err := f.take(size); err != nil {
		return err
	}
	if freed := f.node.data.size - size; freed > 0 && f.fs.free >= 0 {
		f.fs.free += freed
	}
	f.node.data.resize(size)
	f.node.pending = append(f.node.pending, memWrite{at: size})
	return nil
}

func (f *memFile) Allocate(size int64) error {
	if err := f.fs.change("allocate", f.name); err != nil {
		return err
	}
	defer f.fs.mu.Unlock()
	if size <= f.node.data.size {
		return nil
	}
	return f.resize(size)
}

func (f *memFile) Sync() error {
	if err := f.fs.change("sync", f.name); err != nil {
		return err
	}
	defer f.fs.mu.Unlock()
	f.node.writeBack()
	err := f.node.lost
	f.node.lost = nil
	return err
}

// fail is a sync of what cannot be written.
func (f *memFile) fail() {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.node.lose(f.fs.lots)
	f.node.lost = nil // the caller is told
}

// Close loses an error that no sync has told.
func (f *memFile) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	if f.node.open--; f.node.open <= 0 {
		f.node.open, f.node.lost = 0, nil
	}
	return nil
}
