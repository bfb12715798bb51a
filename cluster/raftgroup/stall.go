package raftgroup

import (
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// timedLog is a member's log that knows since when Raft has waited for it, has entries sent while
// they are stored, and answers Raft's gauge of the oldest entry when a leadership ends.
type timedLog struct {
	raft.LogStore
	ahead func([]*raft.Log) // Transport.Ahead
	count atomic.Uint64     // appends begun and ended: odd while one is under way
	stuck atomic.Uint64     // the count of the append that does not end; 0: none
	gauge gauge
}

// StoreLog implements raft.LogStore.
func (l *timedLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (l *timedLog) StoreLogs(entries []*raft.Log) error {
	l.count.Add(1)
	defer l.count.Add(1)
	l.ahead(entries)
	return l.LogStore.StoreLogs(entries)
}

// IsMonotonic implements raft.MonotonicLogStore.
func (l *timedLog) IsMonotonic() bool {
	inner, ok := l.LogStore.(raft.MonotonicLogStore)
	return ok && inner.IsMonotonic()
}

// Appending gives the number of the append that is under way, which no other append of this member
// has; 0: none is.
func (m *Member) Appending() uint64 {
	if count := m.appends.count.Load(); count%2 == 1 {
		return count
	}
	return 0
}

// SetStuck says that the append of that number takes too long. It holds until that append has
// ended.
func (m *Member) SetStuck(append uint64) { m.appends.stuck.Store(append) }

// Stuck reports whether an append has not ended for too long.
func (m *Member) Stuck() bool {
	stuck := m.appends.stuck.Load()
	return stuck != 0 && stuck == m.appends.count.Load()
}
