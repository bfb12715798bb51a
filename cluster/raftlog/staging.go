package raftlog

import (
	"fmt"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// A replica that is too far behind is not fed through Raft. It copies the entries
// that it lacks, up to a snapshot of another replica, into a folder of their own
// (Staging). Only when all of it is there and on stable storage does the log
// adopt it, in one step (PartitionLog.Adopt), with Raft of the raft group shut down.
//
// What is adopted replaces everything above the log's own snapshot: what a dead leader left behind
// must not look committed (invariant 3). Raft goes on beside the copy, and another leader may bring
// the log as far as that by itself. Then the log stays as it is: it holds what was acknowledged
// meanwhile.

const stagingName = "staging"

// Staging is what was copied so far.
type Staging struct {
	parent *PartitionLog
	log    *PartitionLog
	have   uint64 // what the parent keeps of its own: up to here; 0: nothing
	start  int64  // next offset in front of what is staged
}

// Stage begins to copy, or goes on with what was copied before. d is what the
// other replica has. The log keeps its own entries up to its snapshot; if the
// other has trimmed entries that this one lacks, none.
func (l *PartitionLog) Stage(d Described) (*Staging, error) {
	have, from, start := uint64(0), d.First, d.FirstStart
	if s := l.published().Snapshot; s != nil && s.Index+1 >= d.First {
		have, from, start = s.Index, s.Index+1, s.Next
	}
	if d.empty() {
		start = d.Next
	}
	if start < 0 || d.Index < from && !d.empty() {
		return nil, fmt.Errorf("nothing to copy from entry %d to %d", from, d.Index)
	}
	s, err := openStaging(l, from, start)
	if err != nil {
		// Of another transfer, or damaged: from the beginning.
		if err := l.st.fs.RemoveAll(filepath.Join(l.dir, stagingName)); err != nil {
			return nil, err
		}
		if s, err = openStaging(l, from, start); err != nil {
			return nil, err
		}
	}
	s.have, s.start = have, start
	return s, nil
}

func openStaging(parent *PartitionLog, from uint64, start int64) (*Staging, error) {
	st, dir := parent.st, filepath.Join(parent.dir, stagingName)
	gen := parent.published().Generation + 1
	m, err := readManifest(st.disk, dir)
	if err != nil {
		return nil, err
	}
	if m == nil {
		if err := st.fs.RemoveAll(dir); err != nil {
			return nil, err
		}
		if err := st.fs.MkdirAll(dir); err != nil {
			return nil, err
		}
		if err := st.syncDir(parent.dir); err != nil {
			return nil, err
		}
		m = &manifest{Group: parent.opts.Group, Generation: gen, First: from}
		if err := m.write(st.disk, dir); err != nil {
			return nil, err
		}
	}
	if m.Generation != gen || m.First != from || m.Snapshot != nil {
		return nil, fmt.Errorf("%w: a transfer of something else", ErrDamaged)
	}
	l, err := st.openStagedLog(dir, parent.opts, start)
	if err != nil {
		return nil, err
	}
	return &Staging{parent: parent, log: l}, nil
}

// openStagedLog opens a log that begins anywhere, has no snapshot, and applies what
// it holds.
func (st *Store) openStagedLog(dir string, opts LogOptions, start int64) (*PartitionLog, error) {
	opts.Fresh, opts.OnDamage, opts.SegmentAge = false, nil, nil
	l, err := st.openLog(dir, opts, start)
	if err != nil {
		return nil, err
	}
	l.turn.staged = true
	err = l.Scan(0, func(entry *raft.Log) bool { l.applyStaged(opts.Span, entry); return true })
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// applyStaged applies an entry that the state machine never sees: what it stands for is in a
// snapshot.
func (v *view) applyStaged(span Span, entry *raft.Log) {
	if entry.Type != raft.LogCommand {
		return
	}
	if v.Crosses(entry.Index) {
		v.Cross(entry.Index, nil)
	}
	_, next := v.LastApplied()
	after, newest := span(entry, next)
	v.Applied(entry.Index, after, newest, entry.AppendedAt.UnixMilli())
}

// Next is the index of the entry that comes next.
func (s *Staging) Next() uint64 {
	if last, _ := s.log.reach(); last != 0 {
		return last + 1
	}
	return s.log.published().First
}

// Bytes is the size of what is staged.
func (s *Staging) Bytes() int64 { return s.log.Bytes() }

// Add stages entries that follow what is there.
func (s *Staging) Add(entries []*raft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	if want := s.Next(); entries[0].Index != want {
		return fmt.Errorf("entry %d came, %d was wanted", entries[0].Index, want)
	}
	if err := s.log.StoreLogs(entries); err != nil {
		return err
	}
	for _, entry := range entries {
		s.log.applyStaged(s.log.opts.Span, entry)
	}
	return nil
}

// Finish is called when everything up to the snapshot is there. What is staged
// must lead to the snapshot's offset, or it is refused.
func (s *Staging) Finish(d Described) error {
	if next := s.Next(); next != d.Index+1 {
		return fmt.Errorf("staged up to entry %d, the snapshot is of entry %d", next-1, d.Index)
	}
	if _, next := s.log.LastApplied(); next != d.Next {
		return fmt.Errorf("%w: what was copied ends at offset %d, the snapshot says %d", ErrDamaged, next, d.Next)
	}
	if d.empty() && len(s.log.Segments()) == 0 {
		// What comes behind the snapshot goes here.
		s.log.turn.wait()
		_, err := s.log.roll(d.First)
		s.log.turn.pass()
		if err != nil {
			return err
		}
	}
	sink, err := s.log.Snapshots().Create(1, d.Index, d.Term, d.Configuration, d.ConfigurationIndex, nil)
	if err != nil {
		return err
	}
	own := sink.(*Sink)
	own.SetNext(d.Next)
	if _, err := own.Write(d.State); err != nil {
		return err
	}
	return own.Close()
}

// Close lets go of the files; they stay, to go on with.
func (s *Staging) Close() error { return s.log.Close() }

// Discard removes what was staged.
func (s *Staging) Discard() error {
	s.log.Close()
	return s.parent.st.fs.RemoveAll(filepath.Join(s.parent.dir, stagingName))
}
