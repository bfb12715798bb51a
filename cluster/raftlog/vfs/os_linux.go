package vfs

import (
	"errors"
	"syscall"
)

func (f osFile) Allocate(size int64) error {
	for {
		err := syscall.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EOPNOTSUPP):
			// A file system without it: the file grows, and room is found when it is written.
			have, serr := f.Size()
			if serr != nil || have >= size {
				return serr
			}
			return noSpace(f.Truncate(size))
		}
		return noSpace(err)
	}
}

func (f osFile) Sync() error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if !errors.Is(err, syscall.EINTR) {
			return noSpace(err)
		}
	}
}

func (osFS) Space(dir string) (free, total int64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), int64(s.Blocks) * int64(s.Bsize), nil
}
