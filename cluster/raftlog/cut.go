package raftlog

import (
	"fmt"
	"slices"
	"sort"
)

// DeleteRange implements raft.LogStore. The head of the log only leaves Raft's
// window: its bytes are the partition's (invariant 1). The end is cut off, but
// never what is applied (invariant 5).
func (l *PartitionLog) DeleteRange(from, to uint64) error {
	l.write.Lock()
	defer l.write.Unlock()
	l.state.Lock()
	first, last, applied := l.first, l.last, l.applied
	if to <= applied || to > last && from <= applied {
		if from > first {
			l.state.Unlock()
			return fmt.Errorf("raft log: cannot delete %d to %d: %d to %d is applied", from, to, first, applied)
		}
		l.first = max(first, min(to, applied)+1)
		l.state.Unlock()
		return nil
	}
	l.state.Unlock()
	switch {
	case from <= applied:
		return fmt.Errorf("raft log: cannot delete %d to %d: up to %d it is applied", from, to, applied)
	case to < last:
		return fmt.Errorf("raft log: cannot delete %d to %d out of the middle of %d to %d", from, to, first, last)
	case from > last:
		return nil
	}
	if err := l.writable(); err != nil {
		return err
	}
	return l.cutFrom(from)
}

// cutFrom removes the entries from index from on; the write lock is held.
func (l *PartitionLog) cutFrom(from uint64) error {
	l.state.RLock()
	applied, segments := l.applied, slices.Clone(l.segments)
	l.state.RUnlock()
	if from <= applied {
		return fmt.Errorf("raft log: entry %d is applied and cannot be cut off", from)
	}
	// Whole segments first, the newest first: at any moment there is no hole.
	for len(segments) > 1 && segments[len(segments)-1].base >= from {
		s := segments[len(segments)-1]
		segments = segments[:len(segments)-1]
		// The journal lets go of a segment that is gone. If it cannot be removed, it counts at the next start.
		if err := s.flush(l.st.disk); err != nil {
			l.err = err
			return err
		}
		l.publishCut(segments, s.base-1)
		if err := l.remove(s); err != nil {
			l.err = err
			return err
		}
	}
	if len(segments) == 0 {
		return nil
	}
	s := segments[len(segments)-1]
	if from > s.last {
		return nil
	}
	f, err := s.handle.acquire()
	if err != nil {
		return err
	}
	defer s.handle.release()
	end, chain, err := l.endOf(s, f, from-1)
	if err != nil {
		return err
	}
	l.publishCut(segments, from-1)
	if err := s.cut(l.st.disk, f, end); err != nil {
		l.err = fmt.Errorf("cut %s: %w", s.path, err)
		return l.err
	}
	l.state.Lock() // readers look at the end
	s.last, s.end, s.chain, s.allocated = from-1, end, chain, end
	s.sealed = false
	l.cuts.Add(1) // what was read since publishCut may be in a buffer, beyond the end
	l.state.Unlock()
	return nil
}

// publishCut makes readers see the log end at last, before its bytes go.
func (l *PartitionLog) publishCut(segments []*segment, last uint64) {
	l.cache.forget(last + 1)
	l.state.Lock()
	defer l.state.Unlock()
	l.segments, l.last = slices.Clone(segments), last
	l.applying = min(l.applying, max(len(segments)-1, 0))
	i := sort.Search(len(l.marks), func(i int) bool { return l.marks[i].index > last })
	l.marks = l.marks[:i]
	l.lastMark = nil
	l.cuts.Add(1)
}

// remove deletes a segment's files.
func (l *PartitionLog) remove(s *segment) error {
	s.handle.drop()
	if s.index != nil {
		s.index.handle.drop()
		l.st.fs.Remove(s.index.path)
	}
	if err := l.st.fs.Remove(s.path); err != nil {
		return err
	}
	return l.st.syncDir(l.dir)
}
