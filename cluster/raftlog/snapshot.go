package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/hashicorp/raft"
)

// Snapshots is the raft.SnapshotStore of a partition: there is one snapshot, and
// it is in the manifest. The state in it is small; the records are the segments.
//
// Raft of a partition's group never installs a snapshot of another node by itself: see Stage. That of a whole log does.
func (l *PartitionLog) Snapshots() raft.SnapshotStore { return snapshots{l} }

type snapshots struct{ l *PartitionLog }

// Create implements raft.SnapshotStore.
func (s snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if version != 1 {
		return nil, fmt.Errorf("snapshot version %d is not known", version)
	}
	return &Sink{l: s.l, record: snapshotRecord{Index: index, Term: term, Configuration: configuration, ConfigurationIndex: configurationIndex}}, nil
}

// List implements raft.SnapshotStore.
func (s snapshots) List() ([]*raft.SnapshotMeta, error) {
	s.l.state.RLock()
	defer s.l.state.RUnlock()
	if s.l.manifest.Snapshot == nil {
		return nil, nil
	}
	return []*raft.SnapshotMeta{s.l.manifest.meta()}, nil
}

// Open implements raft.SnapshotStore.
func (s snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.l.state.RLock()
	defer s.l.state.RUnlock()
	m := s.l.manifest
	if m.Snapshot == nil || m.meta().ID != id {
		return nil, nil, fmt.Errorf("snapshot %s is not there any more", id)
	}
	return m.meta(), io.NopCloser(bytes.NewReader(m.state)), nil
}

func (m *manifest) meta() *raft.SnapshotMeta {
	s := m.Snapshot
	return &raft.SnapshotMeta{
		Version: 1, ID: fmt.Sprintf("%d-%d", s.Term, s.Index), Index: s.Index, Term: s.Term,
		Configuration: s.Configuration, ConfigurationIndex: s.ConfigurationIndex, Size: int64(len(m.state)),
	}
}

// Sink is the raft.SnapshotSink of a log.
type Sink struct {
	l      *PartitionLog
	record snapshotRecord
	state  bytes.Buffer
	at     Standing
	closed bool
}

// Standing is what the log knows of its records at one moment. A snapshot is written while more is applied, and says nothing
// of that.
type Standing struct {
	known              bool
	next               int64    // offset behind what is applied
	seg                *segment // the one that is being applied
	maxTime, lastWrite int64    // of its records so far
}

// Standing is asked for when the partition's state is taken for a snapshot, and nothing is applied beside that; next is the
// offset behind it.
func (l *PartitionLog) Standing(next int64) Standing {
	l.state.RLock()
	defer l.state.RUnlock()
	at := Standing{known: true, next: next, maxTime: noTime}
	if l.applying < len(l.segments) {
		at.seg = l.segments[l.applying]
		at.maxTime, at.lastWrite = at.seg.maxTime, at.seg.lastWrite
	}
	return at
}

// SetStanding tells what the snapshot is of. It must be called before Close.
func (s *Sink) SetStanding(at Standing) { s.at = at }

// SetNext is SetStanding for a snapshot of all that is applied, which ends in front of that offset.
func (s *Sink) SetNext(next int64) { s.at = s.l.Standing(next) }

// Write implements io.Writer.
func (s *Sink) Write(b []byte) (int, error) {
	if s.state.Len()+len(b) > maxState {
		return 0, fmt.Errorf("a snapshot of more than %d bytes", maxState)
	}
	return s.state.Write(b)
}

// ID implements raft.SnapshotSink.
func (s *Sink) ID() string { return fmt.Sprintf("%d-%d", s.record.Term, s.record.Index) }

// Cancel implements raft.SnapshotSink.
func (s *Sink) Cancel() error {
	s.closed = true
	return nil
}

// Close publishes the snapshot. One of which nobody has told what it stands for came from another member. A second
// call does nothing.
func (s *Sink) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	switch {
	case s.at.known && s.l.opts.Whole:
		return s.l.judge(s.l.publish(s.record, s.at, s.state.Bytes()))
	case s.at.known:
		return s.l.publish(s.record, s.at, s.state.Bytes())
	case s.l.opts.Whole:
		return s.l.judge(s.l.install(s.record, s.state.Bytes()))
	default:
		return fmt.Errorf("snapshot %s of the group's own state machine only", s.ID())
	}
}

// errOvertaken refuses a snapshot; the log stays as it is.
var errOvertaken = errors.New("a newer one is there")

