package raftlog

import (
	"slices"
	"sort"
)

// progress is how far a log is applied. It is part of the view, whose lock guards it.
type progress struct {
	applied  uint64       // highest index applied
	next     int64        // offset behind it
	applying int          // position of the segment that is being applied
	marks    []mark       // entries that may become points, ascending, above applied
	ends     []segmentEnd // of the segments that are passed and whose index is not final
}

// mark is an entry where an index point may be made once it is applied.
type mark struct {
	seg   *segment
	index uint64
	pos   int64
}

// segmentEnd is what will be kept with a segment, until its index is final.
type segmentEnd struct {
	seg   *segment
	next  int64
	state []byte
}

// takeMarks takes the marks up to an entry away.
func (p *progress) takeMarks(index uint64) []mark {
	n := sort.Search(len(p.marks), func(i int) bool { return p.marks[i].index > index })
	taken := p.marks[:n]
	if p.marks = p.marks[n:]; len(p.marks) == 0 {
		p.marks = nil // let the array go
	}
	return taken
}

// endOfSegment gives what was told of a segment last; ok is false if nothing was.
func endOfSegment(ends []segmentEnd, s *segment) (end segmentEnd, ok bool) {
	for _, e := range slices.Backward(ends) {
		if e.seg == s {
			return e, true
		}
	}
	return end, false
}

// cut is told that the log ends at last, with these segments.
func (p *progress) cut(segments segmentList, last uint64) {
	p.applying = min(p.applying, max(len(segments)-1, 0))
	// The newest segment goes on, even if it was passed: only entries of Raft's own followed.
	passed := segments[:p.applying]
	p.ends = slices.DeleteFunc(slices.Clone(p.ends), func(e segmentEnd) bool { return !slices.Contains(passed, e.seg) })
	i := sort.Search(len(p.marks), func(i int) bool { return p.marks[i].index > last })
	p.marks = p.marks[:i]
}

// trim is told that the first n segments are freed, and that the log begins with the entry at
// first.
func (p *progress) trim(n int, first uint64) {
	p.applying = max(p.applying-n, 0)
	p.ends = slices.DeleteFunc(slices.Clone(p.ends), func(e segmentEnd) bool { return e.seg.base < first })
}

// Crosses reports whether the entry at index, which is about to be applied, is in another segment
// than the one applied before. Then Cross must be called first.
func (v *view) Crosses(index uint64) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.applying+1 < len(v.segments) && v.segments[v.applying+1].base <= index
}

// Cross is told that everything in front of the entry at index is applied, and what is kept with
// the index of the segment that ends.
func (v *view) Cross(index uint64, state []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for v.applying+1 < len(v.segments) && v.segments[v.applying+1].base <= index {
		s := v.segments[v.applying]
		v.ends = append(v.ends, segmentEnd{s, v.next, state})
		v.applying++
		v.segments[v.applying].start = v.next
	}
}

// Applied is told of every applied entry of commands, in order: the next offset behind it, the
// largest timestamp (ms) of the records that it added and when the leader wrote it (ms). An entry
// without records leaves next as it is. It touches no file.
func (v *view) Applied(index uint64, next, maxTime, written int64) {
	x, points := v.apply(index, next, maxTime, written)
	for _, p := range points {
		x.add(p)
	}
}

// apply is Applied but for the points that the entry gives, which are for the index.
func (v *view) apply(index uint64, next, maxTime, written int64) (x *index, points []point) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if index <= v.applied || len(v.segments) == 0 {
		return nil, nil
	}
	s := v.segments[v.applying]
	v.applied = index
	for _, m := range v.takeMarks(index) {
		if m.seg == s && s.index != nil {
			points = append(points, point{m.index, m.pos, v.next, s.maxTime})
		}
	}
	if next > v.next {
		v.next = next
		s.maxTime = max(s.maxTime, maxTime)
		s.lastWrite = written
	}
	return s.index, points
}

// applyingStart gives the offset that the segment which is being applied begins at.
func (v *view) applyingStart() int64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.applying < len(v.segments) {
		return v.segments[v.applying].start
	}
	return v.next
}

// LastApplied gives the highest index applied and the offset behind it, as far as the log was told.
func (v *view) LastApplied() (index uint64, next int64) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.applied, v.next
}

// growing gives the index that points are added to; nil: none.
func (v *view) growing() *index {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.applying < len(v.segments) {
		return v.segments[v.applying].index
	}
	return nil
}

// Passed reports whether it is known of all segments but the last where their records end.
func (v *view) Passed() bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.applying+1 >= len(v.segments)
}
