package raftlog

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
)

// scrubber reads what nobody may have read for months: damage is better found while other replicas
// are whole. It holds no lock while it reads.
type scrubber struct{ view *view }

// Scrub reads the segments that are complete and applied, and checks every entry:
// its CRC, its index and the chain of CRCs. Nobody may have read them for months,
// and damage is better found while other replicas are whole.
//
// pace is asked before bytes are read; its error ends the scrub and is returned.
// The error wraps ErrDamaged if something is not what was written. What is freed
// meanwhile is passed over. No append waits for it.
func (l *scrubber) Scrub(pace func(bytes int) error) error {
	for _, s := range l.view.complete() {
		if err := l.scrub(s, pace); err != nil {
			return err
		}
	}
	return nil
}

func (l *scrubber) scrub(s *segment, pace func(int) error) error {
	f, err := s.handle.acquire()
	if errors.Is(err, errGone) {
		return nil
	}
	if err != nil {
		return l.unlessGone(s, fmt.Errorf("segment %d: %w", s.base, err))
	}
	defer s.handle.release()
	bad := func(err error) error { return fmt.Errorf("%s: %w", filepath.Base(s.path), err) }
	if err := pace(segmentHeader); err != nil {
		return err
	}
	head, err := readSegmentHeader(s.path, f)
	if err != nil {
		return l.unlessGone(s, bad(err))
	}
	if head.base != s.base || head.gen != s.gen || head.seed != s.seed || head.framing != s.framing {
		return bad(fmt.Errorf("%w: its head is that of segment %d of generation %d", ErrDamaged, head.base, head.gen))
	}
	var paced error
	c := chainCheck{w: newWalker(pacedReader{f, pace, &paced}, s.framing, segmentHeader, s.end, walkChunk), index: s.base - 1, chain: s.seed}
	for {
		_, _, err := c.next()
		if paced != nil {
			return paced
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return l.unlessGone(s, bad(err))
		}
	}
	if c.index != s.last || c.chain != s.chain {
		return bad(fmt.Errorf("%w: it ends at entry %d, CRC %08x, instead of %d, %08x", ErrDamaged, c.index, c.chain, s.last, s.chain))
	}
	return nil
}

// unlessGone gives nil if the segment is no longer part of the log.
func (l *scrubber) unlessGone(s *segment, err error) error {
	if l.view.has(s) {
		return err
	}
	return nil
}

// pacedReader asks before each read.
type pacedReader struct {
	io.ReaderAt
	pace func(int) error
	err  *error
}

func (r pacedReader) ReadAt(b []byte, at int64) (int, error) {
	if *r.err = r.pace(len(b)); *r.err != nil {
		return 0, *r.err
	}
	return r.ReaderAt.ReadAt(b, at)
}

// chainCheck reads the entries of a segment and checks that each is the one behind
// the one before.
type chainCheck struct {
	w     *walker
	index uint64 // of the entry before
	chain uint32 // its CRC
}

// next gives the next entry; io.EOF behind the last.
func (c *chainCheck) next() (frame, []byte, error) {
	f, b, err := c.w.next()
	if err != nil {
		if errors.Is(err, ErrDamaged) {
			err = fmt.Errorf("behind entry %d: %w", c.index, err)
		}
		return f, b, err
	}
	if f.first() != c.index+1 || f.chain != c.chain {
		return f, b, fmt.Errorf("%w: entry %d behind entry %d is not of one log", ErrDamaged, f.first(), c.index)
	}
	c.index, c.chain = f.index, f.crc
	return f, b, nil
}
