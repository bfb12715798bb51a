package raftlog

import (
	"errors"
	"fmt"

	"io/fs"
	"path/filepath"
	"slices"

	"github.com/hashicorp/raft"
)

// A replica that is too far behind is not fed through Raft. It copies the entries
// that it lacks, up to a snapshot of another replica, into a folder of their own
// (Staging). Only when all of it is there and on stable storage does the log
// adopt it, in one step (PartitionLog.Adopt), with Raft of the group shut down.
//
// What is adopted replaces everything above the log's own snapshot: what a dead leader left behind
// must not look committed (invariant 3). Raft goes on beside the copy, and another leader may bring
// the log as far as that by itself. Then the log stays as it is: it holds what was acknowledged
// meanwhile.

const stagingName = "staging"

// Described is what another replica must know of a log to copy it.
type Described struct {
	First      uint64 // index of the first entry kept
	FirstStart int64  // next offset in front of it
	Bytes      int64  // about what there is from the index that was asked for on

	// The snapshot.
	Index, Term        uint64
	Configuration      raft.Configuration
	ConfigurationIndex uint64
	Next               int64
	State              []byte `json:"-"`
}

// empty reports whether retention has freed everything up to the snapshot: there are no
// entries to copy then.
func (d Described) empty() bool { return d.First == d.Index+1 }

// Describe gives what a replica that has everything up to index have needs to
// copy the rest. ok is false if there is no snapshot yet.
func (l *PartitionLog) Describe(have uint64) (d Described, ok bool) {
	l.state.RLock()
	defer l.state.RUnlock()
	s := l.manifest.Snapshot
	if s == nil || len(l.segments) == 0 {
		return d, false
	}
	d = Described{
		First: l.segments[0].base, FirstStart: l.segments[0].start,
		Index: s.Index, Term: s.Term, Configuration: s.Configuration, ConfigurationIndex: s.ConfigurationIndex,
		Next: s.Next, State: l.manifest.state,
	}
	for _, seg := range l.segments {
		switch {
		case seg.base > s.Index:
		case seg.base == s.Segment:
			d.Bytes += s.Pos - segmentHeader
		case seg.last > have:
			d.Bytes += seg.end - segmentHeader
		}
	}
	return d, true
}

// AppendEntries appends entries from index from on, as they are on disk in format 1, until
// limit bytes or the entry at index to, at least one. The bytes are for
// ParseEntries of another node.
func (l *PartitionLog) AppendEntries(dst []byte, from, to uint64, limit int) ([]byte, error) {
	start := len(dst)
	l.state.RLock()
	any := len(l.segments) > 0 && from >= l.segments[0].base && from <= l.last
	l.state.RUnlock()
	if !any {
		return dst, fmt.Errorf("%w: entry %d", ErrNotInLog, from)
	}
	var err error
	scanErr := l.Scan(from, func(entry *raft.Log) bool {
		if entry.Index != from && len(dst) == start {
			return false // the one that was asked for was freed this moment
		}
		if entry.Index > to || len(dst) > start && len(dst)-start+int(framing{}.size(entry)) > limit {
			return false
		}
		dst, _, err = appendFrame(dst, framing{}, 0, entry, 0, 0)
		return err == nil && len(dst)-start < limit
	})
	if err = errors.Join(err, scanErr); err == nil && len(dst) == start {
		err = fmt.Errorf("%w: entry %d", ErrNotInLog, from)
	}
	return dst, err
}

// ParseEntries reads what AppendEntries of another node gave. Data alias b.
func ParseEntries(b []byte) ([]*raft.Log, error) {
	var entries []*raft.Log
	for len(b) > 0 {
		f, err := parseFrame(b, framing{}, 0)
		if err != nil {
			return nil, err
		}
		if f.size() > int64(len(b)) {
			return nil, fmt.Errorf("%w: entry %d is cut short", ErrDamaged, f.index)
		}
		if err := f.verify(b); err != nil {
			return nil, err
		}
		entry := f.entry(b)
		if n := len(entries); n > 0 && entry.Index != entries[n-1].Index+1 {
			return nil, fmt.Errorf("%w: entry %d behind entry %d", ErrDamaged, entry.Index, entries[n-1].Index)
		}
		entries = append(entries, &entry)
		b = b[f.size():]
	}
	return entries, nil
}

// Has reports whether the log, from its snapshot on, holds the entry of that index
// and term, and so all that the leader of it had up to there (Raft, section 5.3).
func (l *PartitionLog) Has(index, term uint64) bool {
	l.state.RLock()
	s := l.manifest.Snapshot
	covered := s != nil && index <= s.Index
	last := l.last
	l.state.RUnlock()
	if covered {
		return true // it was committed here, as every snapshot is
	}
	if index > last {
		return false
	}
	var entry raft.Log
	return l.readEntry(index, &entry) == nil && entry.Term == term
}

