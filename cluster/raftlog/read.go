package raftlog

import (
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// Reader reads applied entries in order. It holds no lock, and delays no append.
// What it reads is checked against its CRC. One goroutine may use it.
type Reader struct {
	l      *PartitionLog
	seg    *segment
	w      *walker
	index  uint64 // of the entry that comes next
	next   int64  // next offset in front of it
	before int64  // position of the entry that Next gave; -1: none
	cuts   uint64 // of the log when the segment's end was looked at
	buf    *[]byte
}

// readBuffers are for readers that are done after a moment.
var readBuffers = sync.Pool{New: func() any { return new([]byte) }}

// ReadAt gives a reader at an entry at or before the record at offset, within
// some 16 KiB of it. want is how many bytes will be read, about. The error is
// ErrNotInLog if the offset is below what is kept, or not applied yet.
func (l *PartitionLog) ReadAt(offset int64, want int) (*Reader, error) {
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

func (l *PartitionLog) readAt(offset int64, want int) (*Reader, error) {
	l.state.RLock()
	if offset >= l.next || len(l.segments) == 0 {
		l.state.RUnlock()
		return nil, fmt.Errorf("%w: offset %d", ErrNotInLog, offset)
	}
	i := sort.Search(len(l.segments), func(i int) bool {
		return l.segments[i].start == unknownOffset || l.segments[i].start > offset
	})
	if i == 0 {
		l.state.RUnlock()
		return nil, fmt.Errorf("%w: offset %d", ErrNotInLog, offset)
	}
	s := l.segments[i-1]
	first := point{index: s.base, pos: segmentHeader, offset: s.start}
	x := s.index
	spot, near := l.spots.find(s, offset)
	l.state.RUnlock()
	if near {
		first = spot
	} else if p, ok, err := l.floor(s, x, func(p point) bool { return p.offset > offset }); err != nil {
		return nil, err
	} else if ok {
		first = p
	}
	return l.reader(s, first, want)
}

// floor is index.floor of a segment's index, which is made again if it is damaged. ErrDamaged then means the segment.
func (l *PartitionLog) floor(s *segment, x *index, above func(point) bool) (p point, ok bool, err error) {
	p, ok, err = x.floor(above)
	if err == nil || errors.Is(err, errGone) || vfs.OutOfFiles(err) {
		return p, ok, err
	}
	l.st.logger.Warn("an index is made again", "group", l.opts.Group, "segment", s.base, "error", err)
	if err = l.remakeIndex(s); err == nil {
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
func (l *PartitionLog) OffsetBeforeTime(timestamp int64) (offset int64, ok bool, err error) {
	l.state.RLock()
	var s *segment
	for _, c := range l.segments {
		if c.start != unknownOffset && c.maxTime >= timestamp {
			s = c
			break
		}
	}
	if s == nil {
		l.state.RUnlock()
		return 0, false, nil
	}
	offset = s.start
	x := s.index
	l.state.RUnlock()
	p, found, err := l.floor(s, x, func(p point) bool { return p.before >= timestamp })
	if found {
		offset = p.offset
	}
	if errors.Is(err, errGone) {
		err = nil // freed this moment: nothing in it is left to find
	}
	return offset, true, err
}

// MaxTime gives the largest timestamp (ms) of all applied records.
func (l *PartitionLog) MaxTime() (int64, bool) {
	l.state.RLock()
	defer l.state.RUnlock()
	newest := int64(noTime)
	for _, s := range l.segments {
		if s.start != unknownOffset {
			newest = max(newest, s.maxTime)
		}
	}
	return newest, newest != noTime
}

func (l *PartitionLog) reader(s *segment, from point, want int) (*Reader, error) {
	r := &Reader{l: l, index: from.index, next: from.offset}
	w := newWalker(nil, framing{}, from.pos, 0, min(max(want+4<<10, 16<<10), 1<<20+16<<10))
	r.w = w
	if err := r.enter(s); err != nil {
		return nil, err
	}
	r.buf = readBuffers.Get().(*[]byte)
	w.buf = *r.buf
	return r, nil
}

// enter goes on in a segment.
func (r *Reader) enter(s *segment) error {
	f, err := s.handle.acquire()
	if err != nil {
		return err
	}
	r.seg, r.w.f = s, f
	r.look()
	return nil
}

// look takes the segment's end as it is now. What was read before may have been cut off and written anew since.
func (r *Reader) look() {
	r.l.state.RLock()
	defer r.l.state.RUnlock()
	r.w.have, r.w.limit, r.w.fr, r.cuts = nil, r.seg.end, r.seg.framing, r.l.cuts.Load()
}

// Expected is the next offset in front of the entry that Next will give.
func (r *Reader) Expected() int64 { return r.next }

// Next gives the next entry up to index limit; io.EOF when there is none. Its
// data are valid until the call after this. The caller says with Passed what
// the entry did.
func (r *Reader) Next(limit uint64) (raft.Log, error) {
	for {
		if r.index > limit {
			return raft.Log{}, io.EOF
		}
		if r.cuts != r.l.cuts.Load() {
			r.look()
		}
		r.before = r.w.pos
		f, b, err := r.w.next()
		if errors.Is(err, io.EOF) {
			if more, err := r.more(); err != nil {
				return raft.Log{}, err
			} else if !more {
				return raft.Log{}, io.EOF
			}
			continue
		}
		if err != nil && r.cuts != r.l.cuts.Load() {
			continue
		}
		if err != nil {
			return raft.Log{}, err
		}
		if f.index != r.index {
			return raft.Log{}, fmt.Errorf("%w: entry %d where %d should be", ErrDamaged, f.index, r.index)
		}
		r.index++
		return f.entry(b), nil
	}
}

// Unread goes back in front of the entry that Next gave, once.
func (r *Reader) Unread() {
	if r.before >= 0 {
		r.w.pos, r.w.have, r.before = r.before, nil, -1
		r.index--
	}
}

// Left is how many bytes the segment has behind the entry that Next gave.
func (r *Reader) Left() int64 { return r.w.limit - r.w.pos }

// Passed tells the next offset behind the entry that Next gave.
func (r *Reader) Passed(next int64) { r.next = next }

// more goes on where the segment has grown, or in the next one.
func (r *Reader) more() (bool, error) {
	l := r.l
	l.state.RLock()
	if r.seg.end > r.w.limit {
		r.w.limit, r.w.fr = r.seg.end, r.seg.framing
		l.state.RUnlock()
		return true, nil
	}
	i := sort.Search(len(l.segments), func(i int) bool { return l.segments[i].base > r.seg.base })
	var s *segment
	if i < len(l.segments) {
		s = l.segments[i]
	}
	l.state.RUnlock()
	if s == nil || s.base != r.index {
		return false, nil
	}
	old := r.seg
	if err := r.enter(s); err != nil {
		if errors.Is(err, errGone) {
			err = fmt.Errorf("%w: entry %d was freed this moment", ErrNotInLog, r.index)
		}
		return false, err
	}
	old.handle.release()
	r.w.pos, r.w.have = segmentHeader, nil
	return true, nil
}

// Close ends the reader and remembers where it stood: consumers read on there.
func (r *Reader) Close() {
	r.l.spots.add(r.seg, point{index: r.index, pos: r.w.pos, offset: r.next})
	r.seg.handle.release()
	*r.buf = r.w.buf
	r.w.buf, r.w.have = nil, nil
	readBuffers.Put(r.buf)
}

// spots are the places where readers stopped last.
type spots struct {
	mu   sync.Mutex
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
