package raftlog

import (
	"errors"
	"fmt"
	"io"
)

// openIndexes opens the indexes of all segments, and makes again those that are
// missing or damaged.
func (l *recovery) openIndexes() error {
	records := map[uint64]segmentRecord{}
	for _, r := range l.manifest.Segments {
		records[r.Base] = r
	}
	for i, s := range l.segments {
		r, known := records[s.base]
		var err error
		switch {
		case known && r.Final:
			s.index, err = openIndex(l.st.disk, s)
		case known && r.Points >= 0:
			s.index, err = resumeIndex(l.st.disk, s, r.Points, r.PointsCRC)
			if err == nil {
				err = s.index.trim(l.manifest.Snapshot.Index)
			}
		default:
			s.index, err = newIndex(l.st.disk, s)
			if err != nil {
				return err
			}
			continue
		}
		if errors.Is(err, ErrDamaged) {
			l.st.logger.Warn("an index is made again", "group", l.opts.Group, "segment", s.base, "error", err)
			if s.index != nil {
				s.index.handle.drop()
			}
			err = l.rebuildIndex(i)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// rebuildIndex makes the index of a segment from the segment alone, as far as it
// is applied.
func (l *recovery) rebuildIndex(i int) error {
	s := l.segments[i]
	x, err := newIndex(l.st.disk, s)
	if err != nil {
		return err
	}
	s.index = x
	if s.start == unknownOffset {
		return nil // nothing in it is applied
	}
	if l.opts.Span == nil {
		return fmt.Errorf("%w: the index of segment %d cannot be made again", ErrDamaged, s.base)
	}
	applied := l.manifest.Snapshot.Index
	next, err := l.eachPoint(s, applied, func(p point) error {
		x.add(p)
		return x.spill()
	})
	if err != nil {
		return err
	}
	if s.sealed && s.last <= applied {
		// The state at its end is not known any more; whoever needs it goes back to an
		// earlier segment.
		return x.finish(l.st.disk, s.extent(), next, nil)
	}
	return nil
}

// eachPoint makes the points of a segment's index from the segment alone, up to an entry that is
// applied, and gives the next offset behind it.
func (l *home) eachPoint(s *segment, applied uint64, add func(point) error) (next int64, err error) {
	f, err := s.handle.acquire()
	if err != nil {
		return 0, err
	}
	defer s.handle.release()
	w := newWalker(f, s.framing, segmentHeader, s.end, walkChunk)
	next, maxTime, since := s.start, int64(noTime), int64(pointEvery)
	for {
		pos := w.pos
		fr, b, err := w.next()
		if errors.Is(err, io.EOF) || err == nil && fr.index > applied {
			return next, nil
		}
		if err != nil {
			return 0, fmt.Errorf("segment %d: %w", s.base, err)
		}
		if since >= pointEvery {
			if err := add(point{fr.index, pos, next, maxTime}); err != nil {
				return 0, err
			}
			since = 0
		}
		since += fr.size()
		entry := fr.entry(b)
		if after, newest := l.opts.Span(&entry, next); after > next {
			next, maxTime = after, max(maxTime, newest)
		}
	}
}
