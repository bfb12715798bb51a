package raftlog

import "github.com/hashicorp/raft"

// Log is what a replica needs of the log of its raft group: what Raft writes, and a
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
