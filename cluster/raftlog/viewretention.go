package raftlog

import (
	"slices"
	"time"
)

// SegmentInfo is what retention and ListOffsets want to know of a segment.
type SegmentInfo struct {
	Base      uint64 // Raft index
	Last      uint64
	Start     int64 // offset of its first record; -1: not known yet
	Bytes     int64
	MaxTime   int64     // largest timestamp of its records, ms; 0 if none
	LastWrite time.Time // when its last records were appended; zero: never
	Active    bool      // it is written to
}

// Segments describes the log, oldest first.
func (v *view) Segments() []SegmentInfo {
	v.mu.RLock()
	defer v.mu.RUnlock()
	infos := make([]SegmentInfo, len(v.segments))
	for i, s := range v.segments {
		info := SegmentInfo{Base: s.base, Last: s.last, Start: s.start, Bytes: s.end - segmentHeader, Active: i == len(v.segments)-1}
		if s.maxTime != noTime {
			info.MaxTime = s.maxTime
		}
		if s.lastWrite != 0 {
			info.LastWrite = time.UnixMilli(s.lastWrite)
		}
		infos[i] = info
	}
	return infos
}

// Bytes is the size of the log.
func (v *view) Bytes() int64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var sum int64
	for _, s := range v.segments {
		sum += s.end - segmentHeader
	}
	return sum
}

// Unsnapshotted gives about how many bytes the log has behind its snapshot, and whether a segment
// is applied to its end and waits for a snapshot.
func (v *view) Unsnapshotted() (bytes int64, ended bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	s := v.manifest.Snapshot
	for i := len(v.segments) - 1; i >= 0; i-- {
		seg := v.segments[i]
		if s != nil && seg.base <= s.Segment {
			if seg.base == s.Segment {
				bytes += seg.end - s.Pos
			}
			break
		}
		bytes += seg.end - segmentHeader
	}
	return bytes, len(v.ends) > 0
}

// Blocked reports whether the oldest segment is below the log start and only a snapshot is missing
// for it to be freed.
func (v *view) Blocked(logStart int64) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if len(v.segments) < 2 {
		return false
	}
	s, after := v.segments[0], v.segments[1]
	return after.start != unknownOffset && after.start <= logStart && (v.manifest.Snapshot == nil || s.last > v.manifest.Snapshot.Index)
}

// below gives the segments all of whose records are below the log start, but none that reaches
// above the snapshot (invariants 1 and 4), and the manifest without them. hold keeps segments from
// that index on; 0: none.
func (v *view) below(logStart int64, hold uint64) (gone segmentList, m *manifest) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	snapshot := v.manifest.Snapshot
	n := 0
	for snapshot != nil && n+1 < len(v.segments) {
		s, after := v.segments[n], v.segments[n+1]
		if after.start == unknownOffset || after.start > logStart || s.last > snapshot.Index || hold != 0 && s.last >= hold {
			break
		}
		n++
	}
	if n == 0 {
		return nil, nil
	}
	without := *v.manifest
	without.First = v.segments[n].base
	without.Segments = slices.DeleteFunc(slices.Clone(without.Segments), func(r segmentRecord) bool { return r.Base < without.First })
	return v.segments[:n:n], &without
}

// unended reports whether the last segment has records, all of them applied: another may be begun
// behind it.
func (v *view) unended() bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	n := len(v.segments)
	return n > 0 && v.applying == n-1 && v.segments[n-1].start < v.next
}

// idleFrom gives the entries that may have come behind the one at index applied while nothing was
// applied behind it, where the next offset is next; ok is false if the log has come further.
func (v *view) idleFrom(next int64, applied uint64) (from, last uint64, ok bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return max(v.applied, applied) + 1, v.last, v.next == next && v.applied <= applied
}
