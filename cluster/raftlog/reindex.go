package raftlog

import (
	"errors"
	"fmt"
	"io"
	"slices"
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
	complete := s.sealed && s.last <= applied
	var kept Kept
	if complete {
		if kept, err = l.keptBefore(l.segments[:i], func(s *segment) int64 { return s.start }); err != nil {
			return err
		}
	}
	next, err := l.eachPoint(s, s.start, applied, kept, func(p point) error {
		x.add(p)
		return x.spill()
	})
	if err != nil || !complete {
		return err
	}
	return x.finish(l.st.disk, s.extent(), next, endOfKept(kept, s.start, next))
}

// keptBefore begins to make what is kept with the segment behind some: with what the last of them
// is kept with or, where that cannot be read, with what gives it again. startOf gives the offset
// that a segment begins at.
func (l *home) keptBefore(segments segmentList, startOf func(*segment) int64) (kept Kept, err error) {
	if l.opts.Kept == nil {
		return nil, nil
	}
	var again segmentList
	for kept == nil {
		var state []byte
		if len(segments) > 0 {
			s := segments[len(segments)-1]
			segments = segments[:len(segments)-1]
			if s.index == nil || !s.index.isFinal() {
				again = append(again, s)
				continue
			}
			state, err = s.index.readState()
			switch {
			case errors.Is(err, errGone): // freed this moment, with all that are in front of it
				segments, state = nil, nil
			case errors.Is(err, ErrDamaged):
				again = append(again, s)
				continue
			case err != nil:
				return nil, err
			}
			if kept, err = l.opts.Kept(state); err != nil {
				again = append(again, s)
				kept = nil
			}
			continue
		}
		if kept, err = l.opts.Kept(nil); err != nil {
			return nil, err
		}
	}
	for _, s := range slices.Backward(again) {
		start := startOf(s)
		if start == unknownOffset {
			continue // nothing in it is applied
		}
		next, err := l.eachPoint(s, start, s.last, kept, func(point) error { return nil })
		if errors.Is(err, errGone) {
			kept, err = l.opts.Kept(nil)
		} else if err == nil {
			kept.End(start, next)
		}
		if err != nil {
			return nil, err
		}
	}
	return kept, nil
}

// endOfKept is Kept.End where something is kept.
func endOfKept(kept Kept, from, to int64) []byte {
	if kept == nil {
		return nil
	}
	return kept.End(from, to)
}

// eachPoint makes the points of a segment's index from the segment alone, which begins at offset
// start, up to an entry that is applied, and gives the next offset behind it. kept, unless nil, is
// given the entries.
func (l *home) eachPoint(s *segment, start int64, applied uint64, kept Kept, add func(point) error) (next int64, err error) {
	f, err := s.handle.acquire()
	if err != nil {
		return 0, err
	}
	defer s.handle.release()
	w := newWalker(f, s.framing, segmentHeader, s.end, walkChunk)
	next, maxTime, since := start, int64(noTime), int64(pointEvery)
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
			if err := add(point{fr.first(), pos, next, maxTime}); err != nil {
				return 0, err
			}
			since = 0
		}
		since += fr.size()
		entry := fr.entry(b)
		if kept != nil {
			kept.Add(&entry, next)
		}
		if after, newest := l.opts.Span(&entry, next); after > next {
			next, maxTime = after, max(maxTime, newest)
		}
	}
}
