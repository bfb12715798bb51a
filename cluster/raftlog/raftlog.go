// Package raftlog holds what Raft writes to disk: the log of each group, and
// the votes and terms of all groups of a node.
//
// You are here: below package cluster, which reads partitions through Log and
// hands the same Log to hashicorp/raft. This package knows Raft entries and
// files; it does not know offsets, topics or replicas.
//
// The log of a partition is a folder of segments (Store.OpenLog, FORMAT.md), that of the
// catalog a raft-boltdb file (OpenBolt). Votes and terms of all groups of a node are in one file
// (OpenStable), so that an election of many groups is not a sync per group.
package raftlog

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// Log is what a replica needs of the log of its group: what Raft writes, and a
// way to read committed entries in order. StoreLogs returns only when its
// entries are on stable storage. GetLog of an entry that is not there returns
// exactly raft.ErrLogNotFound: any other error stalls replication silently.
type Log interface {
	raft.LogStore

	// Scan calls fn for the entries from index from upward, in order and without
	// a hole, until fn returns false or the last entry was passed. The entry and
	// its Data are the callee's to keep. It takes no lock that delays StoreLogs.
	Scan(from uint64, fn func(*raft.Log) bool) error

	// Close releases the files. No call may be under way.
	Close() error
}

// Bolt is a Log in one raft-boltdb file.
type Bolt struct {
	*raftboltdb.BoltStore
	snapshots raft.SnapshotStore
}

// GetLog implements raft.LogStore.
func (b *Bolt) GetLog(index uint64, out *raft.Log) error {
	return SnapshotTerm{b.BoltStore, b.snapshots}.GetLog(index, out)
}

// lockTimeout bounds the wait for another process that holds a file open.
const lockTimeout = 2 * time.Second

func boltOptions() *bbolt.Options {
	return &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType, NoFreelistSync: true}
}

// OpenBolt opens or creates the log in the file path, of a group whose snapshots are
// there (see SnapshotTerm; nil: none). It fails when another process has the file open.
func OpenBolt(path string, snapshots raft.SnapshotStore) (*Bolt, error) {
	store, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: boltOptions(), MsgpackUseNewTimeFormat: true})
	if err != nil {
		return nil, fmt.Errorf("open raft log %s: %w", path, err)
	}
	return &Bolt{store, snapshots}, nil
}

// IsMonotonic implements raft.MonotonicLogStore. Raft then empties the log when it installs a snapshot. Otherwise it keeps
// entries below the snapshot's end (raft.go, installSnapshot) that may be those of a leader which was deposed before they
// were committed, with a hole behind them, and a node sends what its log has when it leads.
func (b *Bolt) IsMonotonic() bool { return true }

// Scan implements Log.
func (b *Bolt) Scan(from uint64, fn func(*raft.Log) bool) error {
	for index := from; ; index++ {
		entry := new(raft.Log)
		switch err := b.GetLog(index, entry); {
		case errors.Is(err, raft.ErrLogNotFound):
			return nil
		case err != nil:
			return fmt.Errorf("read raft log entry %d: %w", index, err)
		}
		if !fn(entry) {
			return nil
		}
	}
}
