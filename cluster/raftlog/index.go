package raftlog

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"slices"
	"strings"

	"github.com/trimaran-io/trimaran/internal/locks"
)

const (
	indexMagic  = "TRMIDX\x00\x01"
	indexHeader = 80
	pointSize   = 32
	// pointEvery is the distance of two points of the index, in bytes of the
	// segment, or a single entry: what a reader passes over to find its place.
	pointEvery = 16 << 10
	// pointsKept is how many points wait in memory to be written together, at least.
	pointsKept = 64
	// maxState bounds what is kept with a segment, and a snapshot's state.
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

// index is the sparse index of one segment: ascending in all fields. Points are added in memory as
// entries are applied, and come to the file with later appends and snapshots; the file counts only
// once it is final, or as far as a manifest says.
type index struct {
	handle fileHandle
	path   string
	base   uint64

	// writing is held by who changes the file or checks it, while it reads, writes and syncs; mu
	// and those of the handle are taken under it. A reader takes it only to check a file that this
	// process has not written, once: who holds it then is making what the reader needs.
	writing locks.Slow[indexWriting]

	// mu guards all below. Nothing is taken, and no file touched, under it.
	mu      locks.Mutex[index]
	written int    // points in the file
	crc     uint32 // over them
	recent  []point
	final   bool
	checked bool // the file's points match crc; what this process wrote needs no check
	// counts how often points in the file became void: what was read beside that is read again
	undone  uint64
	stateAt int64
	state   int // bytes of what is kept with the segment
}

// indexWriting is the class of an index's writing.
type indexWriting struct{}

// extent is what a final index says of its segment.
type extent struct {
	base, last uint64
	end, start int64
	maxTime    int64
}

func (s *segment) extent() extent { return extent{s.base, s.last, s.end, s.start, s.maxTime} }

func indexPath(segment string) string {
	return strings.TrimSuffix(segment, segmentSuffix) + indexSuffix
}

// newIndex begins an index with nothing in it, in place of a file that is there.
func newIndex(d *disk, s *segment) (*index, error) {
	x := &index{path: indexPath(s.path), base: s.base, checked: true}
	f, err := d.create(x.path)
	if err != nil {
		return nil, err
	}
	x.handle.init(d, x.path, f)
	return x, nil
}

// add appends a point in memory: whoever applies entries waits for no disk.
func (x *index) add(p point) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.recent = append(x.recent, p)
}

// spill writes the points that wait in memory if there are many. An error leaves them there.
func (x *index) spill() error {
	x.mu.Lock()
	few := len(x.recent) < pointsKept
	x.mu.Unlock()
	if few {
		return nil
	}
	x.writing.Lock()
	defer x.writing.Unlock()
	f, err := x.handle.acquire()
	if err != nil {
		return err
	}
	defer x.handle.release()
	return x.write(f)
}

// write brings the recent points to the file; writing is held.
func (x *index) write(f io.WriterAt) error {
	x.mu.Lock()
	written, recent := x.written, x.recent[:len(x.recent):len(x.recent)]
	x.mu.Unlock()
	if len(recent) == 0 {
		return nil
	}
	b := make([]byte, 0, len(recent)*pointSize)
	for _, p := range recent {
		b = p.append(b)
	}
	if _, err := f.WriteAt(b, indexHeader+int64(written)*pointSize); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.crc = crc32.Update(x.crc, castagnoli, b)
	x.written += len(recent)
	x.recent = append([]point(nil), x.recent[len(recent):]...)
	return nil
}

// inFile gives how many points the file has, and their CRC.
func (x *index) inFile() (count int, crc uint32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.written, x.crc
}

// isFinal reports whether the file never changes any more.
func (x *index) isFinal() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.final
}

// flush brings all points to stable storage and tells how many there are up to an entry, and their
// CRC. Those behind it are made again after a restart, perhaps elsewhere.
func (x *index) flush(d *disk, upTo uint64) (count int, crc uint32, err error) {
	x.writing.Lock()
	defer x.writing.Unlock()
	f, err := x.handle.acquire()
	if err != nil {
		return 0, 0, err
	}
	defer x.handle.release()
	if err := x.write(f); err != nil {
		return 0, 0, err
	}
	if err := d.sync(f); err != nil {
		return 0, 0, err
	}
	return x.prefix(f, upTo)
}

// prefix gives how many of the points in the file are up to an entry, and their CRC; writing is
// held.
func (x *index) prefix(f io.ReaderAt, upTo uint64) (count int, crc uint32, err error) {
	written, crc := x.inFile()
	n := written
	for ; n > 0; n-- {
		var b [pointSize]byte
		if _, err := f.ReadAt(b[:], indexHeader+int64(n-1)*pointSize); err != nil {
			return 0, 0, err
		}
		if parsePoint(b[:]).index <= upTo {
			break
		}
	}
	if n == written {
		return n, crc, nil
	}
	crc, err = crcOf(f, indexHeader, int64(n)*pointSize)
	return n, crc, err
}

// trim drops the points above an index: they will be made again when their entries are applied
// again.
func (x *index) trim(applied uint64) error {
	x.writing.Lock()
	defer x.writing.Unlock()
	f, err := x.handle.acquire()
	if err != nil {
		return err
	}
	defer x.handle.release()
	n, crc, err := x.prefix(f, applied)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.recent = slices.DeleteFunc(slices.Clone(x.recent), func(p point) bool { return p.index > applied })
	if err == nil {
		x.written, x.crc = n, crc
		x.undone++
	}
	return err
}

// finish writes the header and what is kept with the segment. The file never changes afterwards.
func (x *index) finish(d *disk, of extent, next int64, state []byte) error {
	x.writing.Lock()
	defer x.writing.Unlock()
	return x.complete(d, of, next, state)
}

// complete is finish; writing is held.
func (x *index) complete(d *disk, of extent, next int64, state []byte) error {
	f, err := x.handle.acquire()
	if err != nil {
		return err
	}
	defer x.handle.release()
	if err := x.write(f); err != nil {
		return err
	}
	written, crc := x.inFile()
	at := indexHeader + int64(written)*pointSize
	if len(state) > 0 {
		if _, err := f.WriteAt(state, at); err != nil {
			return err
		}
	}
	if err := f.Truncate(at + int64(len(state))); err != nil {
		return err
	}
	if _, err := f.WriteAt(of.indexHead(next, written, crc, state), 0); err != nil {
		return err
	}
	if err := d.sync(f); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.final, x.stateAt, x.state = true, at, len(state)
	return nil
}

// remake makes a final index again, which was found damaged when it was used, unless it is good by
// now: somebody else did. each passes all points to add, and gives the next offset behind the
// segment and what is kept with it. Who else wants the index waits.
func (x *index) remake(d *disk, of extent, good func() bool, each func(add func(point) error) (next int64, state []byte, err error)) error {
	x.writing.Lock()
	defer x.writing.Unlock()
	if good() {
		return nil
	}
	var points []point
	next, state, err := each(func(p point) error { points = append(points, p); return nil })
	if err != nil {
		return err
	}
	x.mu.Lock()
	x.written, x.crc, x.recent, x.checked = 0, 0, points, true
	x.undone++
	x.mu.Unlock()
	return x.complete(d, of, next, state)
}
