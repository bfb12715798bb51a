package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"sort"
	"strings"
	"sync"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

const (
	indexMagic  = "TRMIDX\x00\x01"
	indexHeader = 80
	pointSize   = 32
	// pointEvery is the distance of two points of the index, in bytes of the
	// segment, or a single entry: what a reader passes over to find its place.
	pointEvery = 16 << 10
	// pointsKept is how many points wait in memory to be written together.
	pointsKept = 64
	// maxState bounds the state kept at a segment's end.
	maxState = 1 << 30
)

// point is one place in a segment where a reader may begin.
type point struct {
	index  uint64 // of the entry
	pos    int64  // of the entry, in the segment file
	offset int64  // next offset in front of it
	before int64  // largest timestamp of the segment's records in front of it, ms; noTime: none
}

func (p point) append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, p.index)
	b = le.AppendUint64(b, uint64(p.pos))
	b = le.AppendUint64(b, uint64(p.offset))
	return le.AppendUint64(b, uint64(p.before))
}

func parsePoint(b []byte) point {
	le := binary.LittleEndian
	return point{le.Uint64(b), int64(le.Uint64(b[8:])), int64(le.Uint64(b[16:])), int64(le.Uint64(b[24:]))}
}

// index is the sparse index of one segment: ascending in all fields. Points are
// added as entries are applied, and written in the background of that; the file
// counts only once it is final, or as far as a manifest says.
type index struct {
	handle fileHandle
	path   string
	base   uint64

	mu      sync.Mutex
	written int    // points in the file
	crc     uint32 // over them
	recent  []point
	final   bool
	checked bool // the file's points match crc; what this process wrote needs no check
	stateAt int64
	state   int // bytes of it
}

func indexPath(segment string) string {
	return strings.TrimSuffix(segment, segmentSuffix) + indexSuffix
}

// newIndex begins an index with nothing in it, in place of a file that is there.
func newIndex(st *Store, s *segment) (*index, error) {
	x := &index{path: indexPath(s.path), base: s.base, checked: true}
	f, err := st.create(x.path)
	if err != nil {
		return nil, err
	}
	x.handle.init(st, x.path, f)
	return x, nil
}

// add appends a point. An error leaves the point in memory, to be written later.
func (x *index) add(p point) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.append(p)
}

// append is add; the lock is held.
func (x *index) append(p point) error {
	x.recent = append(x.recent, p)
	if len(x.recent) < pointsKept {
		return nil
	}
	f, err := x.handle.acquire()
	if err != nil {
		return err
	}
	defer x.handle.release()
	return x.write(f)
}

// write brings the recent points to the file; the lock is held.
func (x *index) write(f io.WriterAt) error {
	if len(x.recent) == 0 {
		return nil
	}
	b := make([]byte, 0, len(x.recent)*pointSize)
	for _, p := range x.recent {
		b = p.append(b)
	}
	if _, err := f.WriteAt(b, indexHeader+int64(x.written)*pointSize); err != nil {
		return err
	}
	x.crc = crc32.Update(x.crc, castagnoli, b)
	x.written += len(x.recent)
	x.recent = x.recent[:0]
	return nil
}

// flush brings all points to stable storage and tells how many there are up to an entry, and their CRC. Those
// behind it are made again after a restart, perhaps elsewhere.
func (x *index) flush(st *Store, upTo uint64) (count int, crc uint32, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	f, err := x.handle.acquire()
	if err != nil {
		return 0, 0, err
	}
	defer x.handle.release()
	if err := x.write(f); err != nil {
		return 0, 0, err
	}
	if err := st.sync(f); err != nil {
		return 0, 0, err
	}
	return x.prefix(f, upTo)
}

// prefix gives how many of the points in the file are up to an entry, and their CRC; the lock is held.
func (x *index) prefix(f io.ReaderAt, upTo uint64) (count int, crc uint32, err error) {
	n := x.written
	for ; n > 0; n-- {
		var b [pointSize]byte
		if _, err := f.ReadAt(b[:], indexHeader+int64(n-1)*pointSize); err != nil {
			return 0, 0, err
		}
		if parsePoint(b[:]).index <= upTo {
			break
		}
	}
	if n == x.written {
		return n, x.crc, nil
	}
	crc, err = crcOf(f, indexHeader, int64(n)*pointSize)
	return n, crc, err
}

// finish writes the header and the state of the partition behind the segment's
// last entry. The file never changes afterwards.
func (x *index) finish(st *Store, s *segment, next int64, state []byte) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.complete(st, s, next, state)
}

// complete is finish; the lock is held.
func (x *index) complete(st *Store, s *segment, next int64, state []byte) error {
	f, err := x.handle.acquire()
	if err != nil {
		return err
	}
	defer x.handle.release()
	if err := x.write(f); err != nil {
		return err
	}
	at := indexHeader + int64(x.written)*pointSize
	if len(state) > 0 {
		if _, err := f.WriteAt(state, at); err != nil {
			return err
		}
	}
	if err := f.Truncate(at + int64(len(state))); err != nil {
		return err
	}
	le := binary.LittleEndian
	b := append(make([]byte, 0, indexHeader), indexMagic...)
	b = le.AppendUint64(b, s.base)
	b = le.AppendUint64(b, s.last)
	b = le.AppendUint64(b, uint64(s.end))
	b = le.AppendUint64(b, uint64(s.start))
	b = le.AppendUint64(b, uint64(next))
	b = le.AppendUint64(b, uint64(s.maxTime))
	b = le.AppendUint32(b, uint32(x.written))
	b = le.AppendUint32(b, uint32(len(state)))
	b = le.AppendUint32(b, x.crc)
	b = le.AppendUint32(b, crc32.Checksum(state, castagnoli))
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	if err := st.sync(f); err != nil {
		return err
	}
	x.final, x.stateAt, x.state = true, at, len(state)
	return nil
}

