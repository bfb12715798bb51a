package raftlog

import (
	"errors"
	"math"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// WholeLog is the log of a group whose snapshot is all that its state machine knows, as the
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
// would go on after it, and nobody makes such a log anew from the others'. So it does for any error
// after which the log takes nothing more.
func (l *PartitionLog) judge(err error) error {
	if err == nil || errors.Is(err, errClosed) {
		return err
	}
	l.write.Lock()
	over := l.err != nil && !errors.Is(l.err, errClosed)
	l.write.Unlock()
	if over || !errors.Is(err, vfs.ErrNoSpace) && !vfs.OutOfFiles(err) && !errors.Is(err, errOvertaken) {
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

// install makes a snapshot that another member sent the log's own: record and state change with the
// list of segments in one step (invariant 2). A log that has the snapshot's last entry, of its
// term, has all that it stands for (Raft, section
// 5.3): it stays, with what is behind, which may have been acknowledged. Any other gives way.
func (l *PartitionLog) install(record snapshotRecord, state []byte) error {
	l.write.Lock()
	keep, err := l.overtakes(&record)
	if err == nil && !keep {
		err = l.replace(record, state)
	}
	l.write.Unlock()
	if errors.Is(err, ErrDamaged) && l.opts.OnDamage != nil {
		l.hurt.Do(func() { go l.opts.OnDamage(err) })
	}
	if err != nil || !keep {
		return err
	}
	if err := l.passUpTo(record.Index); err != nil {
		return err
	}
	_, next := l.LastApplied()
	return l.publish(record, l.Standing(next), state)
}

// passUpTo tells the log of what Raft does not apply one by one, since it has it in a snapshot.
func (l *PartitionLog) passUpTo(index uint64) error {
	applied, _ := l.LastApplied()
	return l.Scan(applied+1, func(entry *raft.Log) bool {
		if entry.Index <= index {
			l.applyStaged(entry)
		}
		return entry.Index < index
	})
}

// replace lets go of all that is in the log; the write lock is held.
func (l *PartitionLog) replace(record snapshotRecord, state []byte) error {
	if err := l.writable(); err != nil {
		return err
	}
	record.Next = int64(record.Index) + 1
	record.Segment, record.Pos = record.Index, segmentHeader
	l.state.RLock()
	m := &manifest{Group: l.manifest.Group, Generation: l.manifest.Generation + 1, First: record.Index + 1, Snapshot: &record, state: state}
	l.state.RUnlock()
	s, err := createSegment(l.st, l.dir, m.First, m.Generation)
	if err != nil {
		return err
	}
	s.start = record.Next
	if s.index, err = newIndex(l.st, s); err == nil {
		if err = m.write(l.st, l.dir); err != nil {
			if now, rerr := readManifest(l.st, l.dir); rerr != nil || now == nil || now.Generation == m.Generation {
				// It may be there or not: nothing may be appended to what it does not name.
				l.err = err
				l.st.fail(err)
			}
		}
	}
	if err != nil {
		s.handle.drop()
		if l.st.failed() == nil {
			l.st.unmake(s.path)
		}
		return err
	}
	l.cache.forget(0)
	l.state.Lock()
	old := l.segments
	l.manifest, l.segments = m, []*segment{s}
	l.first, l.last = m.First, record.Index
	l.applied, l.next, l.applying = record.Index, record.Next, 0
	l.marks, l.ends, l.lastMark = nil, nil, nil
	l.cuts.Add(2)
	l.state.Unlock()
	for _, s := range slices.Backward(old) {
		if rerr := l.remove(s); rerr != nil && err == nil {
			err = rerr // no manifest names it: the next start removes it
		}
	}
	return err
}
