package raftlog

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/hashicorp/raft"
)

// Adopt makes what was staged and finished the log's own, in one step, behind its
// own entries up to the index where the staging began. A log that has come as far by
// itself stays as it is, and the staging goes; so it does where the log was compacted since.
// Raft of the raft group must be shut down. The log must be closed and opened again afterwards.
func (l *PartitionLog) Adopt(s *Staging) error {
	if err := l.turn.take(); err != nil {
		return err
	}
	defer l.turn.pass()
	l.turn.err = errors.New("the log has to be opened again") // whatever happens below
	staged := s.log.published()
	if staged.Snapshot == nil {
		return errors.New("the staging is not finished")
	}
	m := &manifest{Group: l.opts.Group, Generation: staged.Generation, Snapshot: staged.Snapshot, Compacted: staged.Compacted, state: staged.state}
	if overtaken, err := l.overtakes(staged.Snapshot); err != nil {
		return err
	} else if overtaken {
		return s.Discard()
	}
	if s.have > 0 && l.published().Compacted.Mark != staged.Compacted.Mark {
		return s.Discard() // its own entries are other ones by now: all is copied
	}
	if s.have > 0 {
		own, err := l.ownUpTo(s.have, s.start, s.state)
		if err != nil {
			return err
		}
		m.Segments = own
	}
	m.Segments = append(m.Segments, staged.Segments...)
	m.First = staged.First
	if s.have > 0 {
		m.First = m.Segments[0].Base
	}
	if err := s.log.Close(); err != nil {
		return err
	}
	return l.moveIn(m)
}

// moveIn puts the files that were staged beside the log's own, and then the manifest that names
// them. The turn is held.
func (l *PartitionLog) moveIn(m *manifest) error {
	dir := filepath.Join(l.dir, stagingName)
	entries, err := l.st.fs.List(dir)
	if err != nil {
		return err
	}
	// Until the manifest is there, they are files of a generation that does not count.
	for _, e := range entries {
		if e.Name == manifestName || e.Name == manifestNew {
			continue
		}
		if err := l.st.fs.Rename(filepath.Join(dir, e.Name), filepath.Join(l.dir, e.Name)); err != nil {
			return err
		}
	}
	if err := l.st.syncDir(l.dir); err != nil {
		return err
	}
	if err := m.write(l.st.disk, l.dir); err != nil {
		return err
	}
	if err := l.st.fs.RemoveAll(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ownUpTo describes the log's own segments up to an entry at or below its snapshot, behind which
// the next offset is next and the state machine's state is state, as it was when the staging began:
// complete, with final indexes. The turn is held.
func (l *PartitionLog) ownUpTo(index uint64, next int64, state []byte) ([]segmentRecord, error) {
	m, segments, _, ends := l.parts()
	if l.opts.Kept == nil {
		state = nil
	}
	var records []segmentRecord
	for _, s := range segments {
		if s.base > index {
			break
		}
		r := segmentRecord{Base: s.base, Generation: s.gen, Rewrite: s.rewrite, Start: s.start, MaxTime: s.maxTime, LastWrite: s.lastWrite, Last: min(s.last, index), Final: true}
		f, err := s.handle.acquire()
		if err != nil {
			return nil, err
		}
		r.End, r.Chain, err = endOf(l.view, s, f, r.Last)
		if err == nil {
			err = l.st.sync(f)
		}
		s.handle.release()
		if err != nil {
			return nil, err
		}
		if at := slices.IndexFunc(m.Segments, func(r segmentRecord) bool { return r.Base == s.base }); at >= 0 && s.last > index {
			// those of what goes are not among them
			r.MaxTime, r.LastWrite = m.Segments[at].MaxTime, m.Segments[at].LastWrite
		}
		if s.start == unknownOffset {
			r.Start = next // nothing in it but entries without records
		}
		if !s.index.isFinal() {
			// Behind it nothing was applied up to there.
			end := segmentEnd{next: next, state: state}
			if told, known := endOfSegment(ends, s); known && r.Last == s.last {
				end = told
			}
			if err := s.index.trim(index); err != nil {
				return nil, err
			}
			kept := extent{s.base, r.Last, r.End, r.Start, r.MaxTime}
			if err := s.index.finish(l.st.disk, kept, end.next, end.state); err != nil {
				return nil, err
			}
		}
		records = append(records, r)
	}
	return records, nil
}

// overtakes reports whether the log must stay as it is, though a snapshot of another replica was
// copied. Raft of the raft group is down. An entry of the snapshot's term at its index proves that
// the log has what the snapshot stands for (Raft, section 5.3), and what lies behind it may have
// been acknowledged. Only a log that ends below the snapshot, or in which another term stands
// there, which a dead leader left, gives way. A log that cannot tell is damaged.
func (l *entries) overtakes(s *snapshotRecord) (bool, error) {
	covered := l.view.SnapshotIndex() >= s.Index
	last, applied := l.view.reach()
	switch {
	case covered:
		return true, nil
	case last < s.Index:
		return false, nil
	}
	var entry raft.Log
	if err := l.readEntry(s.Index, &entry); err != nil {
		return false, fmt.Errorf("entry %d, up to which was copied: %w", s.Index, err)
	}
	if entry.Term != s.Term && applied >= s.Index {
		return false, fmt.Errorf("%w: entry %d of term %d is applied, and of term %d in a snapshot", ErrDamaged, s.Index, entry.Term, s.Term)
	}
	return entry.Term == s.Term, nil
}
