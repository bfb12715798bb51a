package raftlog

import (
	"fmt"
	"slices"
	"sort"
	"sync/atomic"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// view is what a log consists of at this moment, as all who read it see it: its segments, Raft's
// window of them, and how far they are applied. It is only memory; what it speaks of has been done
// on the disk.
type view struct {
	// mu guards all below but cuts, and what segments publish (see segment). It is taken in this
	// file and in those named view….go alone, nothing is taken, waited for or done to a file under
	// it, and it may be taken under any other lock of a log.
	mu       locks.RWMutex[view]
	manifest *manifest   // never changed, but replaced
	segments segmentList // never changed in place
	window
	progress

	// cuts counts the cuts of the end, each when it begins and when it is made: what was read
	// beside one is read again. It grows with mu held.
	cuts atomic.Uint64
	// rewritten counts the segments that were put in place of others. It grows with mu held.
	rewritten atomic.Uint64
}

// window is what Raft has of the log. last < first: nothing.
type window struct {
	first uint64 // FirstIndex
	last  uint64 // LastIndex
}

// segmentList are segments, ascending, without a hole; the last is written to.
type segmentList []*segment

// find gives the segment that an entry is or would be in; nil: it is in front of all.
func (list segmentList) find(index uint64) *segment {
	i := sort.Search(len(list), func(i int) bool { return list[i].base > index })
	if i == 0 {
		return nil
	}
	return list[i-1]
}

// behind gives the segment behind one, which may be gone itself; nil: none.
func (list segmentList) behind(s *segment) *segment {
	i := sort.Search(len(list), func(i int) bool { return list[i].base > s.base })
	if i == len(list) {
		return nil
	}
	return list[i]
}

// newest gives the last segment; nil: none.
func (list segmentList) newest() *segment {
	if len(list) == 0 {
		return nil
	}
	return list[len(list)-1]
}

// drop closes the files: what uses them goes on, nobody else may.
func (list segmentList) drop() {
	for _, s := range list {
		s.handle.drop()
		if s.index != nil {
			s.index.handle.drop()
		}
	}
}

// FirstIndex implements raft.LogStore: 0 if Raft's window is empty.
func (v *view) FirstIndex() (uint64, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.last < v.first {
		return 0, nil
	}
	return v.first, nil
}

// LastIndex implements raft.LogStore: 0 if Raft's window is empty, as it is when retention has
// freed everything up to the snapshot. Raft reads the entry of that index when it starts, and what
// is not there it takes from the snapshot.
func (v *view) LastIndex() (uint64, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.last < v.first {
		return 0, nil
	}
	return v.last, nil
}

// Widen gives Raft back the entries from index on, if they are still there. Where answers of this
// replica were lost for long, its leader may know less of it than Raft's window here has left: it
// sends a snapshot, and then what lies behind it, and Raft compares that with its own entries.
// Without them it would be sent the same snapshot for ever. What is compacted it never gets: it
// would send that to others. A leader that knows of less has a newer snapshot soon, since one
// follows each decision on compaction.
func (v *view) Widen(index uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.segments) > 0 && v.last > 0 {
		v.first = min(v.first, max(index, v.segments[0].base, v.manifest.Compacted.First))
	}
}

// SnapshotIndex gives the index of the snapshot, 0 if there is none.
func (v *view) SnapshotIndex() uint64 {
	if s := v.published().Snapshot; s != nil {
		return s.Index
	}
	return 0
}

// published gives the manifest that is on the disk. It must not be changed.
func (v *view) published() *manifest {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.manifest
}

// reach gives the indexes of the last entry and of the last one applied.
func (v *view) reach() (last, applied uint64) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.last, v.applied
}

// list gives the segments. The list must not be changed.
func (v *view) list() segmentList {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.segments
}

// find gives the segment that an entry is or would be in; nil: it is in front of all.
func (v *view) find(index uint64) *segment { return v.list().find(index) }

// kept gives the index of the first entry that the log holds; 0: none.
func (v *view) kept() uint64 {
	if list := v.list(); len(list) > 0 {
		return list[0].base
	}
	return 0
}

