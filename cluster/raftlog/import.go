package raftlog

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// What was kept elsewhere comes into files of this package as a whole (package bolt), before
// anything else is done with them. Whoever imports says by himself, on stable storage, that the
// import is over; until then it can be done again.

// ImportVotes makes the vote file anew. Of damaged raft groups it is known that they have voted,
// and not what.
func (st *Store) ImportVotes(votes map[string]map[string][]byte, damaged []string) error {
	s := st.newStable()
	for name, kept := range votes {
		if err := checkVotes(name, kept); err != nil {
			return err
		}
		s.groups[name] = kept
	}
	for _, name := range damaged {
		s.groups[name] = memberVotes{damagedKey: []byte("its votes were not what was written")}
	}
	if err := s.rewrite(nil); err != nil {
		return fmt.Errorf("vote store %s: %w", s.path(), err)
	}
	return s.Close()
}

// Imported is a log that was kept elsewhere.
type Imported struct {
	Snapshot *raft.SnapshotMeta // nil: none
	State    []byte             // of the snapshot
	// Entries are without a hole. They begin with 1, or at most one behind the snapshot's end, and
	// reach to it at least; none at all if the snapshot stands for everything.
	Entries []*raft.Log
}

// first is the index that the log begins with.
func (in Imported) first() uint64 {
	switch {
	case len(in.Entries) > 0:
		return in.Entries[0].Index
	case in.Snapshot != nil:
		return in.Snapshot.Index + 1
	default:
		return 1
	}
}

func (in Imported) check() error {
	first, last, covered := in.first(), in.first()-1, uint64(0)
	for _, entry := range in.Entries {
		if entry.Index != last+1 {
			return fmt.Errorf("%w: entry %d behind entry %d", ErrDamaged, entry.Index, last)
		}
		last++
	}
	if in.Snapshot != nil {
		covered = in.Snapshot.Index
	}
	if first > covered+1 || last < covered {
		return fmt.Errorf("%w: entries %d to %d beside a snapshot of entry %d", ErrDamaged, first, last, covered)
	}
	return nil
}

// importedBytes is about how much is stored in one piece.
const importedBytes = 1 << 20

// Import makes the log of a WholeLog's raft group anew in the folder dir. What is there of a log is
// removed.
func (st *Store) Import(dir string, opts LogOptions, in Imported) error {
	if err := in.check(); err != nil {
		return err
	}
	if err := st.fs.MkdirAll(dir); err != nil {
		return err
	}
	if err := st.ClearLog(dir); err != nil {
		return err
	}
	if err := st.syncDir(filepath.Dir(dir)); err != nil {
		return err
	}
	m := &manifest{Group: opts.Group, Generation: 1, First: in.first()}
	if err := m.write(st.disk, dir); err != nil {
		return err
	}
	start := int64(m.First)
	if start == 1 {
		start = 0 // nothing was applied before
	}
	opts.Whole, opts.Fresh = true, false
	l, err := st.openLog(dir, opts, start)
	if err != nil {
		return err
	}
	return errors.Join(l.fill(in), l.Close())
}

// fill stores what is imported into a log that has nothing.
func (l *PartitionLog) fill(in Imported) error {
	for rest := in.Entries; len(rest) > 0; {
		n, size := 0, 0
		for n < len(rest) && size < importedBytes {
			size += len(rest[n].Data)
			n++
		}
		if err := l.StoreLogs(rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	if in.Snapshot == nil {
		return nil
	}
	if len(in.Entries) == 0 { // what comes behind the snapshot goes here
		l.turn.wait()
		_, err := l.roll(in.first())
		l.turn.pass()
		if err != nil {
			return err
		}
	}
	for _, entry := range in.Entries {
		if entry.Index <= in.Snapshot.Index {
			l.applyStaged(l.opts.Span, nil, entry)
		}
	}
	s := in.Snapshot
	_, next := l.LastApplied()
	record := snapshotRecord{Index: s.Index, Term: s.Term, Configuration: s.Configuration, ConfigurationIndex: s.ConfigurationIndex}
	return l.snapshots.publish(record, l.Standing(next), in.State)
}

// ClearLog removes the files of a log from a folder, and leaves all others there. It may not be
// open.
func (st *Store) ClearLog(dir string) error {
	files := &recovery{home: &home{st: st, dir: dir}}
	// Without its manifest nothing of it counts.
	for _, name := range []string{manifestName, stagingName} {
		if err := st.fs.RemoveAll(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if err := st.syncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := files.sweep(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Remove removes files and folders that are there, durably.
func (st *Store) Remove(paths ...string) error {
	for _, path := range paths {
		entries, err := st.fs.List(filepath.Dir(path))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if !slices.ContainsFunc(entries, func(e vfs.Entry) bool { return e.Name == filepath.Base(path) }) {
			continue
		}
		if err := st.fs.RemoveAll(path); err != nil {
			return err
		}
		if err := st.syncDir(filepath.Dir(path)); err != nil {
			return err
		}
	}
	return nil
}
