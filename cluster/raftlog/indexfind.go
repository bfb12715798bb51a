package raftlog

import (
	"errors"
	"fmt"
	"io"
	"sort"
)

// isChecked reports whether the points in the file are known to be what was written.
func (x *index) isChecked() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.checked
}

// check compares the file with its CRC, once.
func (x *index) check() error {
	if x.isChecked() {
		return nil
	}
	x.writing.Lock()
	defer x.writing.Unlock()
	if x.isChecked() {
		return nil
	}
	f, err := x.acquire()
	if err != nil {
		return err
	}
	defer x.handle.release()
	written, want := x.inFile()
	crc, err := crcOf(f, indexHeader, int64(written)*pointSize)
	if err != nil {
		return err
	}
	if crc != want {
		return fmt.Errorf("%w: %s: CRC %08x, its points give %08x", ErrDamaged, x.path, want, crc)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.checked = true
	return nil
}

// doubt compares the points in the file with their CRC once more, since what they led to is not
// what was looked for, and reports whether they are damaged. Those of an index that still grows are
// let go then: it takes longer without them.
func (x *index) doubt() (damaged bool, err error) {
	x.writing.Lock()
	defer x.writing.Unlock()
	good, err := x.holds()
	if good || err != nil && !errors.Is(err, ErrDamaged) {
		return false, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.checked = !x.final; x.checked {
		x.written, x.crc = 0, 0
		x.undone++
	}
	return true, nil
}

// holds reports whether the points in the file match their CRC; writing is held.
func (x *index) holds() (bool, error) {
	f, err := x.acquire()
	if err != nil {
		return false, err
	}
	defer x.handle.release()
	written, want := x.inFile()
	crc, err := crcOf(f, indexHeader, int64(written)*pointSize)
	return err == nil && crc == want, err
}

// floor gives the last point for which not(above) holds; above must be false for some first points
// and true for the rest. ok is false if it is true for all.
func (x *index) floor(above func(point) bool) (p point, ok bool, err error) {
	for {
		x.mu.Lock()
		if i := sort.Search(len(x.recent), func(i int) bool { return above(x.recent[i]) }); i > 0 {
			defer x.mu.Unlock()
			return x.recent[i-1], true, nil
		}
		written, undone := x.written, x.undone
		x.mu.Unlock()
		if written == 0 {
			return p, false, nil
		}
		p, i, err := x.search(written, above)
		if !x.same(undone) {
			continue
		}
		if err != nil || i == 0 {
			return point{}, false, err
		}
		if p.pos < segmentHeader || p.index < x.base {
			return point{}, false, fmt.Errorf("%w: %s: entry %d at position %d", ErrDamaged, x.path, p.index, p.pos)
		}
		return p, true, nil
	}
}

// ceil gives the first point behind an entry.
func (x *index) ceil(index uint64) (p point, ok bool, err error) {
	behind := func(p point) bool { return p.index > index }
	for {
		x.mu.Lock()
		written, undone := x.written, x.undone
		recent := x.recent[:len(x.recent):len(x.recent)]
		x.mu.Unlock()
		if written > 0 {
			_, i, err := x.search(written, behind)
			if err == nil && i < written {
				p, err = x.at(i)
			}
			if !x.same(undone) {
				continue
			}
			if err != nil || i < written {
				return p, err == nil, err
			}
		}
		if i := sort.Search(len(recent), func(i int) bool { return behind(recent[i]) }); i < len(recent) {
			return recent[i], true, nil
		}
		return p, false, nil
	}
}

// same reports whether no point in the file became void since.
func (x *index) same(undone uint64) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.undone == undone
}

// search gives how many of the first points in the file are not above, and the last of these. No
// lock is held: what is there does not change, unless undone does.
func (x *index) search(written int, above func(point) bool) (p point, n int, err error) {
	if err := x.check(); err != nil {
		return p, 0, err
	}
	f, err := x.handle.acquire()
	if err != nil {
		return p, 0, err
	}
	defer x.handle.release()
	n = sort.Search(written, func(i int) bool {
		if err != nil {
			return true
		}
		var at point
		at, err = readPoint(f, i)
		return err != nil || above(at)
	})
	if err != nil || n == 0 {
		return p, 0, err
	}
	p, err = readPoint(f, n-1)
	return p, n, err
}

// at reads a point in the file.
func (x *index) at(i int) (point, error) {
	f, err := x.handle.acquire()
	if err != nil {
		return point{}, err
	}
	defer x.handle.release()
	return readPoint(f, i)
}

func readPoint(f io.ReaderAt, i int) (point, error) {
	var b [pointSize]byte
	_, err := f.ReadAt(b[:], indexHeader+int64(i)*pointSize)
	return parsePoint(b[:]), err
}