// publish makes a snapshot the log's own: everything it speaks of is on stable storage
// before (invariant 6).
func (l *PartitionLog) publish(record snapshotRecord, at Standing, state []byte) error {
	if err := l.flushBelow(record.Index); err != nil {
		return err
	}
	l.write.Lock()
	defer l.write.Unlock()
	if err := l.writable(); err != nil {
		return err
	}
	record.Next = at.next
	m, err := l.describe(record, at)
	if err != nil {
		return fmt.Errorf("snapshot of entry %d: %w", record.Index, err)
	}
	m.state = state
	if err := m.write(l.st, l.dir); err != nil {
		return err
	}
	l.state.Lock()
	defer l.state.Unlock()
	l.manifest = m
	l.applied = max(l.applied, record.Index)
	l.ends = slices.DeleteFunc(l.ends, func(e segmentEnd) bool { return e.seg.index != nil && e.seg.index.final })
	return nil
}

// flushBelow begins what describe does with the lock held, so that appends wait
// for little.
func (l *PartitionLog) flushBelow(index uint64) error {
	l.state.RLock()
	s := l.find(index)
	l.state.RUnlock()
	if s == nil {
		return nil
	}
	return s.flush(l.st)
}

// describe brings to stable storage what lies at or below the snapshot and gives
// the manifest that says so, but for the state; the write lock is held.
func (l *PartitionLog) describe(record snapshotRecord, at Standing) (*manifest, error) {
	l.state.RLock()
	old := l.manifest
	segments := slices.Clone(l.segments)
	ends := slices.Clone(l.ends)
	applying := l.applying
	l.state.RUnlock()
	if old.Snapshot != nil && record.Index < old.Snapshot.Index {
		return nil, fmt.Errorf("%w: that of entry %d", errOvertaken, old.Snapshot.Index)
	}
	m := &manifest{Group: old.Group, Generation: old.Generation, First: old.First, Snapshot: &record}
	if n := len(segments); n == 0 || record.Index > segments[n-1].last {
		return nil, fmt.Errorf("entry %d is not in the log", record.Index)
	}
	for i, s := range segments {
		if s.base > record.Index {
			break
		}
		final := s.index != nil && s.index.final
		if !final && i < applying && s.last <= record.Index {
			end := slices.IndexFunc(ends, func(e segmentEnd) bool { return e.seg == s })
			if end < 0 {
				return nil, fmt.Errorf("the state at the end of segment %d is not known", s.base)
			}
			if err := s.index.finish(l.st, s, ends[end].next, ends[end].state); err != nil {
				return nil, err
			}
			final = true
		}
		r, err := l.recordOf(s, final, record.Index, at)
		if err != nil {
			return nil, err
		}
		m.Segments = append(m.Segments, r)
	}
	if len(m.Segments) == 0 {
		// Everything up to the snapshot is freed, and reading begins behind it.
		record.Segment, record.Pos = record.Index, segmentHeader
		return m, l.st.syncDir(l.dir)
	}
	// The last one is where reading begins after a restart.
	s := segments[len(m.Segments)-1]
	if err := s.flush(l.st); err != nil {
		return nil, err
	}
	f, err := s.handle.acquire()
	if err != nil {
		return nil, err
	}
	defer s.handle.release()
	if record.Pos, record.Chain, err = l.endOf(s, f, record.Index); err != nil {
		return nil, err
	}
	record.Segment = s.base
	if len(m.Segments) > 0 && m.First == 0 {
		m.First = m.Segments[0].Base
	}
	// Index files that were made since are named in the folder.
	return m, l.st.syncDir(l.dir)
}

// recordOf describes a segment; final says that its index is. The end of one that
// reaches above the snapshot is left open: it may still be cut.
func (l *PartitionLog) recordOf(s *segment, final bool, snapshot uint64, at Standing) (segmentRecord, error) {
	l.state.RLock()
	r := segmentRecord{Base: s.base, Generation: s.gen, Start: s.start, MaxTime: s.maxTime, LastWrite: s.lastWrite}
	switch {
	case s == at.seg:
		r.MaxTime, r.LastWrite = at.maxTime, at.lastWrite
	case at.seg == nil || s.base > at.seg.base:
		r.MaxTime, r.LastWrite = noTime, 0
	}
	if s.sealed && s.last <= snapshot {
		r.Last, r.End, r.Chain = s.last, s.end, s.chain
	}
	l.state.RUnlock()
	if final {
		r.Final = true
		return r, nil
	}
	var err error
	r.Points, r.PointsCRC, err = s.index.flush(l.st, snapshot)
	return r, err
}

// SnapshotIndex gives the index of the snapshot, 0 if there is none.
func (l *PartitionLog) SnapshotIndex() uint64 {
	l.state.RLock()
	defer l.state.RUnlock()
	if l.manifest.Snapshot == nil {
		return 0
	}
	return l.manifest.Snapshot.Index
}
