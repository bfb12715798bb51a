package raftlog

import "slices"

// compactable gives the segments that hold something between two offsets. ok is false if not all of
// them are complete, applied, below the snapshot and with final indexes.
func (v *view) compactable(from, bound int64) (segments segmentList, ok bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	snapshot := v.manifest.Snapshot
	for i, s := range v.segments {
		if s.start != unknownOffset && s.start >= bound {
			return segments, true
		}
		if snapshot == nil || i+1 == len(v.segments) || !s.sealed || s.last > snapshot.Index || s.base >= snapshot.Segment ||
			s.start == unknownOffset || v.segments[i+1].start == unknownOffset || s.index == nil || !s.index.isFinal() {
			return nil, false
		}
		if v.segments[i+1].start > from {
			segments = append(segments, s)
		}
	}
	return nil, false
}

// The rest is called by whoever has the turn to change files.

// raise is told that Raft has nothing below an entry any more.
func (v *view) raise(first uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.first = max(v.first, first)
}

// noted is told that the manifest says more of the same segments.
func (v *view) noted(m *manifest) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.manifest = m
	v.first = max(v.first, m.Compacted.First)
}

// swapped is told that a segment is in the place of others, and the manifest says so.
func (v *view) swapped(m *manifest, s *segment, old segmentList) {
	v.mu.Lock()
	defer v.mu.Unlock()
	at := slices.Index(v.segments, old[0])
	v.manifest = m
	v.segments = slices.Concat(v.segments[:at:at], segmentList{s}, v.segments[at+len(old):])
	v.applying -= len(old) - 1
	v.rewritten.Add(1)
}
