package raftlog

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	mathrand "math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

const (
	segmentMagic   = "TRMSEG\x00" // and the format, 1 or 2
	segmentFormat  = 2            // the newest
	segmentHeader  = 64
	segmentSuffix  = ".log"
	indexSuffix    = ".idx"
	firstAllocated = 64 << 10 // a new segment's size; it doubles up to
	maxAllocated   = 32 << 20 // more each time
)

// segment is one file of a log. What changes in it is changed by whoever has the log's turn, with
// the view's lock held, by which readers look at it; the turn alone is enough to read it, and for
// what no reader looks at (allocated). What applied entries tell is changed by whoever applies,
// with the view's lock. The bytes of entries up to end need no lock.
type segment struct {
	base uint64 // Raft index of the first entry, also if it is not there yet
	gen  uint32 // of the manifest that it was made under
	// rewrite counts how often compaction has made a file in place of others; 0: Raft's own.
	rewrite uint32
	seed    uint32 // in place of the CRC before the first entry's
	path    string // of the file

	// framing changes once, if the segment was empty when a newer format came into use. Guarded as
	// end is.
	framing framing

	// id names what the file holds in the journal; a cut gives it another one.
	id atomic.Uint64

	last      uint64 // index of the last entry; base-1: none
	end       int64  // where the next entry goes
	chain     uint32 // CRC of the last entry, or seed
	allocated int64  // size of the file
	firstAt   int64  // ms since 1970, when its first entry was written here; 0: empty
	sealed    bool   // nothing more is written

	// What applied entries tell.
	start     int64 // next offset in front of its first entry; unknownOffset: not applied so far
	maxTime   int64 // largest timestamp of its records, ms; noTime: none
	lastWrite int64 // ms since 1970, leader's clock, of the last applied records; 0: none
	index     *index

	handle fileHandle
}

const (
	unknownOffset = -1
	noTime        = -1 << 63
)

// segmentID is what the name of a segment's file says.
type segmentID struct {
	base         uint64
	gen, rewrite uint32
}

func (id segmentID) name() string {
	if id.rewrite == 0 {
		return fmt.Sprintf("%020d-%d%s", id.base, id.gen, segmentSuffix)
	}
	return fmt.Sprintf("%020d-%d-%d%s", id.base, id.gen, id.rewrite, segmentSuffix)
}

func (s *segment) segmentID() segmentID { return segmentID{s.base, s.gen, s.rewrite} }

func parseSegmentName(name string) (id segmentID, ok bool) {
	stem, found := strings.CutSuffix(name, segmentSuffix)
	parts := strings.Split(stem, "-")
	if !found || len(parts) < 2 || len(parts) > 3 || len(parts[0]) != 20 {
		return segmentID{}, false
	}
	var numbers [3]uint64
	for i, part := range parts {
		var err error
		if numbers[i], err = strconv.ParseUint(part, 10, []int{64, 32, 32}[i]); err != nil {
			return segmentID{}, false
		}
	}
	id = segmentID{numbers[0], uint32(numbers[1]), uint32(numbers[2])}
	return id, id.base != 0 && id.name() == name
}

// header gives the first bytes of the file.
func (s *segment) header() []byte {
	h := segmentHead{id: s.id.Load(), base: s.base, gen: s.gen, seed: s.seed, framing: s.framing}
	return h.encode()
}

// newFraming is how the entries of a new segment are laid out.
func newFraming(stamped bool) framing {
	if !stamped {
		return framing{}
	}
	return framing{stamped: true, secret: newSecret()}
}

// newID gives a name for a segment's content that no other has had.
func newID() uint64 { return mathrand.Uint64() }

// newSecret gives a number that nobody can guess.
func newSecret() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}

// segmentHead is what the first bytes of a segment file say.
type segmentHead struct {
	id, base  uint64
	gen, seed uint32
	framing   framing
}

func (h segmentHead) encode() []byte {
	le := binary.LittleEndian
	b := append(make([]byte, 0, segmentHeader), segmentMagic...)
	if h.framing.stamped {
		b = append(b, 2)
	} else {
		b = append(b, 1)
	}
	b = le.AppendUint64(b, h.id)
	b = le.AppendUint64(b, h.base)
	b = le.AppendUint32(b, h.gen)
	b = le.AppendUint32(b, h.seed)
	b = le.AppendUint64(b, h.framing.secret)
	b = append(b, make([]byte, segmentHeader-4-len(b))...)
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// ErrVersion is in the error about a file of a newer format.
var ErrVersion = errors.New("written by a newer version of the program")

// readSegmentHeader reads the first bytes of a segment file.
func readSegmentHeader(path string, f io.ReaderAt) (h segmentHead, err error) {
	b := make([]byte, segmentHeader)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return h, err
	}
	good := func() bool {
		return crc32.Checksum(b[:segmentHeader-4], castagnoli) == binary.LittleEndian.Uint32(b[segmentHeader-4:])
	}
	version := b[7]
	if string(b[:7]) == segmentMagic && version > segmentFormat {
		for b[7] = 1; b[7] <= segmentFormat; b[7]++ {
			if good() {
				return h, fmt.Errorf("%w: %s has format %d, and was written with format %d", ErrDamaged, path, version, b[7])
			}
		}
		return h, fmt.Errorf("%s: %w: format %d", path, ErrVersion, version)
	}
	if string(b[:7]) != segmentMagic || version == 0 || !good() {
		return h, fmt.Errorf("%w: %s has no good header", ErrDamaged, path)
	}
	le := binary.LittleEndian
	h = segmentHead{id: le.Uint64(b[8:]), base: le.Uint64(b[16:]), gen: le.Uint32(b[24:]), seed: le.Uint32(b[28:])}
	if version > 1 {
		h.framing = framing{stamped: true, secret: le.Uint64(b[32:])}
	}
	return h, nil
}

