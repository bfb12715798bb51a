package raftlog

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"
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
func (l *PartitionLog) Segments() []SegmentInfo {
	l.state.RLock()
	defer l.state.RUnlock()
	infos := make([]SegmentInfo, len(l.segments))
	for i, s := range l.segments {
		info := SegmentInfo{Base: s.base, Last: s.last, Start: s.start, Bytes: s.end - segmentHeader, Active: i == len(l.segments)-1}
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
func (l *PartitionLog) Bytes() int64 {
	l.state.RLock()
	defer l.state.RUnlock()
	var sum int64
	for _, s := range l.segments {
		sum += s.end - segmentHeader
	}
	return sum
}

// PassIdle tells where the records of a segment end behind which nothing came but entries of Raft's own, which are not
// applied: a new leader's may have begun another segment. state is the partition's state behind the entry at
// index applied, where the next offset is next; if the log has come further since, nothing is done.
func (l *PartitionLog) PassIdle(next int64, applied uint64, state []byte) error {
	l.write.Lock()
	defer l.write.Unlock()
	l.state.RLock()
	behind := l.applying+1 < len(l.segments)
	l.state.RUnlock()
	if !behind {
		return nil
	}
	last, idle, err := l.idle(next, applied)
	if idle {
		l.Cross(last+1, state)
	}
	return err
}

// EndSegment begins a new segment if the last one has records and all of them are
// below the log start, so that Trim can free it. state is the partition's state
// behind the entry at index applied, where the next offset is logStart; if the log
// has come further since, nothing is done.
func (l *PartitionLog) EndSegment(logStart int64, applied uint64, state []byte) error {
	l.write.Lock()
	defer l.write.Unlock()
	if err := l.writable(); err != nil {
		return err
	}
	l.state.RLock()
	n := len(l.segments)
	over := n > 0 && l.applying == n-1 && l.segments[n-1].start < l.next
	l.state.RUnlock()
	if !over {
		return nil
	}
	last, idle, err := l.idle(logStart, applied)
	if !idle {
		return err
	}
	s, err := l.roll(last + 1)
	if err == nil {
		l.Cross(s.base, state)
	}
	return err
}

// idle reports whether the partition's state is still the one behind the entry at index applied, with that next
// offset, at the end of the log: entries of Raft's own are not applied. The write lock is held.
func (l *PartitionLog) idle(next int64, applied uint64) (last uint64, idle bool, err error) {
	l.state.RLock()
	same := l.next == next && l.applied <= applied
	from, last := max(l.applied, applied)+1, l.last
	l.state.RUnlock()
	if !same || last >= from+maxIdleEntries {
		return last, false, nil
	}
	for index := from; index <= last; index++ {
		var entry raft.Log
		if err := l.readEntry(index, &entry); err != nil {
			return last, false, err
		}
		if entry.Type == raft.LogCommand {
			return last, false, nil
		}
	}
	return last, true, nil
}

// Passed reports whether it is known of all segments but the last where their records end.
func (l *PartitionLog) Passed() bool {
	l.state.RLock()
	defer l.state.RUnlock()
	return l.applying+1 >= len(l.segments)
}

// maxIdleEntries bounds what idle looks at.
const maxIdleEntries = 64

// Trim frees the segments all of whose records are below the log start, but none
// that reaches above the snapshot (invariants 1 and 4). hold keeps segments from
// that index on, for a transfer that reads them; 0: none. It gives the bytes freed.
func (l *PartitionLog) Trim(logStart int64, hold uint64) (freed int64, err error) {
	gone, err := l.letGo(logStart, hold)
	for _, s := range gone { // no append waits for it
		freed += s.end - segmentHeader
		if rerr := l.remove(s); rerr != nil && err == nil {
			err = rerr
		}
	}
	return freed, err
}

// letGo takes the segments that Trim frees out of the manifest.
func (l *PartitionLog) letGo(logStart int64, hold uint64) ([]*segment, error) {
	l.write.Lock()
	defer l.write.Unlock()
	if err := l.writable(); err != nil {
		return nil, err
	}
	l.state.RLock()
	snapshot := l.manifest.Snapshot
	n := 0
	for snapshot != nil && n+1 < len(l.segments) {
		s, after := l.segments[n], l.segments[n+1]
		if after.start == unknownOffset || after.start > logStart || s.last > snapshot.Index || hold != 0 && s.last >= hold {
			break
		}
		n++
	}
	gone := slices.Clone(l.segments[:n])
	var m manifest
	if n > 0 {
		m = *l.manifest
		m.First = l.segments[n].base
		m.Segments = slices.Clone(slices.DeleteFunc(slices.Clone(m.Segments), func(r segmentRecord) bool { return r.Base < m.First }))
	}
	l.state.RUnlock()
	if n == 0 {
		return nil, nil
	}
	if err := m.write(l.st.disk, l.dir); err != nil {
		return nil, err
	}
	l.state.Lock()
	l.manifest = &m
	l.segments = slices.Clone(l.segments[n:])
	l.applying = max(l.applying-n, 0)
	l.first = max(l.first, m.First)
	l.ends = slices.DeleteFunc(l.ends, func(e segmentEnd) bool { return e.seg.base < m.First })
	l.state.Unlock()
	return gone, nil
}

// Unsnapshotted gives about how many bytes the log has behind its snapshot, and
// whether a segment is applied to its end and waits for a snapshot.
func (l *PartitionLog) Unsnapshotted() (bytes int64, ended bool) {
	l.state.RLock()
	defer l.state.RUnlock()
	s := l.manifest.Snapshot
	for i := len(l.segments) - 1; i >= 0; i-- {
		seg := l.segments[i]
		if s != nil && seg.base <= s.Segment {
			if seg.base == s.Segment {
				bytes += seg.end - s.Pos
			}
			break
		}
		bytes += seg.end - segmentHeader
	}
	return bytes, len(l.ends) > 0
}

// Blocked reports whether the oldest segment is below the log start and only a
// snapshot is missing for it to be freed.
func (l *PartitionLog) Blocked(logStart int64) bool {
	l.state.RLock()
	defer l.state.RUnlock()
	if len(l.segments) < 2 {
		return false
	}
	s, after := l.segments[0], l.segments[1]
	return after.start != unknownOffset && after.start <= logStart && (l.manifest.Snapshot == nil || s.last > l.manifest.Snapshot.Index)
}
