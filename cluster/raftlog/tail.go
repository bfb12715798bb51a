package raftlog

import (
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// tail is the end of a log, which Raft writes: it appends and cuts. All it does is done in its
// turn.
type tail struct {
	*home
	view *view
	turn *turn

	// Guarded by the turn.
	buf       []byte
	sinceMark int64 // bytes since the last mark, in lastMark
	lastMark  *segment
}

// defaultSegmentBytes is Kafka's default of segment.bytes.
const defaultSegmentBytes = 1 << 30

func (l *tail) segmentBytes() int64 {
	if l.opts.SegmentBytes == nil {
		return defaultSegmentBytes
	}
	return max(l.opts.SegmentBytes(), 1)
}

// StoreLog implements raft.LogStore.
func (l *tail) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore: it returns when the entries are on stable
// storage. After an error nothing of them is in the log. Before it waits, the store's Outbox is
// told so.
func (l *tail) StoreLogs(entries []*raft.Log) (err error) {
	if len(entries) == 0 {
		return nil
	}
	l.st.outbox.Enter()
	defer func() {
		l.st.outbox.Leave()
		if err != nil {
			l.st.outbox.Wake() // it may not have come to where it is written
		}
	}()
	if !l.turn.try() {
		l.st.outbox.Wake()
		l.turn.wait()
	}
	defer l.turn.pass()
	if err := l.turn.usable(); err != nil {
		return err
	}
	want := l.view.nextIndex()
	for _, entry := range entries {
		if first := firstOf(entry); first != want {
			return fmt.Errorf("raft log entry %d where %d should be: there would be a hole", first, want)
		}
		want = entry.Index + 1
	}
	if l.opts.Bulk != nil && l.st.space.short.Load() && slices.ContainsFunc(entries, l.opts.Bulk) {
		return fmt.Errorf("%w: what is left is kept for other than records", vfs.ErrNoSpace)
	}
	flags := uint8(flagCallStart)
	for rest := entries; len(rest) > 0; {
		n, err := l.storeSome(rest, flags)
		if err != nil {
			if first := firstOf(entries[0]); len(rest) < len(entries) && l.st.failed() == nil {
				err = errors.Join(err, l.cutFrom(first))
			}
			if errors.Is(err, vfs.ErrNoSpace) {
				l.st.space.noteFull()
			}
			return err
		}
		rest, flags = rest[n:], 0
	}
	l.cache.add(entries)
	l.spill()
	return nil
}

// spill writes points of the index that wait in memory: applying entries waits for no disk, and an
// append does so anyway.
func (l *tail) spill() {
	x := l.view.growing()
	if x == nil {
		return
	}
	if err := x.spill(); err != nil {
		l.st.logger.Warn("a point of an index is not written yet", "file", x.path, "error", err)
	}
}

// storeSome writes as many entries as the segment takes, at least one; the turn is held.
func (l *tail) storeSome(entries []*raft.Log, flags uint8) (int, error) {
	limit := l.segmentBytes()
	s, err := l.active(entries[0], limit)
	if err != nil {
		return 0, err
	}
	f, err := s.handle.acquire()
	if err != nil {
		return 0, err
	}
	defer s.handle.release()

	var marks []mark
	batch, chain, n := assembly{framing: s.framing, at: s.end, buf: l.buf[:0]}, s.chain, 0
	sinceMark, lastMark := l.sinceMark, l.lastMark
	for _, entry := range entries {
		pos := s.end + batch.size
		if n > 0 && (pos+s.framing.size(entry) > limit || l.begins(entry)) {
			break
		}
		if lastMark != s || sinceMark >= pointEvery {
			marks = append(marks, mark{s, firstOf(entry), pos})
			sinceMark, lastMark = 0, s
		}
		if chain, err = batch.add(entry, chain, flags); err != nil {
			return 0, err
		}
		sinceMark += s.framing.size(entry)
		flags = 0
		n++
	}
	if l.buf = batch.buf; cap(l.buf) > 1<<20 {
		l.buf = nil // a burst should not stay in memory for each raft group
	}
	// What is written in pieces is large, and goes straight to its segment.
	j := l.st.journal
	journaled := j != nil && !l.opts.Whole && batch.pieces == nil && batch.size < int64(l.st.bypass)
	// To allocate may wait for the file system's own journal.
	if !journaled || s.end+batch.size > s.allocated {
		l.st.outbox.Write()
	}
	if err := s.allocate(f, l.st.space, batch.size, max(limit, s.end+batch.size)); err != nil {
		return 0, err
	}
	if err := batch.write(f, s.end); err != nil {
		return 0, l.undo(s, f, err)
	}
	if journaled {
		if err := j.append(s, s.end, batch.buf); err != nil {
			var full errNoRoom
			if errors.As(err, &full) {
				return 0, l.undo(s, f, err)
			}
			l.turn.err = err
			return 0, err
		}
	} else if err := l.st.sync(f); err != nil {
		l.turn.err = err
		return 0, err
	}
	l.view.appended(s, batch.size, entries[n-1].Index, chain, marks)
	l.sinceMark, l.lastMark = sinceMark, lastMark
	return n, nil
}

// undo takes back a write that failed half-way. If that fails too, nobody knows
// what the file holds, and the log takes nothing more.
func (l *tail) undo(s *segment, f vfs.File, cause error) error {
	err := f.Truncate(s.end)
	if err == nil {
		s.allocated = s.end
		err = l.st.sync(f)
	}
	if err != nil {
		l.turn.err = fmt.Errorf("%s: %w, and then: %w", s.path, cause, err)
		return l.turn.err
	}
	return cause
}

// begins reports whether an entry should be the first of its segment.
func (l *tail) begins(entry *raft.Log) bool { return l.opts.Begins != nil && l.opts.Begins(entry) }

// active gives the segment that an entry goes to, a new one if the last is full, too old, crowded,
// of an older format than new ones are, or if the entry is to be the first of one: the turn is
// held.
func (l *tail) active(entry *raft.Log, limit int64) (*segment, error) {
	s, _ := l.view.active()
	if s != nil {
		full := s.end+s.framing.size(entry) > limit
		old := false
		if l.opts.SegmentAge != nil && s.firstAt != 0 {
			age := l.opts.SegmentAge()
			old = age > 0 && nowMillis()-s.firstAt >= age.Milliseconds()
		}
		crowded := l.opts.Crowded != nil && l.opts.Crowded(l.view.startOf(s))
		before := l.st.stamping() && !s.framing.stamped
		empty := s.last < s.base
		if empty && before && !s.sealed {
			return s, l.rewriteHead(s)
		}
		if !s.sealed && (empty || !full && !old && !crowded && !before && !l.begins(entry)) {
			return s, nil
		}
	}
	return l.roll(firstOf(entry))
}

// rewriteHead makes a segment that holds nothing one of the format of new ones: the turn is held.
func (l *tail) rewriteHead(s *segment) error {
	f, err := s.handle.acquire()
	if err != nil {
		return err
	}
	defer s.handle.release()
	l.st.outbox.Write()
	old := s.framing
	l.view.reframe(s, newFraming(true))
	if _, err = f.WriteAt(s.header(), 0); err == nil {
		if err = l.st.sync(f); err == nil {
			return nil
		}
	} else {
		// A part of it may be written: the head that was there is put back, as far as that goes.
		l.view.reframe(s, old)
		if _, back := f.WriteAt(s.header(), 0); back == nil {
			return err
		}
	}
	l.turn.err = fmt.Errorf("%s: %w", s.path, err)
	l.st.fail(l.turn.err)
	return l.turn.err
}

// roll ends the last segment and begins another at index: the turn is held.
func (l *tail) roll(index uint64) (*segment, error) {
	l.st.outbox.Write()
	old, gen := l.view.active()
	if old != nil {
		if err := l.seal(old); err != nil {
			return nil, err
		}
	}
	s, err := createSegment(l.st.disk, l.dir, index, gen, l.st.stamping())
	if err != nil {
		return nil, err
	}
	if s.index, err = newIndex(l.st.disk, s); err != nil {
		s.handle.drop()
		l.st.unmake(s.path)
		return nil, err
	}
	l.view.begun(s)
	return s, nil
}

// seal brings a segment that is complete to stable storage and gives back what
// was allocated ahead.
func (l *tail) seal(s *segment) error {
	f, err := s.handle.acquire()
	if err != nil {
		return err
	}
	defer s.handle.release()
	if s.allocated > s.end {
		if err := f.Truncate(s.end); err != nil {
			return err
		}
		s.allocated = s.end
	}
	return l.st.sync(f)
}
