package vfs

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// tmpfsMagic is what statfs says of a file system in memory (statfs(2)).
const tmpfsMagic = 0x01021994

func (f osFile) Allocate(size int64) error {
	locks.MayWait("allocating room")
	var fs syscall.Statfs_t
	if err := syscall.Fstatfs(int(f.Fd()), &fs); err == nil && fs.Type == tmpfsMagic {
		return f.grow(size) // allocating there means writing zeros, to be written over
	}
	for {
		err := syscall.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EOPNOTSUPP):
			// A file system without it: the file grows, and room is found when it is written.
			return f.grow(size)
		}
		return noSpace(err)
	}
}

func (f osFile) grow(size int64) error {
	have, err := f.Size()
	if err != nil || have >= size {
		return err
	}
	return noSpace(f.Truncate(size))
}

// maxVector is how many pieces one call takes (IOV_MAX).
const maxVector = 1024

func (f osFile) WriteVector(pieces [][]byte, at int64) error {
	locks.MayWait("writing a file")
	for len(pieces) > 0 {
		some := pieces[:min(len(pieces), maxVector)]
		n, err := unix.Pwritev(int(f.Fd()), some, at)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return noSpace(err)
		}
		at += int64(n)
		for n > 0 { // short writes go on where they stopped
			if n < len(pieces[0]) {
				pieces = append([][]byte{pieces[0][n:]}, pieces[1:]...)
				break
			}
			n -= len(pieces[0])
			pieces = pieces[1:]
		}
	}
	return nil
}

const (
	// pastFrom is the size from which it is worth it to go past the page cache, in bytes.
	pastFrom = 1 << 20
	// pastUnit is what is written so, in memory as in the file, in whole multiples: no file system
	// wants more than a page.
	pastUnit = 4 << 10
)

// writePast writes as much of data as goes past the page cache to an empty file (O_DIRECT), and
// gives how much that was: 0 where the file system does not know that.
func (f osFile) writePast(data []byte) (n int, err error) {
	locks.MayWait("writing a file")
	whole := len(data) &^ (pastUnit - 1)
	if whole < pastFrom || uintptr(unsafe.Pointer(unsafe.SliceData(data)))%pastUnit != 0 {
		return 0, nil
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return 0, err
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFL, flags|unix.O_DIRECT); err != nil {
		return 0, nil
	}
	n, err = f.File.WriteAt(data[:whole], 0)
	_, cerr := unix.FcntlInt(f.Fd(), unix.F_SETFL, flags)
	if err != nil && !errors.Is(err, syscall.EINVAL) {
		return n, noSpace(err)
	}
	return n, cerr
}

func (f osFile) sync() error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, syscall.EINTR):
			return noSpace(&os.PathError{Op: "fdatasync", Path: f.Name(), Err: err})
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
