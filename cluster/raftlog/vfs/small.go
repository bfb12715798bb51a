package vfs

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
)

// Small is a file that is read and replaced as a whole.
type Small struct {
	FS   FS
	Path string
}

// Load gives what is in the file, which may be at most limit bytes long. The error wraps
// fs.ErrNotExist if it is not there.
func (s Small) Load(limit int64) ([]byte, error) {
	f, err := s.FS.Open(s.Path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("%s has %d bytes, more than the %d that it may have", s.Path, size, limit)
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); err != nil && (!errors.Is(err, io.EOF) || n < len(b)) {
		return nil, err
	}
	return b, nil
}

// Save replaces the file in one step; it is on stable storage on return. After an error the file
// has what it had before, or what it was to have.
func (s Small) Save(b []byte) error {
	temporary := s.Path + ".new"
	f, err := s.FS.Create(temporary)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(b, 0); err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = s.FS.Rename(temporary, s.Path)
	}
	if err == nil {
		err = s.FS.SyncDir(filepath.Dir(s.Path))
	}
	return err
}
