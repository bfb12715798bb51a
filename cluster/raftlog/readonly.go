package raftlog

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// readable is a file that is open for reading alone.
type readable interface {
	io.ReaderAt
	io.Closer
	Size() (int64, error)
}

type osReadable struct{ *os.File }

func (f osReadable) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// readOnly is a file system of which nothing is changed: what is
// written to a file is remembered and read back from it.
type readOnly struct {
	base vfs.FS
	open func(name string) (readable, error)

	// mu guards patches. Nothing is taken or waited for under it.
	mu      locks.Mutex[readOnly]
	patches map[string][]patch
}

type patch struct {
	at   int64
	data []byte
}

var errReadOnly = errors.New("only read")

func (*readOnly) Create(name string) (vfs.File, error) { return nil, errReadOnly }
func (*readOnly) Remove(string) error                  { return errReadOnly }
func (*readOnly) Rename(string, string) error          { return errReadOnly }
func (*readOnly) MkdirAll(string) error                { return errReadOnly }
func (*readOnly) RemoveAll(string) error               { return errReadOnly }
func (*readOnly) SyncDir(string) error                 { return nil }
func (*readOnly) Lock(string) (io.Closer, error)       { return nil, errReadOnly }

// List gives the sizes that files would have with what was written to them.
func (r *readOnly) List(dir string) ([]vfs.Entry, error) {
	entries, err := r.base.List(dir)
	if err != nil {
		return nil, err
	}
	entries = slices.Clone(entries)
	for i, e := range entries {
		if !e.Dir {
			entries[i].Size = max(e.Size, r.end(filepath.Join(dir, e.Name)))
		}
	}
	return entries, nil
}

// end is where the last byte stands that was written to a file.
func (r *readOnly) end(name string) (end int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.patches[name] {
		end = max(end, p.at+int64(len(p.data)))
	}
	return end
}

func (r *readOnly) Space(dir string) (int64, int64, error) { return r.base.Space(dir) }

func (r *readOnly) Open(name string) (vfs.File, error) {
	f, err := r.open(name)
	if err != nil {
		return nil, err
	}
	return &readOnlyFile{f, r, name}, nil
}

type readOnlyFile struct {
	readable
	fs   *readOnly
	name string
}

func (*readOnlyFile) WriteVector([][]byte, int64) error { return errReadOnly }
func (*readOnlyFile) Truncate(int64) error              { return errReadOnly }
func (*readOnlyFile) Allocate(int64) error              { return errReadOnly }
func (*readOnlyFile) Sync() error                       { return nil }

// Size is that of the file with what was written to it.
func (f *readOnlyFile) Size() (int64, error) {
	size, err := f.readable.Size()
	return max(size, f.fs.end(f.name)), err
}

// WriteAt remembers what is not in the file anyway, as nearly all is that a
// journal has.
func (f *readOnlyFile) WriteAt(b []byte, at int64) (int, error) {
	have := make([]byte, len(b))
	if n, err := f.readable.ReadAt(have, at); n == len(b) && string(have) == string(b) {
		return len(b), nil
	} else if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.fs.patches[f.name] = append(f.fs.patches[f.name], patch{at, append([]byte(nil), b...)})
	return len(b), nil
}

func (f *readOnlyFile) ReadAt(b []byte, at int64) (int, error) {
	n, err := f.readable.ReadAt(b, at)
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	for _, p := range f.fs.patches[f.name] {
		from, to := max(p.at, at), min(p.at+int64(len(p.data)), at+int64(len(b)))
		if from < to {
			copy(b[from-at:to-at], p.data[from-p.at:])
			n = max(n, int(to-at))
		}
	}
	if n == len(b) {
		err = nil
	}
	return n, err
}