// overtakes reports whether the log must stay as it is, though a snapshot of another replica was
// copied. Raft of the group is down. An entry of the snapshot's term at its index proves that the
// log has what the snapshot stands for (Raft, section 5.3), and what lies behind it may have been
// acknowledged. Only a log that ends below the snapshot, or in which another term stands there,
// which a dead leader left, gives way. A log that cannot tell is damaged.
func (l *PartitionLog) overtakes(s *snapshotRecord) (bool, error) {
	l.state.RLock()
	covered := l.manifest.Snapshot != nil && l.manifest.Snapshot.Index >= s.Index
	last, applied := l.last, l.applied
	l.state.RUnlock()
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

// Widen gives Raft back the entries from index on, if they are still there. Where answers of this replica were
// lost for long, its leader may know less of it than Raft's window here has left: it sends a snapshot,
// and then what lies behind it, and Raft compares that with its own entries. Without them it
// would be sent the same snapshot for ever.
func (l *PartitionLog) Widen(index uint64) {
	l.state.Lock()
	defer l.state.Unlock()
	if len(l.segments) > 0 && l.last > 0 {
		l.first = min(l.first, max(index, l.segments[0].base))
	}
}

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
	l.state.RLock()
	if s := l.manifest.Snapshot; s != nil && s.Index+1 >= d.First {
		have, from, start = s.Index, s.Index+1, s.Next
	}
	l.state.RUnlock()
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
	parent.state.RLock()
	gen := parent.manifest.Generation + 1
	parent.state.RUnlock()
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
	err = l.Scan(0, func(entry *raft.Log) bool { l.applyStaged(entry); return true })
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (l *PartitionLog) applyStaged(entry *raft.Log) {
	if entry.Type != raft.LogCommand {
		return
	}
	if l.Crosses(entry.Index) {
		l.Cross(entry.Index, nil)
	}
	_, next := l.LastApplied()
	after, newest := l.opts.Span(entry, next)
	l.Applied(entry.Index, after, newest, entry.AppendedAt.UnixMilli())
}

// Next is the index of the entry that comes next.
func (s *Staging) Next() uint64 {
	s.log.state.RLock()
	defer s.log.state.RUnlock()
	if s.log.last == 0 {
		return s.log.manifest.First
	}
	return s.log.last + 1
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
		s.log.applyStaged(entry)
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
		s.log.write.Lock()
		_, err := s.log.roll(d.First)
		s.log.write.Unlock()
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

// Adopt makes what was staged and finished the log's own, in one step, behind its
// own entries up to the index where the staging began. A log that has come as far by
// itself stays as it is, and the staging goes. Raft of the group must be
// shut down. The log must be closed and opened again afterwards.
func (l *PartitionLog) Adopt(s *Staging) error {
	l.write.Lock()
	defer l.write.Unlock()
	if err := l.writable(); err != nil {
		return err
	}
	l.err = errors.New("the log has to be opened again") // whatever happens below
	staged := s.log.manifest
	if staged.Snapshot == nil {
		return errors.New("the staging is not finished")
	}
	m := &manifest{Group: l.opts.Group, Generation: staged.Generation, Snapshot: staged.Snapshot, state: staged.state}
	if overtaken, err := l.overtakes(staged.Snapshot); err != nil {
		return err
	} else if overtaken {
		return s.Discard()
	}
	if s.have > 0 {
		own, err := l.ownUpTo(s.have, s.start)
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

// ownUpTo describes the log's own segments up to an entry at or below its
// snapshot, behind which the next offset is next: complete, with final indexes.
// The write lock is held.
func (l *PartitionLog) ownUpTo(index uint64, next int64) ([]segmentRecord, error) {
	l.state.RLock()
	segments, ends, m := slices.Clone(l.segments), slices.Clone(l.ends), l.manifest
	l.state.RUnlock()
	var records []segmentRecord
	for _, s := range segments {
		if s.base > index {
			break
		}
		r := segmentRecord{Base: s.base, Generation: s.gen, Start: s.start, MaxTime: s.maxTime, LastWrite: s.lastWrite, Last: min(s.last, index), Final: true}
		f, err := s.handle.acquire()
		if err != nil {
			return nil, err
		}
		r.End, r.Chain, err = l.endOf(s, f, r.Last)
		if err == nil {
			err = l.st.sync(f)
		}
		s.handle.release()
		if err != nil {
			return nil, err
		}
		if at := slices.IndexFunc(m.Segments, func(r segmentRecord) bool { return r.Base == s.base }); at >= 0 && s.last > index {
			r.MaxTime, r.LastWrite = m.Segments[at].MaxTime, m.Segments[at].LastWrite // those of what goes are not among them
		}
		if s.start == unknownOffset {
			r.Start = next // nothing in it but entries without records
		}
		if !s.index.isFinal() {
			end := segmentEnd{next: next}
			if at := slices.IndexFunc(ends, func(e segmentEnd) bool { return e.seg == s }); at >= 0 && r.Last == s.last {
				end = ends[at]
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
