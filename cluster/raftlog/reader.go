package raftlog

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"
)

// Reader reads applied entries in order. It holds no lock, and delays no append.
// What it reads is checked against its CRC. One goroutine may use it.
type Reader struct {
	view   *view
	spots  *spots // where to remember the place
	span   Span   // nil: not known
	seg    *segment
	w      *walker
	index  uint64 // of the entry that comes next
	next   int64  // next offset in front of it
	before int64  // position of the entry that Next gave and that is not passed; -1: none
	back   uint64 // index to go back to with it
	cuts   uint64 // of the log when the segment's end was looked at
	astray bool   // what Next found was not what the place led to: it is worth nothing to others
	buf    *[]byte
}

// readBuffers are for readers that are done after a moment.
var readBuffers = sync.Pool{New: func() any { return new([]byte) }}

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

// look takes the segment's end as it is now. What was read before may have been cut off and written
// anew since.
func (r *Reader) look() {
	r.w.limit, r.w.fr, r.cuts = r.view.endOf(r.seg)
	r.w.have = nil
}

// Expected is the next offset in front of the entry that Next will give.
func (r *Reader) Expected() int64 { return r.next }

// Next gives the next entry up to index limit; io.EOF when there is none. Its
// data are valid until the call after this. The caller says with Passed what
// the entry did, unless that is nothing to the offsets.
func (r *Reader) Next(limit uint64) (raft.Log, error) {
	r.before = -1
	for {
		if r.index > limit {
			return raft.Log{}, io.EOF
		}
		if r.cuts != r.view.cuts.Load() {
			r.look()
		}
		at := r.w.pos
		f, b, err := r.w.next()
		if errors.Is(err, io.EOF) {
			if more, err := r.more(); err != nil {
				return raft.Log{}, err
			} else if !more {
				return raft.Log{}, io.EOF
			}
			continue
		}
		if err != nil && r.cuts != r.view.cuts.Load() {
			continue
		}
		if err != nil {
			r.astray = true
			return raft.Log{}, err
		}
		if !f.holds(r.index) {
			r.w.pos, r.w.have, r.astray = at, nil, true
			return raft.Log{}, fmt.Errorf("%w: entry %d where %d should be", ErrDamaged, f.index, r.index)
		}
		r.before, r.back, r.index = at, r.index, f.index+1
		return f.entry(b), nil
	}
}

// Unread goes back in front of the entry that Next gave, once.
func (r *Reader) Unread() {
	if r.before >= 0 {
		r.w.pos, r.w.have, r.before = r.before, nil, -1
		r.index = r.back
	}
}

// Left is how many bytes the segment has behind the entry that Next gave.
func (r *Reader) Left() int64 { return r.w.limit - r.w.pos }

// Passed tells the next offset behind the entry that Next gave.
func (r *Reader) Passed(next int64) { r.next, r.before = next, -1 }

// more goes on where the segment has grown, or in the next one.
func (r *Reader) more() (bool, error) {
	end, fr, s := r.view.further(r.seg)
	if end > r.w.limit {
		r.w.limit, r.w.fr = end, fr
		return true, nil
	}
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

// Close ends the reader and remembers where it stood: consumers read on there. That is in front of
// an entry that was given and not passed: Expected is its offset, and who comes for that must find
// it. A place behind which Next failed is not remembered: a damaged index may have led to it.
func (r *Reader) Close() {
	r.Unread()
	if !r.astray {
		r.spots.add(r.seg, point{index: r.index, pos: r.w.pos, offset: r.next})
	}
	r.seg.handle.release()
	*r.buf = r.w.buf
	r.w.buf, r.w.have = nil, nil
	readBuffers.Put(r.buf)
}
