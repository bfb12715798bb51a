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
	kept   Kept   // of what is staged; nil: nothing is kept
	have   uint64 // what the parent keeps of its own: up to here; 0: nothing
	start  int64  // next offset in front of what is staged
	state  []byte // the state machine's there, if the parent keeps something
}

// Stage begins to copy, or goes on with what was copied before. d is what the
// other replica has. The log keeps its own entries up to its snapshot; if the
// other has trimmed entries that this one lacks, none.
func (l *PartitionLog) Stage(d Described) (*Staging, error) {
	have, from, start := uint64(0), d.First, d.FirstStart
	var state []byte // in front of that
	// Its own entries and those of the other must be of one mark: a tombstone that is gone there
	// may be what an older record here is waiting for.
	if m := l.published(); m.Snapshot != nil && m.Snapshot.Index+1 >= d.First && m.Compacted.Mark == d.Compacted.Mark {
		have, from, start, state = m.Snapshot.Index, m.Snapshot.Index+1, m.Snapshot.Next, m.state
	}
	if d.empty() {
		start = d.Next
	}
	if start < 0 || d.Index < from && !d.empty() {
		return nil, fmt.Errorf("nothing to copy from entry %d to %d", from, d.Index)
	}
	s, err := openStaging(l, d.Compacted, from, start, state)
	if err != nil {
		// Of another transfer, or damaged: from the beginning.
		if err := l.st.fs.RemoveAll(filepath.Join(l.dir, stagingName)); err != nil {
			return nil, err
		}
		if s, err = openStaging(l, d.Compacted, from, start, state); err != nil {
			return nil, err
		}
	}
	s.have, s.start, s.state = have, start, state
	return s, nil
}

func openStaging(parent *PartitionLog, compacted Compaction, from uint64, start int64, state []byte) (*Staging, error) {
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
		m = &manifest{Group: parent.opts.Group, Generation: gen, First: from, Compacted: compacted}
		if err := m.write(st.disk, dir); err != nil {
			return nil, err
		}
	}
	if m.Generation != gen || m.First != from || m.Snapshot != nil || m.Compacted.Mark != compacted.Mark {
		return nil, fmt.Errorf("%w: a transfer of something else", ErrDamaged)
	}
	s := &Staging{parent: parent}
	return s, s.open(dir, start, state)
}

// open opens a log that begins anywhere, has no snapshot, and applies what it holds. state is what
// is in front of it.
func (s *Staging) open(dir string, start int64, state []byte) (err error) {
	opts := s.parent.opts
	opts.Fresh, opts.OnDamage, opts.SegmentAge, opts.Crowded = false, nil, nil, nil
	if opts.Kept != nil {
		if s.kept, err = opts.Kept(state); err != nil {
			return err
		}
		opts.Crowded = s.kept.Crowded
	}
	if s.log, err = s.parent.st.openLog(dir, opts, start); err != nil {
		return err
	}
	s.log.turn.staged = true
	err = s.log.Scan(0, func(entry *raft.Log) bool { s.log.applyStaged(opts.Span, s.kept, entry); return true })
	if err != nil {
		s.log.Close()
	}
	return err
}

// applyStaged applies an entry that the state machine never sees: what it stands for is in a
// snapshot. kept, unless nil, is of the entries so far.
func (v *view) applyStaged(span Span, kept Kept, entry *raft.Log) {
	if entry.Type != raft.LogCommand {
		return
	}
	v.crossStaged(kept, entry.Index)
	_, next := v.LastApplied()
	if kept != nil {
		kept.Add(entry, next)
	}
	after, newest := span(entry, next)
	v.Applied(entry.Index, after, newest, entry.AppendedAt.UnixMilli())
}

// crossStaged is Cross if the entry at index is in another segment than the one applied before.
func (v *view) crossStaged(kept Kept, index uint64) {
	if v.Crosses(index) {
		_, next := v.LastApplied()
		v.Cross(index, endOfKept(kept, v.applyingStart(), next))
	}
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
	if want := s.Next(); firstOf(entries[0]) != want {
		return fmt.Errorf("entry %d came, %d was wanted", firstOf(entries[0]), want)
	}
	if err := s.log.StoreLogs(entries); err != nil {
		return err
	}
	for _, entry := range entries {
		s.log.applyStaged(s.log.opts.Span, s.kept, entry)
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
	// What comes behind the snapshot goes to a segment of its own where nothing was copied, and
	// where something is kept with the segment that ends: the snapshot's state knows only what is
	// not kept with the segments of the replica that it comes from, and those are others.
	none := d.empty() && len(s.log.Segments()) == 0
	if none || s.kept != nil && s.kept.Holds() {
		if err := s.endAt(d.Index); err != nil {
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

// endAt makes what comes behind an entry go to another segment.
func (s *Staging) endAt(index uint64) error {
	s.log.turn.wait()
	defer s.log.turn.pass()
	if last, _ := s.log.view.active(); last == nil || last.base <= index {
		if _, err := s.log.roll(index + 1); err != nil {
			return err
		}
	}
	s.log.crossStaged(s.kept, index+1)
	return nil
}

// Anew reports whether the log will keep nothing of its own, and where it begins then.
func (s *Staging) Anew() (start int64, anew bool) { return s.start, s.have == 0 }

// Close lets go of the files; they stay, to go on with.
func (s *Staging) Close() error { return s.log.Close() }

// Discard removes what was staged.
func (s *Staging) Discard() error {
	s.log.Close()
	return s.parent.st.fs.RemoveAll(filepath.Join(s.parent.dir, stagingName))
}
