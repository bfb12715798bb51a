package backup

import (
	"errors"
	"io"
	"os"
	"syscall"
	"unsafe"
)

// Large objects go past the kernel's page cache where the file system can do that: nobody reads
// them there again soon, what is in it is worth more (the newest records of logs), and to fill it
// costs more of the processor than all else that is done with them. What is read back after it was
// written comes from the disk then.

const (
	// directFrom is the size of objects from which it is worth it, in bytes.
	directFrom = 1 << 20
	// directUnit is what such reads and writes are whole multiples of, in memory as in the file: no
	// file system wants more than a page.
	directUnit = 4 << 10
)

// fits reports whether memory may be read into, or written, past the page cache.
func fits(b []byte) bool {
	return len(b) > 0 && len(b)%directUnit == 0 && uintptr(unsafe.Pointer(unsafe.SliceData(b)))%directUnit == 0
}

// directMemory gives n bytes or some more, all of which fit.
func directMemory(n int) []byte {
	b := make([]byte, (n+directUnit-1)&^(directUnit-1)+directUnit)
	if skip := uintptr(unsafe.Pointer(unsafe.SliceData(b))) % directUnit; skip != 0 {
		b = b[directUnit-skip:]
	}
	return b[:len(b)&^(directUnit-1)]
}

// directReader reads a file past the page cache as long as that goes: up to its last bytes, and
// where memory fits.
type directReader struct {
	f  *os.File
	on bool
}

func newDirectReader(f *os.File) *directReader { return &directReader{f, setDirect(f, true) == nil} }

func (r *directReader) Read(b []byte) (n int, err error) {
	if r.on && !fits(b) {
		if err := r.off(); err != nil {
			return 0, err
		}
	}
	n, err = r.f.Read(b)
	if r.on && (n%directUnit != 0 || n == 0 && errors.Is(err, syscall.EINVAL)) {
		if err := r.off(); err != nil || n > 0 {
			return n, err
		}
		n, err = r.f.Read(b)
	}
	return n, err
}

func (r *directReader) off() error {
	r.on = false
	return setDirect(r.f, false)
}

// writeAll writes data to a file that is empty, past the page cache if there is enough.
func writeAll(f *os.File, data []byte) error {
	if n := len(data) &^ (directUnit - 1); n >= directFrom && fits(data[:n]) && setDirect(f, true) == nil {
		n, err := f.Write(data[:n])
		if err != nil && !errors.Is(err, syscall.EINVAL) {
			return err
		}
		if err := setDirect(f, false); err != nil {
			return err
		}
		data = data[n:]
	}
	_, err := f.Write(data)
	return err
}

var _ io.Reader = (*directReader)(nil)
