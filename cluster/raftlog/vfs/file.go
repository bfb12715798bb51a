package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
)

// NotSynced is an error of a sync. Of what was written nobody knows what is on the disk then, and
// whoever syncs again is told that all is well: only a restart finds out.
type NotSynced struct{ Err error }

func (e NotSynced) Error() string { return e.Err.Error() }
func (e NotSynced) Unwrap() error { return e.Err }

// Exists reports whether there is a file or a folder of that name.
func Exists(fsys FS, name string) (bool, error) {
	entries, err := fsys.List(filepath.Dir(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if e.Name == filepath.Base(name) {
			return true, nil
		}
	}
	return false, nil
}

// ReadFile gives all of a file, which must not have more than limit bytes. The error wraps
// fs.ErrNotExist if it is not there.
func ReadFile(fsys FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("%s has %d bytes, want at most %d", name, size, limit)
	}
	data := make([]byte, size)
	if n, err := f.ReadAt(data, 0); err != nil && (!errors.Is(err, io.EOF) || int64(n) < size) {
		return nil, err
	}
	return data, nil
}

// ReplaceFile makes data what is in a file, in one step: a crash leaves what was there or data. It
// is on stable storage on return. An error of a sync is a NotSynced.
func ReplaceFile(fsys FS, name string, data []byte) error {
	temporary := name + ".new"
	f, err := fsys.Create(temporary)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		if serr := f.Sync(); serr != nil {
			err = NotSynced{serr}
		}
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fsys.Rename(temporary, name)
	}
	if err == nil {
		if serr := fsys.SyncDir(filepath.Dir(name)); serr != nil {
			err = NotSynced{serr}
		}
	}
	return err
}
