package raftlog

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// entries reads a log by Raft's index. It holds no lock while it reads; what is read while the end
// of the log is cut off may be anything, so it is read again then.
type entries struct {
	*home
	view   *view
	gate   *gate
	cursor atomic.Pointer[cursor] // where Raft has read last; whoever takes it has it alone
}

// endOf gives where the entry at index, or the segment's head, ends, and its CRC.
func endOf(v *view, s *segment, f vfs.File, index uint64) (pos int64, chain uint32, err error) {
	if index < s.base {
		return segmentHeader, s.seed, nil
	}
	w, err := walkTo(v, s, f, index, frameHeader)
	if err != nil {
		return 0, 0, err
	}
	fr, _, err := w.next()
	if err != nil {
		return 0, 0, err
	}
	return w.pos, fr.crc, nil
}

// walkTo gives a walker at the entry of that index.
func walkTo(v *view, s *segment, f vfs.File, index uint64, chunk int) (*walker, error) {
	at, end, fr, x := v.before(s, index)
	if at.index == s.base && x != nil {
		if p, ok, err := x.floor(func(p point) bool { return p.index > index }); err == nil && ok {
			at = p
		} // a damaged index costs time here, no more
	}
	w := newWalker(f, fr, at.pos, end, max(chunk, pointEvery))
	for {
		if w.pos >= end {
			return nil, fmt.Errorf("%w: entry %d is not in %s", ErrDamaged, index, filepath.Base(s.path))
		}
		fr, err := w.peek()
		switch {
		case err != nil:
			return nil, err
		case fr.holds(index):
			return w, nil
		case fr.index > index:
			return nil, fmt.Errorf("%w: entry %d where %d should be", ErrDamaged, fr.index, index)
		}
		w.skip(fr)
	}
}

// GetLog implements raft.LogStore. Below Raft's window there is nothing, though the bytes are
// there.
func (l *entries) GetLog(index uint64, out *raft.Log) error {
	cuts := l.view.cuts.Load()
	if entry := l.cache.get(index); entry != nil && l.view.inWindow(index) && cuts == l.view.cuts.Load() {
		if l.cursor.Load() != nil {
			l.cursor.Store(nil) // caught up: its buffer is not needed
		}
		*out = *entry
		return nil
	}
	for {
		if !l.view.inWindow(index) {
			return raft.ErrLogNotFound
		}
		err := l.readEntry(index, out)
		if err == nil || errors.Is(err, raft.ErrLogNotFound) || !l.gate.serving.Load() {
			return err
		}
		if !l.gate.hold(err) {
			*out = raft.Log{Index: index, Type: raft.LogNoop}
			return nil
		}
	}
}

// readEntry reads an entry from its file. What is read while the end of the log is cut off may be
// anything: it is read again then.
func (l *entries) readEntry(index uint64, out *raft.Log) error {
	for {
		s, cuts := l.view.locate(index)
		if s == nil {
			return raft.ErrLogNotFound
		}
		err := l.readFrom(s, index, cuts, out)
		if errors.Is(err, errGone) {
			continue // cut or trimmed this moment: look again
		}
		if cuts == l.view.cuts.Load() {
			return err
		}
	}
}

// readFrom reads an entry that was in a segment when the log had been cut that often.
func (l *entries) readFrom(s *segment, index, cuts uint64, out *raft.Log) error {
	f, err := s.handle.acquire()
	if err != nil {
		return err
	}
	defer s.handle.release()
	c := l.takeCursor(s, index, cuts)
	if c == nil {
		w, err := walkTo(l.view, s, f, index, walkChunk)
		if err != nil {
			return err
		}
		c = &cursor{walker: *w, seg: s, cuts: cuts}
	}
	c.f = f
	c.limit, c.fr, _ = l.view.endOf(s)
	fr, b, err := c.next()
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: entry %d is not in %s", ErrDamaged, index, filepath.Base(s.path))
	}
	if err != nil {
		return err
	}
	if !fr.holds(index) {
		return fmt.Errorf("%w: entry %d where %d should be", ErrDamaged, fr.index, index)
	}
	*out = fr.entry(slices.Clone(b))
	c.index = fr.index + 1
	l.cursor.Store(c)
	return nil
}

// Scan implements Log: all entries there are, also those below Raft's window. Where entries are
// compacted, one may stand for several.
func (l *entries) Scan(from uint64, fn func(*raft.Log) bool) error {
	for index := max(from, l.view.kept()); ; {
		entry := new(raft.Log)
		if err := l.readEntry(index, entry); err != nil {
			if errors.Is(err, raft.ErrLogNotFound) {
				return nil
			}
			return err
		}
		if !fn(entry) {
			return nil
		}
		index = entry.Index + 1
	}
}

// cursor is a walker that stands in front of the entry at index.
type cursor struct {
	walker
	seg   *segment
	index uint64
	cuts  uint64 // how often the log had been cut when it was made
}

// takeCursor gives the place where Raft read last, if that is in front of index and nothing was cut
// since: Raft reads one entry after the other.
func (l *entries) takeCursor(s *segment, index, cuts uint64) *cursor {
	c := l.cursor.Swap(nil)
	if c == nil || c.seg != s || c.index != index || c.cuts != cuts {
		return nil
	}
	return c
}

// HoldsCommand reports whether an entry above one index and up to another is one for the state
// machine. What is not there any more was applied before it went. What cannot be read may be one.
func (l *entries) HoldsCommand(above, upTo uint64) bool {
	for index := upTo; index > above; index-- {
		entry := l.cache.get(index)
		if entry == nil {
			if kept := l.view.kept(); kept == 0 || index < kept {
				return false
			}
			entry = new(raft.Log)
			if err := l.readEntry(index, entry); err != nil {
				return true
			}
		}
		if entry.Type == raft.LogCommand {
			return true
		}
	}
	return false
}

// Has reports whether the log, from its snapshot on, holds the entry of that index
// and term, and so all that the leader of it had up to there (Raft, section 5.3).
func (l *entries) Has(index, term uint64) bool {
	if s := l.view.published().Snapshot; s != nil && index <= s.Index {
		return true // it was committed here, as every snapshot is
	}
	var entry raft.Log
	return l.readEntry(index, &entry) == nil && entry.Term == term
}
