package raftlog

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// offsets reads a log by the partition's offsets, and by time.
type offsets struct {
	*home
	view  *view
	spots spots
}

// ReadAt gives a reader at an entry at or before the record at offset, within
// some 16 KiB of it. want is how many bytes will be read, about. The error is
// ErrNotInLog if the offset is below what is kept, or not applied yet.
func (l *offsets) ReadAt(offset int64, want int) (*Reader, error) {
	for {
		r, err := l.readAt(offset, want)
		if !errors.Is(err, errGone) {
			return r, err
		}
		// The segment was freed this moment: look again.
	}
}

// ErrNotInLog means that the log does not hold the place that was asked for.
var ErrNotInLog = errors.New("not in the log")

func (l *offsets) readAt(offset int64, want int) (*Reader, error) {
	s, first, x, err := l.view.atOffset(offset)
	if err != nil {
		return nil, err
	}
	spot, near := l.spots.find(s, offset)
	if near {
		first = spot
	} else if p, ok, err := l.floor(s, x, func(p point) bool { return p.offset > offset }); err != nil {
		return nil, err
	} else if ok {
		first = p
	}
	return l.reader(s, first, want)
}

// floor is index.floor of a segment's index, which is made again if it is damaged. ErrDamaged then
// means the segment.
func (l *offsets) floor(s *segment, x *index, above func(point) bool) (p point, ok bool, err error) {
	p, ok, err = x.floor(above)
	if err == nil || errors.Is(err, errGone) || vfs.OutOfFiles(err) {
		return p, ok, err
	}
	if err = l.recheck(s, err); err == nil {
		p, ok, err = x.floor(above)
	}
	if err == nil || errors.Is(err, errGone) || errors.Is(err, ErrDamaged) {
		return p, ok, err
	}
	// No room for it, for instance: without an index it takes longer.
	l.st.logger.Warn("an index is not used", "group", l.opts.Group, "segment", s.base, "error", err)
	return point{}, false, nil
}

// OffsetBeforeTime gives an offset at or before the first record with a timestamp
// (ms) of at least that, some 16 KiB in front of it at most. ok is false if no
// record is that new.
func (l *offsets) OffsetBeforeTime(timestamp int64) (offset int64, ok bool, err error) {
	s, offset, x := l.view.atTime(timestamp)
	if s == nil {
		return 0, false, nil
	}
	p, found, err := l.floor(s, x, func(p point) bool { return p.before >= timestamp })
	if found {
		offset = p.offset
	}
	if errors.Is(err, errGone) {
		err = nil // freed this moment: nothing in it is left to find
	}
	return offset, true, err
}

// readChunk is the most that a reader reads at once, in bytes, if entries are no larger: what is
// checked and copied right behind that is still in the processor's cache.
const readChunk = 256 << 10

func (l *offsets) reader(s *segment, from point, want int) (*Reader, error) {
	r := &Reader{view: l.view, spots: &l.spots, span: l.opts.Span, index: from.index, next: from.offset}
	w := newWalker(nil, framing{}, from.pos, 0, min(max(want+4<<10, 16<<10), readChunk))
	r.w = w
	if err := r.enter(s); err != nil {
		return nil, err
	}
	r.buf = readBuffers.Get().(*[]byte)
	w.buf = *r.buf
	return r, nil
}

// remakeIndex makes the final index of a segment again that was found damaged when it was used,
// unless it is good by now: somebody else did. Who else wants it waits.
func (l *offsets) remakeIndex(s *segment, good func() bool) error {
	if good() {
		return nil
	}
	if l.opts.Span == nil || !s.index.isFinal() {
		return fmt.Errorf("%w: the index of segment %d cannot be made again", ErrDamaged, s.base)
	}
	list := l.view.list()
	in, _ := slices.BinarySearchFunc(list, s.base, func(s *segment, base uint64) int { return cmp.Compare(s.base, base) })
	// What is in front is read before the index is taken: it may have to be made again as well.
	kept, err := l.keptBefore(list[:in], l.view.startOf)
	if err != nil {
		return err
	}
	start := l.view.startOf(s)
	return s.index.remake(l.st.disk, s.extent(), good, func(add func(point) error) (int64, []byte, error) {
		next, err := l.eachPoint(s, start, s.last, kept, add)
		if err != nil {
			return 0, nil, err
		}
		return next, endOfKept(kept, start, next), nil
	})
}

