package raftlog

import "fmt"

// DeleteRange implements raft.LogStore. The head of the log only leaves Raft's
// window: its bytes are the partition's (invariant 1). The end is cut off, but
// never what is applied (invariant 5).
func (l *tail) DeleteRange(from, to uint64) error {
	l.turn.wait()
	defer l.turn.pass()
	left, first, last, applied, err := l.view.leaveHead(from, to)
	if left {
		return err
	}
	switch {
	case from <= applied:
		return fmt.Errorf("raft log: cannot delete %d to %d: up to %d it is applied", from, to, applied)
	case to < last:
		return fmt.Errorf("raft log: cannot delete %d to %d out of the middle of %d to %d", from, to, first, last)
	case from > last:
		return nil
	}
	if err := l.turn.usable(); err != nil {
		return err
	}
	return l.cutFrom(from)
}

// cutFrom removes the entries from index from on; the turn is held.
func (l *tail) cutFrom(from uint64) error {
	_, applied := l.view.reach()
	segments := l.view.list()
	if from <= applied {
		return fmt.Errorf("raft log: entry %d is applied and cannot be cut off", from)
	}
	// Whole segments first, the newest first: at any moment there is no hole.
	for len(segments) > 1 && segments[len(segments)-1].base >= from {
		s := segments[len(segments)-1]
		segments = segments[:len(segments)-1]
		// The journal lets go of a segment that is gone. If it cannot be removed, it counts at the
		// next start.
		if err := s.flush(l.st.disk); err != nil {
			l.turn.err = err
			return err
		}
		l.publishCut(segments, s.base-1)
		if err := l.remove(s); err != nil {
			l.turn.err = err
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
	end, chain, err := endOf(l.view, s, f, from-1)
	if err != nil {
		return err
	}
	l.publishCut(segments, from-1)
	if err := s.cut(l.st.disk, f, end); err != nil {
		l.turn.err = fmt.Errorf("cut %s: %w", s.path, err)
		return l.turn.err
	}
	l.view.cutEnds(s, from-1, end, chain)
	return nil
}

// publishCut makes readers see the log end at last, before its bytes go.
func (l *tail) publishCut(segments []*segment, last uint64) {
	l.cache.forget(last + 1)
	l.view.cutBegins(segments, last)
	l.lastMark = nil
}

// remove deletes a segment's files.
func (l *home) remove(s *segment) error {
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
