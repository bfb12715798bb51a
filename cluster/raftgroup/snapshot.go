package raftgroup

import "github.com/hashicorp/raft"

// MaxSnapshotBytes bounds what a damaged or hostile snapshot makes us allocate.
const MaxSnapshotBytes = 1 << 30

// SnapshotBytes is a snapshot that is already in memory.
type SnapshotBytes []byte

// Persist implements raft.FSMSnapshot.
func (s SnapshotBytes) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s); err != nil {
		_ = sink.Cancel()
		return err
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (s SnapshotBytes) Release() {}