// createSegment makes an empty segment that is on stable storage.
func createSegment(d *disk, dir string, base uint64, gen uint32, stamped bool) (*segment, error) {
	s := &segment{
		base: base, gen: gen, seed: mathrand.Uint32(), path: filepath.Join(dir, segmentID{base: base, gen: gen}.name()),
		last: base - 1, end: segmentHeader, start: unknownOffset, maxTime: noTime, framing: newFraming(stamped),
	}
	s.id.Store(newID())
	s.chain = s.seed
	f, err := d.create(s.path)
	if err != nil {
		return nil, err
	}
	undo := func(err error) (*segment, error) {
		f.Close()
		d.unmake(s.path)
		return nil, err
	}
	if err := f.Allocate(firstAllocated); err != nil {
		return undo(err)
	}
	s.allocated = firstAllocated
	if _, err := f.WriteAt(s.header(), 0); err != nil {
		return undo(err)
	}
	if err := d.sync(f); err != nil {
		return undo(err)
	}
	if err := d.syncDir(dir); err != nil {
		return undo(err)
	}
	s.handle.init(d, s.path, f)
	return s, nil
}

// allocate makes room for size bytes more, and for others up to a limit as far as there is space.
func (s *segment) allocate(f vfs.File, space *space, size, limit int64) error {
	need := s.end + size
	if need <= s.allocated {
		return nil
	}
	step := space.ahead(min(max(s.allocated, firstAllocated), maxAllocated))
	want := max(min(s.allocated+step, limit), need)
	defer space.grown()
	if err := f.Allocate(want); err != nil {
		if err = f.Allocate(need); err != nil {
			return err
		}
		want = need
	}
	s.allocated = want
	return nil
}

// cut makes what is behind the entry that ends at end go away for good. All that
// is kept is on stable storage afterwards, and what the journal has of the
// segment means nothing any more (FORMAT.md, Cutting). The caller then notes the segment's end.
func (s *segment) cut(d *disk, f vfs.File, end int64) error {
	if err := d.sync(f); err != nil {
		return err
	}
	// What the journal has is void before anything goes: it may have a part of what
	// is cut, and played back that would stand behind a hole.
	old := s.id.Load()
	s.id.Store(newID())
	if _, err := f.WriteAt(s.header(), 0); err != nil {
		// A part of it may be written: the head that was there is put back, as far as that goes.
		s.id.Store(old)
		_, back := f.WriteAt(s.header(), 0)
		return errors.Join(err, back)
	}
	if err := d.sync(f); err != nil {
		return err
	}
	if err := f.Truncate(end); err != nil {
		return err
	}
	return d.sync(f)
}

// flush brings to stable storage what was written to the segment so far. A segment that is gone
// needs none: whoever lets go of one that stays syncs it. One that has come there since is not
// opened for it.
func (s *segment) flush(d *disk) error {
	if !s.handle.isDirty() {
		return nil
	}
	f, err := s.handle.acquire()
	if errors.Is(err, errGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer s.handle.release()
	return d.sync(f)
}

// walker reads the entries of a segment one after the other.
type walker struct {
	f     io.ReaderAt
	fr    framing
	pos   int64
	limit int64 // no entry reaches beyond
	buf   []byte
	have  []byte // what is read and not used: the bytes at pos
	chunk int
}

const walkChunk = 256 << 10

func newWalker(f io.ReaderAt, fr framing, pos, limit int64, chunk int) *walker {
	return &walker{f: f, fr: fr, pos: pos, limit: limit, chunk: max(chunk, fr.header())}
}

// fill makes sure that n bytes are in have, if the file has them.
func (w *walker) fill(n int) error {
	if len(w.have) >= n {
		return nil
	}
	size := int(min(int64(max(n, w.chunk)), w.limit-w.pos))
	if size < n {
		return io.ErrUnexpectedEOF
	}
	// What is there already moves to the front; the rest is read behind it.
	old := w.have
	if cap(w.buf) < size {
		w.buf = make([]byte, size)
	}
	got := copy(w.buf[:size], old)
	more, err := w.f.ReadAt(w.buf[got:size], w.pos+int64(got))
	got += more
	w.have = w.buf[:got]
	if got >= n {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// next gives the entry at pos, verified but for its chain and index, and moves
// behind it. The bytes are valid until the next call. io.EOF: pos is the limit.
func (w *walker) next() (frame, []byte, error) {
	f, err := w.peek()
	if err != nil {
		return frame{}, nil, err
	}
	size := f.size()
	if err := w.fill(int(size)); err != nil {
		return frame{}, nil, w.short(err)
	}
	b := w.have[:size]
	if err := f.verify(b); err != nil {
		return frame{}, nil, err
	}
	w.have = w.have[size:]
	w.pos += size
	return f, b, nil
}

func (w *walker) short(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: the file ends within an entry", ErrDamaged)
	}
	return err
}

// peek gives the header of the entry at pos, not verified. io.EOF: pos is the limit.
func (w *walker) peek() (frame, error) {
	if w.pos >= w.limit {
		return frame{}, io.EOF
	}
	if err := w.fill(w.fr.header()); err != nil {
		return frame{}, w.short(err)
	}
	f, err := parseFrame(w.have, w.fr, w.pos)
	if err == nil && f.size() > w.limit-w.pos {
		err = fmt.Errorf("%w: entry %d reaches beyond the segment's end", ErrDamaged, f.index)
	}
	return f, err
}

// skip moves behind the entry that peek gave, without looking at its content.
func (w *walker) skip(f frame) {
	size := f.size()
	w.have = w.have[min(int64(len(w.have)), size):]
	w.pos += size
}
