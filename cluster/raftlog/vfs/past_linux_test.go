package vfs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What is written once is there as a whole, whatever its size and wherever its memory begins, and
// the file is as any other afterwards.
func TestWriteOnce(t *testing.T) {
	random := make([]byte, pastFrom+3*pastUnit)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(random)
	for _, size := range []int{0, 1, pastFrom - 1, pastFrom, pastFrom + 1, pastFrom + pastUnit, pastFrom + 2*pastUnit + 17} {
		for _, skip := range []int{0, 1} {
			for name, disk := range map[string]FS{"disk": OS, "memory": NewMem()} {
				what := fmt.Sprintf("%d bytes from byte %d on, %s", size, skip, name)
				dir := t.TempDir()
				if err := disk.MkdirAll(dir); err != nil {
					t.Fatal(err)
				}
				f, err := disk.Create(filepath.Join(dir, "f"))
				if err != nil {
					t.Fatal(err)
				}
				data := random[skip:][:size]
				if err := WriteOnce(f, data); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if o, ok := f.(osFile); ok {
					if flags, err := unix.FcntlInt(o.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_DIRECT != 0 {
						t.Errorf("%s: flags %x, %v", what, flags, err)
					}
				}
				got := make([]byte, size)
				if n, err := f.ReadAt(got, 0); n < size || !bytes.Equal(got, data) {
					t.Errorf("%s: others come back, or %v", what, err)
				}
				if has, err := f.Size(); err != nil || has != int64(size) {
					t.Errorf("%s: the file has %d, %v", what, has, err)
				}
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}
