package raftlog

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
)

// LogEnd is what the log of a stopped node ends with: what the next start would find.
type LogEnd struct {
	Index uint64 // of the last entry; 0: there is none
	Term  uint64
	// At is when its leader appended it, by that one's clock, or, where nothing is behind the
	// snapshot, the last command that added something; zero: not known.
	At   time.Time
	Next int64 // offset behind it, were all entries committed

	Snapshot      uint64 // index of the last entry in the snapshot; 0: there is none
	SnapshotNext  int64  // offset behind that
	State         []byte // of the snapshot
	Configuration raft.Configuration
}

// End reads a log from its snapshot on, as a start does, and gives where it ends. each is called
// for every entry behind the snapshot, whose data are valid until it returns; nil: nobody wants
// them. The error says why a member could not start with the log: it wraps ErrLost where there is
// none, and ErrDamaged where it is not what was written.
func (a *Archive) End(name string, span Span, each func(*raft.Log) error) (LogEnd, error) {
	if a.journalLost && name != CatalogLog {
		return LogEnd{}, a.JournalErr
	}
	l, err := a.open(name)
	if err != nil {
		return LogEnd{}, err
	}
	defer l.segments.drop()
	if err := a.st.disk.suspected(l.dir); err != nil {
		return LogEnd{}, err
	}
	var out LogEnd
	if s := l.manifest.Snapshot; s != nil {
		out = LogEnd{
			Index: s.Index, Term: s.Term, Next: s.Next, Snapshot: s.Index, SnapshotNext: s.Next,
			State: l.manifest.state, Configuration: s.Configuration,
		}
		written := int64(0)
		for _, segment := range l.segments {
			written = max(written, segment.lastWrite)
		}
		if written > 0 {
			out.At = time.UnixMilli(written)
		}
	}
	at, pos, err := l.checkpoint()
	if err != nil {
		return LogEnd{}, err
	}
	for i := at; i < len(l.segments); i++ {
		if i > at {
			s := l.segments[i]
			pos = segmentHeader
			s.last, s.chain = s.base-1, s.seed
			if !s.sealed {
				s.end = segmentHeader
			}
		}
		if err := l.readOn(i, pos, func(entry *raft.Log) error {
			out.Index, out.Term, out.At = entry.Index, entry.Term, entry.AppendedAt
			if entry.Type == raft.LogConfiguration {
				configuration, err := decodeConfiguration(entry.Data)
				if err != nil {
					return fmt.Errorf("%w: entry %d: %w", ErrDamaged, entry.Index, err)
				}
				out.Configuration = configuration
			}
			if after, _ := span(entry, out.Next); after > out.Next {
				out.Next = after
			}
			if each == nil {
				return nil
			}
			return each(entry)
		}); err != nil {
			return LogEnd{}, err
		}
	}
	if out.Index < out.Snapshot {
		return LogEnd{}, fmt.Errorf("%w: the log ends at entry %d, below its snapshot of entry %d", ErrDamaged, out.Index, out.Snapshot)
	}
	return out, nil
}

// decodeConfiguration is raft.DecodeConfiguration, which panics where there is none.
func decodeConfiguration(b []byte) (c raft.Configuration, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("no configuration: %v", r)
		}
	}()
	return raft.DecodeConfiguration(b), nil
}

// readOn is readBack for who only looks: it tells of the entries of segment i from pos on, and
// whether a start would take what is behind them for torn or for damaged.
func (l *recovery) readOn(i int, pos int64, each func(*raft.Log) error) error {
	s := l.segments[i]
	name := filepath.Base(s.path)
	f, err := s.handle.acquire()
	if err != nil {
		return err
	}
	defer s.handle.release()
	limit, lastListed := s.allocated, s.last
	if s.sealed {
		limit, lastListed = s.end, l.recordedLast(s.base)
	}
	c := chainCheck{w: newWalker(f, s.framing, pos, limit, walkChunk), index: s.last, chain: s.chain}
	var damage error
	end := pos
	for {
		index, chain := c.index, c.chain
		fr, b, err := c.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, ErrDamaged) {
			c.index, c.chain, damage = index, chain, err
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		entry := fr.entry(b)
		if err := each(&entry); err != nil {
			return err
		}
		end = c.w.pos
	}
	later := i+1 < len(l.segments)
	switch {
	case s.sealed && (damage != nil || c.index != lastListed):
		return fmt.Errorf("%s: it ends at entry %d instead of %d: %w", name, c.index, lastListed, orDamaged(damage))
	case s.sealed:
		return nil
	case later && c.index+1 != l.segments[i+1].base:
		return fmt.Errorf("%s: it ends at entry %d, and segment %d follows: %w", name, c.index, l.segments[i+1].base, orDamaged(damage))
	case later:
		return nil
	}
	if was := l.st.noted.endedAt(s.id.Load()); c.index < was {
		return fmt.Errorf("%s: it ends at entry %d, and was acknowledged up to entry %d when the node was stopped: %w", name, c.index, was, orDamaged(damage))
	}
	if damage == nil {
		return nil
	}
	next, _, _, err := s.behind(f, end, c.index)
	if err == nil && next != 0 {
		err = fmt.Errorf("%s: behind entry %d: %w; entry %d of a later append is good, so it was acknowledged", name, c.index, damage, next)
	}
	return err
}