// inWindow reports whether Raft has an entry.
func (v *view) inWindow(index uint64) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return index >= v.first && index <= v.last && v.last > 0
}

// locate gives the segment of an entry, nil if it is not in the log, and how often the end had been
// cut.
func (v *view) locate(index uint64) (s *segment, cuts uint64) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if index <= v.last {
		s = v.segments.find(index)
	}
	return s, v.cuts.Load()
}

// before gives a place in a segment at or in front of an entry from which it may be searched, as
// far as the marks say, and the segment's end, layout and index.
func (v *view) before(s *segment, index uint64) (at point, end int64, fr framing, x *index) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	at = point{index: s.base, pos: segmentHeader}
	if i := sort.Search(len(v.marks), func(i int) bool { return v.marks[i].index > index }); i > 0 && v.marks[i-1].seg == s {
		at.index, at.pos = v.marks[i-1].index, v.marks[i-1].pos
	}
	return at, s.end, s.framing, s.index
}

// endOf gives where a segment ends, how it is laid out, and how often the log's end had been cut
// then.
func (v *view) endOf(s *segment) (end int64, fr framing, cuts uint64) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return s.end, s.framing, v.cuts.Load()
}

// further gives where a segment ends, how it is laid out, and the segment behind it; nil: none.
func (v *view) further(s *segment) (end int64, fr framing, after *segment) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return s.end, s.framing, v.segments.behind(s)
}

// atOffset gives the segment that holds the record at an offset, the place of its first entry, and
// its index. The error is ErrNotInLog if the offset is below what is kept, or not applied yet.
func (v *view) atOffset(offset int64) (s *segment, first point, x *index, err error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	i := sort.Search(len(v.segments), func(i int) bool {
		return v.segments[i].start == unknownOffset || v.segments[i].start > offset
	})
	if offset >= v.next || i == 0 {
		return nil, point{}, nil, fmt.Errorf("%w: offset %d", ErrNotInLog, offset)
	}
	s = v.segments[i-1]
	return s, point{index: s.base, pos: segmentHeader, offset: s.start}, s.index, nil
}

// reachOf gives the segment that holds the record at an offset, and the offsets that it reaches
// from and to, as far as it is applied; ok is false if there is none.
func (v *view) reachOf(offset int64) (s *segment, from, to int64, ok bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	i := sort.Search(len(v.segments), func(i int) bool {
		return v.segments[i].start == unknownOffset || v.segments[i].start > offset
	})
	if offset >= v.next || i == 0 {
		return nil, 0, 0, false
	}
	to = v.next
	if i < len(v.segments) && v.segments[i].start != unknownOffset {
		to = v.segments[i].start
	}
	return v.segments[i-1], v.segments[i-1].start, to, true
}

// startOf gives the offset that a segment begins at; unknownOffset: it is not applied so far.
func (v *view) startOf(s *segment) int64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return s.start
}

// passed gives the segments, and the position of the one that is being applied. The list must not
// be changed.
func (v *view) passed() (segments segmentList, applying int) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.segments, v.applying
}

// atTime gives the first segment that has a record with a timestamp (ms) of at least that, the
// offset it begins at, and its index; nil: none has.
func (v *view) atTime(timestamp int64) (s *segment, start int64, x *index) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, s := range v.segments {
		if s.start != unknownOffset && s.maxTime >= timestamp {
			return s, s.start, s.index
		}
	}
	return nil, 0, nil
}

// MaxTime gives the largest timestamp (ms) of all applied records.
func (v *view) MaxTime() (int64, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	newest := int64(noTime)
	for _, s := range v.segments {
		if s.start != unknownOffset {
			newest = max(newest, s.maxTime)
		}
	}
	return newest, newest != noTime
}

// endPlace gives the end of what is applied of a segment, and its index. The offset is
// unknownOffset if that is not known.
func (v *view) endPlace(s *segment) (end place, x *index) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	end = place{v.applied + 1, s.end, v.next}
	if s.last < v.applied {
		end.index = s.last + 1
		if after := v.segments.behind(s); after != nil { // else only Raft's own entries may follow
			end.offset = after.start
		}
	}
	return end, s.index
}

