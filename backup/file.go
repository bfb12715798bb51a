package backup

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// fileStore keeps objects as files below a folder. An object is written to a file of another name,
// synced, and linked to its own, which fails where there is one: so a name has a whole object or
// none, whoever else writes, and whenever the machine stops.
type fileStore struct {
	root string
	sync func(path string) error // of a file or folder
}

// tempPrefix begins the names of files that are being written. A key cannot begin so.
const tempPrefix = ".writing-"

func newFileStore(root string) *fileStore { return &fileStore{filepath.Clean(root), syncPath} }

func (s *fileStore) String() string { return "file://" + s.root }

func (s *fileStore) path(key string) (string, error) {
	if err := checkKey(key); err != nil {
		return "", err
	}
	return filepath.Join(s.root, filepath.FromSlash(key)), nil
}

func (s *fileStore) Put(_ context.Context, key string, data []byte) error {
	path, err := s.path(key)
	if err != nil {
		return err
	}
	if err = s.write(path, data); errors.Is(err, fs.ErrExist) {
		// Who put it there may not have come to its end, or have failed there.
		if err = s.settle(path); err == nil {
			err = fmt.Errorf("%s %w", key, ErrExists)
		}
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// write puts a new file in its place. The error is fs.ErrExist if there is one.
func (s *fileStore) write(path string, data []byte) error {
	if _, err := os.Lstat(path); err == nil {
		return fs.ErrExist
	}
	dir := filepath.Dir(path)
	if err := s.makeDir(dir); err != nil {
		return err
	}
	temp := filepath.Join(dir, tempPrefix+rand.Text())
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(temp)
	err = writeAll(f, data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Link(temp, path); errors.Is(err, fs.ErrExist) {
		return fs.ErrExist
	} else if err != nil {
		return err
	}
	return s.sync(dir)
}

// settle makes sure that what is there stays there.
func (s *fileStore) settle(path string) error {
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		return err // what is no file is no object either
	}
	if err := s.sync(path); err != nil {
		return err
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if err := s.sync(dir); err != nil || dir == s.root {
			return err
		}
	}
}

// makeDir makes a folder below the root, and syncs the folders that get a new name.
func (s *fileStore) makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if dir != s.root {
		if err := s.makeDir(filepath.Dir(dir)); err != nil {
			return err
		}
	} else if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	err := s.sync(filepath.Dir(dir))
	if err != nil {
		_ = os.Remove(dir) // or it would count as made, next time
	}
	return err
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (s *fileStore) open(key string) (*os.File, error) {
	path, err := s.path(key)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s %w", key, ErrNotFound)
	}
	return f, err
}

func (s *fileStore) Get(_ context.Context, key string, limit int64) ([]byte, error) {
	f, err := s.open(key)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if limit < directFrom {
		return readAll(f, key, limit)
	}
	return readAll(newDirectReader(f), key, limit)
}

func (s *fileStore) Size(_ context.Context, key string) (int64, error) {
	path, err := s.path(key)
	if err != nil {
		return 0, err
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, fmt.Errorf("%s %w", key, ErrNotFound)
	case err != nil:
		return 0, err
	case !info.Mode().IsRegular():
		return 0, fmt.Errorf("%s %w: it is no file", key, ErrNotFound)
	}
	return info.Size(), nil
}

func (s *fileStore) Same(_ context.Context, key string, data []byte) (bool, error) {
	f, err := s.open(key)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if len(data) < directFrom {
		return same(f, data)
	}
	return same(newDirectReader(f), data)
}

// comparedAtOnce is how much is read to be compared: what stays in a processor's cache, and is
// enough for a disk to read at once.
const comparedAtOnce = 512 << 10

// comparing has memory for that.
var comparing = sync.Pool{New: func() any { b := directMemory(comparedAtOnce)[:comparedAtOnce]; return &b }}

// same reads all that comes and reports whether it is data.
func same(r io.Reader, data []byte) (bool, error) {
	memory := comparing.Get().(*[]byte)
	defer comparing.Put(memory)
	buf := *memory
	for {
		n, end, err := fill(r, buf)
		if err != nil {
			return false, err
		}
		if n > len(data) || !bytes.Equal(buf[:n], data[:n]) {
			return false, nil
		}
		if data = data[n:]; end {
			return len(data) == 0, nil
		}
	}
}

// fill reads until buf is full or nothing comes any more. Unlike io.ReadFull it tells the end from
// an answer that was cut short, which is io.ErrUnexpectedEOF to a client of HTTP.
func fill(r io.Reader, buf []byte) (n int, end bool, err error) {
	for n < len(buf) && err == nil {
		var more int
		more, err = r.Read(buf[n:])
		n += more
	}
	if err == io.EOF {
		return n, true, nil
	}
	return n, false, err
}

// readAtOnce is up to where a limit is taken for the size: the caller knows what is to come then,
// and the memory for it is taken at once.
const readAtOnce = 32 << 20

// readAll reads what has limit bytes at most. Beyond readAtOnce memory is taken for what comes, not
// for what is said.
func readAll(r io.Reader, key string, limit int64) ([]byte, error) {
	var data []byte
	var err error
	if limit <= readAtOnce {
		data = directMemory(int(limit) + 1)
		n := 0
		n, _, err = fill(r, data)
		data = data[:n]
	} else {
		data, err = io.ReadAll(io.LimitReader(r, limit+1))
	}
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s %w: more than %d bytes", key, errTooLarge, limit)
	}
	return data, nil
}

func (s *fileStore) List(ctx context.Context, prefix string, each func(Stored) error) error {
	begin := filepath.Join(s.root, filepath.FromSlash(prefix[:strings.LastIndex(prefix, "/")+1]))
	err := filepath.WalkDir(begin, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err == nil:
			err = ctx.Err()
		case errors.Is(err, fs.ErrNotExist):
			return nil // nothing yet, or gone this moment
		}
		if err != nil || d.IsDir() || !d.Type().IsRegular() {
			return err
		}
		key, err := filepath.Rel(s.root, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if key = filepath.ToSlash(key); strings.HasPrefix(key, prefix) {
			return each(Stored{Key: key, Bytes: info.Size(), Modified: info.ModTime()})
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (s *fileStore) Delete(_ context.Context, key string) error {
	// What was being written when a program ended has no key, and is listed all the same.
	path := filepath.Join(s.root, filepath.FromSlash(key))
	if dir, name := filepath.Split(filepath.FromSlash(key)); !strings.HasPrefix(name, tempPrefix) || checkKey(filepath.ToSlash(filepath.Join(dir, "x"))) != nil {
		var err error
		if path, err = s.path(key); err != nil {
			return err
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
