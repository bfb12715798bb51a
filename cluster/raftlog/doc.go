// Package raftlog holds what Raft writes to disk: the log of each raft group, and the votes and
// terms of all raft groups of a node.
//
// You are here: below package cluster, which reads partitions through PartitionLog and hands the
// same to hashicorp/raft as its Log. This package knows Raft entries and files; it does not know
// offsets' meaning, topics or replicas.
//
// A log is a folder of segments (Store.OpenLog, FORMAT.md); that of the catalog is one, too, but
// for who says what a snapshot is (WholeLog). Votes and terms of all raft groups of a node are in
// one file (Store.OpenStable), so that an election of many raft groups is not a sync per group.
// What earlier programs kept in bbolt files package raftlog/bolt reads, and Store.Import and
// Store.ImportVotes take over.
//
// From below:
//
//   - disk: files, opened, made and synced; the first sync that fails ends the store (disk.go,
//     handles.go)
//   - segment, index, manifest: what the files are (segment.go, frame.go, index….go, manifest.go)
//   - journal: the small appends of all partitions in one sync (journal….go); cache: the newest
//     entries
//   - Store: one of each of these, and a ledger of the logs that are open
//   - view: what one log consists of at this moment, in memory (view….go); recovery makes it from
//     the disk
//   - tail: appends and cuts, for Raft; retention: ends and frees segments, for the partition;
//     snapshots; Staging: what is copied from another replica, and taken over by
//     PartitionLog.Adopt; installer: takes another member's snapshot in place of everything, for a
//     WholeLog. All of these change files, one at a time: see turn
//   - entries: reads by Raft's index; gate: keeps damage from Raft; offsets and Reader: read by the
//     partition's offset; scrubber: reads what nobody reads
//   - PartitionLog: these together; Archive: the logs of a stopped node, to look at
//   - Stable: votes and terms; it shares nothing with the logs but the disk (stable.go, votes….go)
//
// # Locks
//
// In this order, which race builds check (package internal/locks); each says beside it what it
// guards:
//
//	turn.mu               of a log                                  held over I/O
//	turn.staging          of what is staged for it                  held over I/O
//	Stable.writing        by whoever stores votes                   held over I/O
//	index.writing         of a segment's index                      held over I/O
//	fileHandle.opening    while a file is opened                    held over I/O
//	fileHandle.syncing    while a file is synced                    held over I/O
//	space.mu              while the disk is asked for its space     held over I/O
//	view.mu, index.mu, handles.mu, memberCache.mu, cache.mu, spots.mu, ledger.mu, journal.mu,
//	journalFiles.mu, readOnly.mu, Stable.mu, Stable.state
//	                      in memory; none is taken under another of these
//
// Nothing is waited for and no file touched under those of the last raft group, which are the ones
// that readers take. What readers see changes after the disk has it (an append, a snapshot that
// replaces the log) or before the disk loses it (a cut), under view.mu alone. A reader waits at
// index.writing only to check an index that this process has not written, once, and at
// fileHandle.opening only for the file that it wants. Who writes the journal has the turn of its
// own log, as those have who wait for it; flushes hold no lock while they write and sync.
package raftlog
