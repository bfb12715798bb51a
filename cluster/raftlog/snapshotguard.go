package raftlog

import (
	"errors"
	"slices"
	"syscall"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// GuardSnapshots gives a store of Raft's snapshot files that tells fail of an error of the disk. Raft goes on
// after one and takes another snapshot; with that it lets go of its log, though of a sync that failed nobody knows what it left.
// A full disk is no such error as long as nothing is in its place that was not synced.
func GuardSnapshots(store raft.SnapshotStore, fail func(error)) raft.SnapshotStore {
	return guardedSnapshots{store, fail}
}

type guardedSnapshots struct {
	raft.SnapshotStore
	fail func(error)
}

// Create implements raft.SnapshotStore.
func (g guardedSnapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64, transport raft.Transport) (raft.SnapshotSink, error) {
	sink, err := g.SnapshotStore.Create(version, index, term, configuration, configurationIndex, transport)
	if err != nil {
		g.judge("", err)
		return nil, err
	}
	return guardedSink{sink, g}, nil
}

func (g guardedSnapshots) judge(id string, err error) {
	full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
	list, lerr := g.List()
	placed := slices.ContainsFunc(list, func(m *raft.SnapshotMeta) bool { return m.ID == id })
	if vfs.OutOfFiles(err) || full && lerr == nil && !placed {
		return
	}
	g.fail(err)
}

type guardedSink struct {
	raft.SnapshotSink
	store guardedSnapshots
}

// Write implements raft.SnapshotSink.
func (s guardedSink) Write(b []byte) (int, error) {
	n, err := s.SnapshotSink.Write(b)
	if err != nil {
		s.store.judge(s.ID(), err)
	}
	return n, err
}

// Close implements raft.SnapshotSink.
func (s guardedSink) Close() error {
	err := s.SnapshotSink.Close()
	if err != nil {
		s.store.judge(s.ID(), err)
	}
	return err
}