// openIndex opens a final index. The error wraps ErrDamaged if there is no good
// one that fits the segment: it can be made again.
func openIndex(st *Store, s *segment) (*index, error) {
	x := &index{path: indexPath(s.path), base: s.base}
	x.handle.init(st, x.path, nil)
	f, err := x.acquire()
	if err != nil {
		return nil, err
	}
	defer x.handle.release()
	b := make([]byte, indexHeader)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	le := binary.LittleEndian
	if string(b[:8]) != indexMagic || crc32.Checksum(b[:indexHeader-4], castagnoli) != le.Uint32(b[indexHeader-4:]) ||
		le.Uint64(b[8:]) != s.base || le.Uint64(b[16:]) != s.last || int64(le.Uint64(b[24:])) != s.end || int64(le.Uint64(b[32:])) != s.start {
		return nil, fmt.Errorf("%w: %s is no index of its segment", ErrDamaged, x.path)
	}
	x.written, x.state, x.crc, x.final = int(le.Uint32(b[56:])), int(le.Uint32(b[60:])), le.Uint32(b[64:]), true
	x.stateAt = indexHeader + int64(x.written)*pointSize
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if x.state > maxState || size != x.stateAt+int64(x.state) {
		return nil, fmt.Errorf("%w: %s has %d bytes, want %d", ErrDamaged, x.path, size, x.stateAt+int64(x.state))
	}
	return x, nil
}

// acquire opens the file. The error wraps ErrDamaged if it is not there.
func (x *index) acquire() (vfs.File, error) {
	f, err := x.handle.acquire()
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: index: %w", ErrDamaged, err)
	}
	return f, err
}

// resumeIndex opens an index that is not final, of which a manifest vouches for
// count points. The error wraps ErrDamaged if they are not there.
func resumeIndex(st *Store, s *segment, count int, crc uint32) (*index, error) {
	x := &index{path: indexPath(s.path), base: s.base, written: count, crc: crc}
	x.handle.init(st, x.path, nil)
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.check(); err != nil {
		return nil, err
	}
	return x, nil
}

// check compares the file with its CRC, once; the lock is held.
func (x *index) check() error {
	if x.checked {
		return nil
	}
	f, err := x.acquire()
	if err != nil {
		return err
	}
	defer x.handle.release()
	crc, err := crcOf(f, indexHeader, int64(x.written)*pointSize)
	if err != nil {
		return err
	}
	if crc != x.crc {
		return fmt.Errorf("%w: %s: CRC %08x, its points give %08x", ErrDamaged, x.path, x.crc, crc)
	}
	x.checked = true
	return nil
}

func crcOf(f io.ReaderAt, at, size int64) (uint32, error) {
	var crc uint32
	buf := make([]byte, min(size, 64<<10))
	for size > 0 {
		n := min(size, int64(len(buf)))
		if got, err := f.ReadAt(buf[:n], at); int64(got) < n {
			if err == nil || errors.Is(err, io.EOF) {
				return 0, fmt.Errorf("%w: the file is too short", ErrDamaged)
			}
			return 0, err
		}
		crc = crc32.Update(crc, castagnoli, buf[:n])
		at, size = at+n, size-n
	}
	return crc, nil
}

// floor gives the last point for which not(above) holds; above must be false for
// some first points and true for the rest. ok is false if it is true for all.
func (x *index) floor(above func(point) bool) (p point, ok bool, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	i := sort.Search(len(x.recent), func(i int) bool { return above(x.recent[i]) })
	if i > 0 {
		return x.recent[i-1], true, nil
	}
	if x.written == 0 {
		return p, false, nil
	}
	if err := x.check(); err != nil {
		return p, false, err
	}
	f, err := x.handle.acquire()
	if err != nil {
		return p, false, err
	}
	defer x.handle.release()
	var b [pointSize]byte
	at := func(i int) (q point) {
		if _, rerr := f.ReadAt(b[:], indexHeader+int64(i)*pointSize); rerr != nil {
			err = rerr
		}
		return parsePoint(b[:])
	}
	i = sort.Search(x.written, func(i int) bool { return err != nil || above(at(i)) })
	if err != nil {
		return p, false, err
	}
	if i == 0 {
		return p, false, nil
	}
	if p = at(i - 1); err == nil && (p.pos < segmentHeader || p.index < x.base) {
		err = fmt.Errorf("%w: %s: entry %d at position %d", ErrDamaged, x.path, p.index, p.pos)
	}
	return p, err == nil, err
}

// readState gives the state kept at the segment's end; nil: none.
func (x *index) readState() ([]byte, error) {
	if !x.final || x.state == 0 {
		return nil, nil
	}
	f, err := x.handle.acquire()
	if err != nil {
		return nil, err
	}
	defer x.handle.release()
	header := make([]byte, indexHeader)
	if _, err := f.ReadAt(header, 0); err != nil {
		return nil, err
	}
	b := make([]byte, x.state)
	if _, err := f.ReadAt(b, x.stateAt); err != nil {
		return nil, err
	}
	if crc32.Checksum(b, castagnoli) != binary.LittleEndian.Uint32(header[68:]) {
		return nil, fmt.Errorf("%w: %s: the state at its end", ErrDamaged, x.path)
	}
	return b, nil
}
