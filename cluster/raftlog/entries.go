package raftlog

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sort"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// endOf gives where the entry at index, or the segment's head, ends, and its CRC.
func (l *PartitionLog) endOf(s *segment, f vfs.File, index uint64) (pos int64, chain uint32, err error) {
	if index < s.base {
		return segmentHeader, s.seed, nil
	}
	w, err := l.walkTo(s, f, index, frameHeader)
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
func (l *PartitionLog) walkTo(s *segment, f vfs.File, index uint64, chunk int) (*walker, error) {
	l.state.RLock()
	end, fr := s.end, s.framing
	at := point{index: s.base, pos: segmentHeader}
	if i := sort.Search(len(l.marks), func(i int) bool { return l.marks[i].index > index }); i > 0 && l.marks[i-1].seg == s {
		at.index, at.pos = l.marks[i-1].index, l.marks[i-1].pos
	}
	x := s.index
	l.state.RUnlock()
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
		case fr.index == index:
			return w, nil
		case fr.index > index:
			return nil, fmt.Errorf("%w: entry %d where %d should be", ErrDamaged, fr.index, index)
		}
		w.skip(fr)
	}
}

// find gives the segment that holds the entry; the state lock is held.
func (l *PartitionLog) find(index uint64) *segment {
	i := sort.Search(len(l.segments), func(i int) bool { return l.segments[i].base > index })
	if i == 0 {
		return nil
	}
	return l.segments[i-1]
}

// GetLog implements raft.LogStore. Below Raft's window there is nothing, though
// the bytes are there.
func (l *PartitionLog) GetLog(index uint64, out *raft.Log) error {
	cuts := l.cuts.Load()
	if entry := l.cache.get(index); entry != nil {
		l.state.RLock()
		there := index >= l.first && index <= l.last && cuts == l.cuts.Load()
		l.state.RUnlock()
		if there {
			if l.cursor.Load() != nil {
				l.cursor.Store(nil) // caught up: its buffer is not needed
			}
			*out = *entry
			return nil
		}
	}
	for {
		l.state.RLock()
		there := index >= l.first && index <= l.last && l.last > 0
		l.state.RUnlock()
		if !there {
			return raft.ErrLogNotFound
		}
		err := l.readEntry(index, out)
		if err == nil || errors.Is(err, raft.ErrLogNotFound) || !l.serving.Load() {
			return err
		}
		// Raft panics when it cannot read what it is to apply (invariant 9). It waits
		// here until the file can be opened, or the group is closed, when nothing it sends leaves the node any
		// more, and then gets an entry that does nothing.
		again := make(<-chan time.Time)
		if vfs.OutOfFiles(err) {
			again = time.After(outOfFilesPause)
		} else {
			l.hurt.Do(func() {
				if l.opts.OnDamage != nil {
					go l.opts.OnDamage(err)
				}
			})
		}
		select {
		case <-again:
		case <-l.abandon:
			*out = raft.Log{Index: index, Type: raft.LogNoop}
			return nil
		}
	}
}

// outOfFilesPause is the pause before a file is opened again for which there was no descriptor.
const outOfFilesPause = 50 * time.Millisecond

// Serving says that Raft runs: from now on what cannot be read is told to
// OnDamage and not to Raft.
func (l *PartitionLog) Serving() { l.serving.Store(true) }

// Abandon lets go of calls of Raft that wait at damage. The group's transport
// must be closed and its shutdown begun: what they get is not what was written.
func (l *PartitionLog) Abandon() { l.left.Do(func() { close(l.abandon) }) }

// readEntry reads an entry from its file. What is read while the end of the log is cut off may be anything: it
// is read again then.
func (l *PartitionLog) readEntry(index uint64, out *raft.Log) error {
	for {
		l.state.RLock()
		s, there, cuts := l.find(index), index <= l.last, l.cuts.Load()
		l.state.RUnlock()
		if s == nil || !there {
			return raft.ErrLogNotFound
		}
		err := l.readFrom(s, index, cuts, out)
		if errors.Is(err, errGone) {
			continue // cut or trimmed this moment: look again
		}
		if cuts == l.cuts.Load() {
			return err
		}
	}
}

// readFrom reads an entry that was in a segment when the log had been cut that often.
func (l *PartitionLog) readFrom(s *segment, index, cuts uint64, out *raft.Log) error {
	f, err := s.handle.acquire()
	if err != nil {
		return err
	}
	defer s.handle.release()
	c := l.takeCursor(s, index, cuts)
	if c == nil {
		w, err := l.walkTo(s, f, index, walkChunk)
		if err != nil {
			return err
		}
		c = &cursor{walker: *w, seg: s, cuts: cuts}
	}
	c.f = f
	l.state.RLock()
	c.limit, c.fr = s.end, s.framing
	l.state.RUnlock()
	fr, b, err := c.next()
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: entry %d is not in %s", ErrDamaged, index, filepath.Base(s.path))
	}
	if err != nil {
		return err
	}
	if fr.index != index {
		return fmt.Errorf("%w: entry %d where %d should be", ErrDamaged, fr.index, index)
	}
	*out = fr.entry(slices.Clone(b))
	c.index = index + 1
	l.cursor.Store(c)
	return nil
}

// Scan implements Log: all entries there are, also those below Raft's window.
func (l *PartitionLog) Scan(from uint64, fn func(*raft.Log) bool) error {
	l.state.RLock()
	if len(l.segments) > 0 {
		from = max(from, l.segments[0].base)
	}
	l.state.RUnlock()
	for index := from; ; index++ {
		entry := new(raft.Log)
		l.state.RLock()
		over := index > l.last
		l.state.RUnlock()
		if over {
			return nil
		}
		if err := l.readEntry(index, entry); err != nil {
			if errors.Is(err, raft.ErrLogNotFound) {
				return nil
			}
			return err
		}
		if !fn(entry) {
			return nil
		}
	}
}

// cursor is a walker that stands in front of the entry at index.
type cursor struct {
	walker
	seg   *segment
	index uint64
	cuts  uint64 // how often the log had been cut when it was made
}

// takeCursor gives the place where Raft read last, if that is in front of index and nothing was cut since:
// Raft reads one entry after the other.
func (l *PartitionLog) takeCursor(s *segment, index, cuts uint64) *cursor {
	c := l.cursor.Swap(nil)
	if c == nil || c.seg != s || c.index != index || c.cuts != cuts {
		return nil
	}
	return c
}
