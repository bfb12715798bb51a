package raftlog

import (
	"errors"
	"math"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// WholeLog is the log of a raft group whose snapshot is all that its state machine knows, as the
// catalog's is. Nobody reads its past, so what Raft lets go of is freed; and Raft installs another
// member's snapshot by itself, since there are no records to be copied first.
type WholeLog struct{ *PartitionLog }

// OpenWholeLog is OpenLog for such a group. Its appends go straight to their segment: what is wrong
// with the journal, which all partitions' logs are refused for, does not take the catalog's along,
// without which a node cannot have them made anew.
func (st *Store) OpenWholeLog(dir string, opts LogOptions) (WholeLog, error) {
	opts.Whole = true
	l, err := st.OpenLog(dir, opts)
	return WholeLog{l}, err
}

var _ Log = WholeLog{}

// GetLog implements raft.LogStore; it knows the term of the entry that an installed snapshot ends
// with.
func (l WholeLog) GetLog(index uint64, out *raft.Log) error {
	return SnapshotTerm{l.PartitionLog, l.Snapshots()}.GetLog(index, out)
}

// StoreLog implements raft.LogStore.
func (l WholeLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore. An error other than that of a full disk is none that passes:
// it fails the store.
func (l WholeLog) StoreLogs(entries []*raft.Log) error {
	return l.judge(l.PartitionLog.StoreLogs(entries))
}

// judge fails the store for an error that says more than that there is no room, or that a newer
// snapshot is there: Raft takes its own in a goroutine beside installing another member's. Raft
// would go on after it, and nobody makes such a log anew from the others'.
func (l *home) judge(err error) error {
	passes := errors.Is(err, vfs.ErrNoSpace) || vfs.OutOfFiles(err) || errors.Is(err, errClosed) || errors.Is(err, errOvertaken)
	if err != nil && !passes {
		l.st.fail(err)
	}
	return err
}

// DeleteRange implements raft.LogStore, and frees the segments that Raft has let go of.
func (l WholeLog) DeleteRange(from, to uint64) error {
	if err := l.judge(l.PartitionLog.DeleteRange(from, to)); err != nil {
		return err
	}
	first, err := l.FirstIndex()
	if err == nil {
		_, err = l.Trim(math.MaxInt64, first)
	}
	return err
}

// installer takes snapshots of other members for a whole log. It has no lock of its own.
type installer struct {
	snapshots
	tail    *tail
	entries *entries
	gate    *gate
}

// install makes a snapshot that another member sent the log's own: record and state change with the
// list of segments in one step (invariant 2). A log that has the snapshot's last entry, of its
// term, has all that it stands for (Raft, section 5.3): it stays, with what is behind, which may
// have been acknowledged. Any other gives way.
func (l *installer) install(record snapshotRecord, state []byte) error {
	keep, err := l.give(record, state)
	if errors.Is(err, ErrDamaged) {
		l.gate.tell(err)
	}
	if err != nil || !keep {
		return err
	}
	if err := l.passUpTo(record.Index); err != nil {
		return err
	}
	_, next := l.view.LastApplied()
	return l.publish(record, l.view.Standing(next), state)
}

// give replaces the log unless it has what the snapshot stands for: it must be kept then.
func (l *installer) give(record snapshotRecord, state []byte) (keep bool, err error) {
	l.turn.wait()
	defer l.turn.pass()
	keep, err = l.entries.overtakes(&record)
	if err == nil && !keep {
		err = l.replace(record, state)
	}
	return keep, err
}

// passUpTo tells the log of what Raft does not apply one by one, since it has it in a snapshot.
func (l *installer) passUpTo(index uint64) error {
	applied, _ := l.view.LastApplied()
	return l.entries.Scan(applied+1, func(entry *raft.Log) bool {
		if entry.Index <= index {
			l.view.applyStaged(l.opts.Span, nil, entry)
		}
		return entry.Index < index
	})
}

// replace lets go of all that is in the log; the turn is held.
func (l *installer) replace(record snapshotRecord, state []byte) error {
	if err := l.turn.usable(); err != nil {
		return err
	}
	record.Next = int64(record.Index) + 1
	record.Segment, record.Pos = record.Index, segmentHeader
	now := l.view.published()
	m := &manifest{Group: now.Group, Generation: now.Generation + 1, First: record.Index + 1, Snapshot: &record, state: state}
	s, err := createSegment(l.st.disk, l.dir, m.First, m.Generation, l.st.stamping())
	if err != nil {
		return err
	}
	s.start = record.Next
	if s.index, err = newIndex(l.st.disk, s); err == nil {
		if err = m.write(l.st.disk, l.dir); err != nil {
			if now, rerr := readManifest(l.st.disk, l.dir); rerr != nil || now == nil || now.Generation == m.Generation {
				// It may be there or not: nothing may be appended to what it does not name.
				l.turn.err = err
				l.st.fail(err)
			}
		}
	}
	if err != nil {
		segmentList{s}.drop()
		if l.st.failed() == nil {
			l.st.unmake(s.path)
		}
		return err
	}
	l.cache.forget(0)
	l.tail.lastMark = nil
	for _, old := range slices.Backward(l.view.replaced(m, s)) {
		if rerr := l.remove(old); rerr != nil && err == nil {
			err = rerr // no manifest names it: the next start removes it
		}
	}
	return err
}
