package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"
)

// snapshots is the raft.SnapshotStore of a partition. What it writes it writes in its turn.
type snapshots struct {
	*home
	view *view
	turn *turn

	// take makes another member's snapshot the log's own; nil: that is refused.
	take func(record snapshotRecord, state []byte) error
}

// Create implements raft.SnapshotStore.
func (s snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if version != 1 {
		return nil, fmt.Errorf("snapshot version %d is not known", version)
	}
	return &Sink{log: s, record: snapshotRecord{Index: index, Term: term, Configuration: configuration, ConfigurationIndex: configurationIndex}}, nil
}

// List implements raft.SnapshotStore.
func (s snapshots) List() ([]*raft.SnapshotMeta, error) {
	m := s.view.published()
	if m.Snapshot == nil {
		return nil, nil
	}
	return []*raft.SnapshotMeta{m.meta()}, nil
}

// Open implements raft.SnapshotStore.
func (s snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m := s.view.published()
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
	log    snapshots
	record snapshotRecord
	state  bytes.Buffer
	at     Standing
	closed bool
}

// SetStanding tells what the snapshot is of. It must be called before Close.
func (s *Sink) SetStanding(at Standing) { s.at = at }

// SetNext is SetStanding for a snapshot of all that is applied, which ends in front of that offset.
func (s *Sink) SetNext(next int64) { s.at = s.log.view.Standing(next) }

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

// Close publishes the snapshot. One of which nobody has told what it stands for came from another
// member. A second call does nothing.
func (s *Sink) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	l := s.log
	switch {
	case s.at.known && l.opts.Whole:
		return l.judge(l.publish(s.record, s.at, s.state.Bytes()))
	case s.at.known:
		return l.publish(s.record, s.at, s.state.Bytes())
	case l.take != nil:
		return l.judge(l.take(s.record, s.state.Bytes()))
	default:
		return fmt.Errorf("snapshot %s of the group's own state machine only", s.ID())
	}
}

// errOvertaken refuses a snapshot; the log stays as it is.
var errOvertaken = errors.New("a newer one is there")

// publish makes a snapshot the log's own: everything it speaks of is on stable storage
// before (invariant 6).
func (l snapshots) publish(record snapshotRecord, at Standing, state []byte) error {
	if err := l.flushBelow(record.Index); err != nil {
		return err
	}
	if err := l.turn.take(); err != nil {
		return err
	}
	defer l.turn.pass()
	record.Next = at.next
	m, final, err := l.describe(record, at)
	if err != nil {
		return fmt.Errorf("snapshot of entry %d: %w", record.Index, err)
	}
	m.state = state
	if err := m.write(l.st.disk, l.dir); err != nil {
		return err
	}
	l.view.publish(m, final)
	return nil
}

// flushBelow begins what describe does with the lock held, so that appends wait
// for little.
func (l snapshots) flushBelow(index uint64) error {
	s := l.view.find(index)
	if s == nil {
		return nil
	}
	return s.flush(l.st.disk)
}

// describe brings to stable storage what lies at or below the snapshot and gives the manifest that
// says so, but for the state, and the segments whose indexes are final now. The turn is held.
func (l snapshots) describe(record snapshotRecord, at Standing) (m *manifest, final segmentList, err error) {
	old, segments, applying, ends := l.view.parts()
	if old.Snapshot != nil && record.Index < old.Snapshot.Index {
		return nil, nil, fmt.Errorf("%w: that of entry %d", errOvertaken, old.Snapshot.Index)
	}
	m = &manifest{Group: old.Group, Generation: old.Generation, First: old.First, Snapshot: &record, Compacted: old.Compacted}
	if last := segments.newest(); last == nil || record.Index > last.last {
		return nil, nil, fmt.Errorf("entry %d is not in the log", record.Index)
	}
	for i, s := range segments {
		if s.base > record.Index {
			break
		}
		done := s.index != nil && s.index.isFinal()
		if !done && i < applying && s.last <= record.Index {
			end, known := endOfSegment(ends, s)
			if !known {
				return nil, nil, fmt.Errorf("the state at the end of segment %d is not known", s.base)
			}
			if err := s.index.finish(l.st.disk, s.extent(), end.next, end.state); err != nil {
				return nil, nil, err
			}
			done = true
		}
		r := l.view.record(s, record.Index, at)
		if done {
			final = append(final, s)
			r.Final = true
		} else if r.Points, r.PointsCRC, err = s.index.flush(l.st.disk, record.Index); err != nil {
			return nil, nil, err
		}
		m.Segments = append(m.Segments, r)
	}
	if err := l.locate(m, segments, &record); err != nil {
		return nil, nil, err
	}
	return m, final, nil
}

// locate syncs the segment that a snapshot is in and notes where the entry behind it is: reading
// begins there after a restart. The turn is held.
func (l snapshots) locate(m *manifest, segments segmentList, record *snapshotRecord) error {
	if len(m.Segments) == 0 {
		// Everything up to the snapshot is freed, and reading begins behind it.
		record.Segment, record.Pos = record.Index, segmentHeader
		return l.st.syncDir(l.dir)
	}
	s := segments[len(m.Segments)-1]
	if err := s.flush(l.st.disk); err != nil {
		return err
	}
	f, err := s.handle.acquire()
	if err != nil {
		return err
	}
	defer s.handle.release()
	if record.Pos, record.Chain, err = endOf(l.view, s, f, record.Index); err != nil {
		return err
	}
	record.Segment = s.base
	if m.First == 0 {
		m.First = m.Segments[0].Base
	}
	// Index files that were made since are named in the folder.
	return l.st.syncDir(l.dir)
}