// complete gives the segments that are complete and applied: such a one is never cut.
func (v *view) complete() segmentList {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return slices.DeleteFunc(slices.Clone(v.segments), func(s *segment) bool { return !s.sealed || s.last > v.applied })
}

// has reports whether a segment is part of the log.
func (v *view) has(s *segment) bool { return slices.Contains(v.list(), s) }

// active gives the segment that is written to and the generation of the next; nil: none is.
func (v *view) active() (s *segment, gen uint32) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.segments.newest(), v.manifest.Generation
}

// nextIndex gives the index that the next entry must have: there would be a hole otherwise.
func (v *view) nextIndex() uint64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	switch {
	case len(v.segments) == 0:
		return max(v.manifest.First, 1)
	case v.last == 0:
		return v.segments.newest().base
	}
	return v.last + 1
}

// The rest is called by whoever has the turn to change files (see turn), once it is done.

// appended is told that size bytes of entries up to index last stand behind a segment's end, and
// where points of the index may be made of them.
func (v *view) appended(s *segment, size int64, last uint64, chain uint32, marks []mark) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s.firstAt == 0 {
		s.firstAt = nowMillis()
	}
	s.end += size
	s.last = last
	s.chain = chain
	v.last = last
	v.marks = append(v.marks, marks...)
}

// reframe gives a segment that holds nothing another layout: readers that stand at its end go on
// with it.
func (v *view) reframe(s *segment, fr framing) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s.framing = fr
}

// begun is told of a new segment behind all others.
func (v *view) begun(s *segment) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if old := v.segments.newest(); old != nil {
		old.sealed = true
	} else {
		v.first = s.base
	}
	if v.applying == len(v.segments) {
		s.start = v.next
	}
	v.segments = append(slices.Clip(v.segments), s)
}

// leaveHead takes the entries of a range out of Raft's window if it is the head of the log: their
// bytes are the partition's (invariant 1). left is false if it is not, and the indexes are those of
// the log.
func (v *view) leaveHead(from, to uint64) (left bool, first, last, applied uint64, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	first, last, applied = v.first, v.last, v.applied
	if to <= applied || to > last && from <= applied {
		if from > first {
			err = fmt.Errorf("raft log: cannot delete %d to %d: %d to %d is applied", from, to, first, applied)
			return true, first, last, applied, err
		}
		v.first = max(first, min(to, applied)+1)
		return true, first, last, applied, nil
	}
	return false, first, last, applied, nil
}

// cutBegins makes readers see the log end at last, and with these segments, before its bytes go.
func (v *view) cutBegins(segments segmentList, last uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.segments, v.last = slices.Clone(segments), last
	v.progress.cut(segments, last)
	v.cuts.Add(1)
}

// cutEnds is told that a segment ends behind the entry at last. What was read since the cut began
// may be in a buffer, beyond the end.
func (v *view) cutEnds(s *segment, last uint64, end int64, chain uint32) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s.last, s.end, s.chain, s.allocated = last, end, chain, end
	s.sealed = false
	v.cuts.Add(1)
}

// trimmed is told that the manifest is another one, and the first n segments are freed.
func (v *view) trimmed(m *manifest, n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.manifest = m
	v.segments = slices.Clone(v.segments[n:])
	v.first = max(v.first, m.First)
	v.progress.trim(n, m.First)
}

// replaced is told that the log is another one: a snapshot stands for all that was in it, m says so
// on the disk, and what comes behind goes to s, which is empty. It gives the segments that were
// there.
func (v *view) replaced(m *manifest, s *segment) (old segmentList) {
	v.mu.Lock()
	defer v.mu.Unlock()
	old = v.segments
	v.manifest, v.segments = m, segmentList{s}
	v.window = window{first: m.First, last: m.Snapshot.Index}
	v.progress = progress{applied: m.Snapshot.Index, next: m.Snapshot.Next}
	v.cuts.Add(2)
	return old
}

// close takes the segments away: nothing is in the log any more.
func (v *view) close() (segments segmentList) {
	v.mu.Lock()
	defer v.mu.Unlock()
	segments, v.segments = v.segments, nil
	return segments
}
