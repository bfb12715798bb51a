package raftlog

import "sort"

// Crosses reports whether the entry at index, which is about to be applied, is in
// another segment than the one applied before. Then Cross must be called first.
func (l *PartitionLog) Crosses(index uint64) bool {
	l.state.RLock()
	defer l.state.RUnlock()
	return l.applying+1 < len(l.segments) && l.segments[l.applying+1].base <= index
}

// Cross is told that everything in front of the entry at index is applied, and
// the partition's state there, which is kept with the index of the segment that
// ends.
func (l *PartitionLog) Cross(index uint64, state []byte) {
	l.state.Lock()
	defer l.state.Unlock()
	for l.applying+1 < len(l.segments) && l.segments[l.applying+1].base <= index {
		s := l.segments[l.applying]
		l.ends = append(l.ends, segmentEnd{s, l.next, state})
		l.applying++
		l.segments[l.applying].start = l.next
	}
}

// Applied is told of every applied entry of commands, in order: the next offset
// behind it, the largest timestamp (ms) of the records that it added and when the
// leader wrote it (ms). An entry without records leaves next as it is.
func (l *PartitionLog) Applied(index uint64, next, maxTime, written int64) {
	l.state.Lock()
	if index <= l.applied || len(l.segments) == 0 {
		l.state.Unlock()
		return
	}
	s := l.segments[l.applying]
	l.applied = index
	var points []point
	n := sort.Search(len(l.marks), func(i int) bool { return l.marks[i].index > index })
	for _, m := range l.marks[:n] {
		if m.seg == s {
			points = append(points, point{m.index, m.pos, l.next, s.maxTime})
		}
	}
	if l.marks = l.marks[n:]; len(l.marks) == 0 {
		l.marks = nil // let the array go
	}
	if next > l.next {
		l.next = next
		s.maxTime = max(s.maxTime, maxTime)
		s.lastWrite = written
	}
	x := s.index
	l.state.Unlock()
	for _, p := range points {
		x.add(p)
	}
}

// LastApplied gives the highest index applied and the offset behind it, as far as
// the log was told.
func (l *PartitionLog) LastApplied() (index uint64, next int64) {
	l.state.RLock()
	defer l.state.RUnlock()
	return l.applied, l.next
}