// Recheck mends the index by which the record at an offset was looked for, if it is damaged: wrong
// is what seems to be wrong with the log. It says so in the node's log where it cannot.
func (l *offsets) Recheck(offset int64, wrong error) {
	s, _, x, err := l.view.atOffset(offset)
	if err == nil && x != nil {
		err = l.recheck(s, wrong)
	}
	if err != nil && !errors.Is(err, errGone) && !errors.Is(err, ErrNotInLog) && !vfs.OutOfFiles(err) {
		l.st.logger.Warn("an index cannot be made again", "group", l.opts.Group, "offset", offset, "error", err)
	}
}

// recheck compares the index of a segment with its CRC, and makes it again if it is damaged.
func (l *offsets) recheck(s *segment, wrong error) error {
	l.spots.forget(s)        // they may have led there, or be of readers that the index led
	if s.index.isChecked() { // else it is known to be damaged, or not to be there
		if damaged, err := s.index.doubt(); err != nil || !damaged {
			return err
		}
	}
	l.st.logger.Warn("an index is made again", "group", l.opts.Group, "segment", s.base, "error", wrong)
	if !s.index.isFinal() {
		return nil
	}
	return l.remakeIndex(s, s.index.isChecked)
}

// KeptSegment is a segment that is complete, and whose index is final.
type KeptSegment struct {
	Base     uint64 // Raft index of its first entry
	From, To int64  // the offsets that it reaches from and to
	File     uint64 // names its file: another one may have less of it
	log      *offsets
	seg      *segment
}

// Keeps reports whether anything is kept with the segment. It touches no file.
func (k KeptSegment) Keeps() bool {
	_, size, _ := k.seg.index.keeps()
	return size > 0
}

// Kept gives what is kept with the segment, as good says that it should be: damage is mended. The
// error is ErrNotInLog if the segment was freed this moment, and wraps ErrDamaged if the index
// cannot be made again since its segment is damaged, too.
func (k KeptSegment) Kept(good func([]byte) error) error {
	read := func() error {
		b, err := k.seg.index.readState()
		if err == nil {
			err = good(b)
		}
		return err
	}
	err := read()
	if err != nil && !errors.Is(err, errGone) && !vfs.OutOfFiles(err) {
		l := k.log
		l.st.logger.Warn("an index is made again", "group", l.opts.Group, "segment", k.Base, "error", err)
		if err = l.remakeIndex(k.seg, func() bool { return read() == nil }); err == nil {
			err = read()
		}
	}
	if errors.Is(err, errGone) {
		return fmt.Errorf("%w: segment %d was freed this moment", ErrNotInLog, k.Base)
	}
	return err
}

// KeptAt gives the segment that holds the record at an offset. final is false while more may come
// to it, or its index is not written yet: what will be kept with it is the state machine's affair.
// ok is false if the offset is below what is kept, or not applied yet.
func (l *offsets) KeptAt(offset int64) (k KeptSegment, final, ok bool) {
	s, from, to, ok := l.view.reachOf(offset)
	if !ok {
		return k, false, false
	}
	return KeptSegment{s.base, from, to, s.id.Load(), l, s}, s.index != nil && s.index.isFinal(), true
}

// IndexedTo gives the offset up to which all is in segments whose indexes are final; -1: not known,
// or none is.
func (l *offsets) IndexedTo() int64 {
	list, applying := l.view.passed()
	for i := min(applying, len(list)-1); i >= 0; i-- {
		if list[i].index != nil && list[i].index.isFinal() {
			if i+1 < len(list) {
				return l.view.startOf(list[i+1])
			}
			break
		}
	}
	return unknownOffset
}

// spots are the places where readers stopped last.
type spots struct {
	// mu guards all below. Nothing is taken or waited for under it.
	mu   locks.Mutex[spots]
	at   [8]spot
	turn int
}

type spot struct {
	seg *segment
	point
}

func (s *spots) add(seg *segment, p point) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.at {
		if s.at[i].seg == seg && s.at[i].offset == p.offset {
			s.at[i].point = p
			return
		}
	}
	s.at[s.turn] = spot{seg, p}
	s.turn = (s.turn + 1) % len(s.at)
}

// forget lets go of the spots in a segment.
func (s *spots) forget(seg *segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.at {
		if s.at[i].seg == seg {
			s.at[i] = spot{}
		}
	}
}

// find gives a spot exactly at the offset.
func (s *spots) find(seg *segment, offset int64) (point, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range s.at {
		if at.seg == seg && at.offset == offset {
			return at.point, true
		}
	}
	return point{}, false
}
