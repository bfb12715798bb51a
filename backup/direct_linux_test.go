package backup

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"unsafe"
)

// Objects of all sizes, in memory that begins anywhere, come back as they were; large ones leave
// nothing in the page cache where the file system can do that.
func TestFilesPastThePageCache(t *testing.T) {
	s := newFileStore(t.TempDir())
	random := make([]byte, 3*directFrom)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(random)
	for _, size := range []int{0, 1, directFrom - 1, directFrom, directFrom + 1, directFrom + directUnit - 1, directFrom + directUnit, 2*directFrom + 17} {
		for _, skip := range []int{0, 1} {
			key := fmt.Sprintf("a/%d-%d", size, skip)
			data := directMemory(size + 1)[skip:][:size]
			copy(data, random)
			if err := s.Put(t.Context(), key, data); err != nil {
				t.Fatal(err)
			}
			if got, err := s.Get(t.Context(), key, int64(size)); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s: %d bytes come back, which are others, or %v", key, len(got), err)
			}
			if got, err := s.Get(t.Context(), key, 2*directFrom+17); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s, asked for more: %d bytes come back, which are others, or %v", key, len(got), err)
			}
			if is, err := s.Same(t.Context(), key, data); err != nil || !is {
				t.Errorf("%s is not what was put there, or %v", key, err)
			}
			if size == 0 {
				continue
			}
			path, err := s.path(key)
			if err != nil {
				t.Fatal(err)
			}
			if pages, known := cachedPages(t, path); known && size >= directFrom && skip == 0 && pages > 1 {
				t.Errorf("%s: %d pages of it are in memory", key, pages)
			}
			if _, err := s.Get(t.Context(), key, int64(size)-1); !errors.Is(err, errTooLarge) {
				t.Errorf("%s, asked for less: %v", key, err)
			}
			data[size-1]++
			if is, err := s.Same(t.Context(), key, data); err != nil || is {
				t.Errorf("%s is what was not put there, or %v", key, err)
			}
		}
	}
}

// cachedPages gives how many pages of a file the kernel has in memory; known is false where files
// are read and written through these alone.
func cachedPages(t *testing.T, path string) (n int, known bool) {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if setDirect(f, true) != nil {
		return 0, false
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	m, err := syscall.Mmap(int(f.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Munmap(m) }()
	there := make([]byte, (len(m)+os.Getpagesize()-1)/os.Getpagesize())
	if _, _, errno := syscall.Syscall(syscall.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), uintptr(unsafe.Pointer(&there[0]))); errno != 0 {
		t.Fatal(errno)
	}
	for _, page := range there {
		n += int(page & 1)
	}
	return n, true
}
