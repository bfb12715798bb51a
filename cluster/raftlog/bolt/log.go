// Package bolt is how programs before this one kept what Raft writes: the catalog's log and all
// votes in bbolt files (raft-boltdb), the catalog's snapshots in files of hashicorp/raft's own.
//
// You are here: beside package raftlog, into whose files Migrate brings what it finds. Nothing else
// in the product opens such a file. What was written long ago is as hostile as what comes over a
// wire: bbolt trusts its pages, so they are looked through first (check), and read with guard. Log
// is also the reference that tests hold raftlog against.
package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Log is a raft.LogStore in one raft-boltdb file.
type Log struct {
	summed
	path      string
	snapshots raft.SnapshotStore
}

// GetLog implements raft.LogStore.
func (l *Log) GetLog(index uint64, out *raft.Log) error {
	return guarded(l.path, func() error {
		return raftlog.SnapshotTerm{LogStore: l.summed, Snapshots: l.snapshots}.GetLog(index, out)
	})
}

// OpenLog opens or creates the log in the file path, of a raft group whose snapshots are there (see
// raftlog.SnapshotTerm; nil: none). It fails when another process has the file open, and with
// raftlog.ErrDamaged if something in it is not what was written.
func OpenLog(path string, snapshots raft.SnapshotStore) (*Log, error) {
	return open(path, snapshots, options())
}

func open(path string, snapshots raft.SnapshotStore, how *bbolt.Options) (*Log, error) {
	if err := check(path); err != nil {
		return nil, fmt.Errorf("open raft log: %w", err)
	}
	var indexes []uint64
	if err := guarded(path, func() (err error) { indexes, err = indexesIn(path); return err }); err != nil {
		return nil, fmt.Errorf("open raft log %s: %w", path, err)
	}
	store, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: how, MsgpackUseNewTimeFormat: true})
	if err != nil {
		return nil, fmt.Errorf("open raft log %s: %w", path, err)
	}
	l := &Log{summed: summed{store}, path: path, snapshots: snapshots}
	if err := guarded(path, func() error { return l.check(indexes) }); err != nil {
		return nil, errors.Join(fmt.Errorf("open raft log %s: %w", path, err), l.Close())
	}
	return l, nil
}

// IsMonotonic implements raft.MonotonicLogStore. Raft then empties the log when it installs a
// snapshot. Otherwise it keeps entries below the snapshot's end (raft.go, installSnapshot) that may
// be those of a leader which was deposed before they were committed, with a hole behind them, and a
// node sends what its log has when it leads.
func (l *Log) IsMonotonic() bool { return true }

// check reads all entries; indexes are those that the file has.
func (l *Log) check(indexes []uint64) error {
	// a log from before IsMonotonic may have a hole up to a snapshot that was installed
	covered := uint64(0)
	if l.snapshots != nil {
		if list, err := l.snapshots.List(); err == nil && len(list) > 0 {
			covered = list[0].Index
		}
	}
	all := false
	for i, index := range indexes {
		if i > 0 && index != indexes[i-1]+1 && index > covered+1 {
			return fmt.Errorf("%w: a hole between entries %d and %d", raftlog.ErrDamaged, indexes[i-1], index)
		}
		has, err := l.summed.get(index, new(raft.Log))
		if all = all || has; all && !has && err == nil {
			err = fmt.Errorf("%w: entry %d has no CRC, and one before it has", raftlog.ErrDamaged, index)
		}
		if err != nil && !errors.Is(err, raftlog.ErrDamaged) {
			err = fmt.Errorf("%w: entry %d: %w", raftlog.ErrDamaged, index, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// indexesIn gives the keys of the entries in a file of raft-boltdb.
func indexesIn(path string) (indexes []uint64, err error) {
	if info, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil, nil
	}
	db, err := bbolt.Open(path, 0o600, readOptions())
	if err != nil {
		return nil, err
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket([]byte("logs"))
		if bucket == nil {
			return nil
		}
		return bucket.ForEach(func(key, _ []byte) error {
			if len(key) != 8 {
				return fmt.Errorf("%w: a key of %d bytes", raftlog.ErrDamaged, len(key))
			}
			indexes = append(indexes, binary.BigEndian.Uint64(key))
			return nil
		})
	})
	return indexes, err
}

// summed is a log whose entries have a CRC-32C, behind their extensions and a mark.
type summed struct{ *raftboltdb.BoltStore }

var sumMark = []byte("\xffcrc32c\x00")

func sumOf(entry *raft.Log, extensions []byte) uint32 {
	le := binary.LittleEndian
	head := le.AppendUint64(le.AppendUint64(nil, entry.Index), entry.Term)
	head = le.AppendUint64(append(head, byte(entry.Type)), uint64(len(entry.Data)))
	if !entry.AppendedAt.IsZero() {
		head = le.AppendUint64(head, uint64(entry.AppendedAt.UnixNano()))
	}
	crc := crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, entry.Data)
	return crc32.Update(crc, castagnoli, extensions)
}

func (s summed) StoreLog(entry *raft.Log) error { return s.StoreLogs([]*raft.Log{entry}) }

func (s summed) StoreLogs(entries []*raft.Log) error {
	with := make([]*raft.Log, len(entries))
	for i, entry := range entries {
		e := *entry
		e.Extensions = append(bytes.Clone(entry.Extensions), sumMark...)
		e.Extensions = binary.LittleEndian.AppendUint32(e.Extensions, sumOf(entry, entry.Extensions))
		with[i] = &e
	}
	return s.BoltStore.StoreLogs(with)
}

func (s summed) GetLog(index uint64, out *raft.Log) error {
	_, err := s.get(index, out)
	return err
}

// get is GetLog, and reports whether the entry has a CRC: those from before there were any have
// none.
func (s summed) get(index uint64, out *raft.Log) (has bool, err error) {
	if err := s.BoltStore.GetLog(index, out); err != nil {
		return false, err
	}
	at := len(out.Extensions) - len(sumMark) - 4
	has = at >= 0 && bytes.HasPrefix(out.Extensions[at:], sumMark)
	if out.Index != index || has && binary.LittleEndian.Uint32(out.Extensions[at+len(sumMark):]) != sumOf(out, out.Extensions[:at]) {
		return has, fmt.Errorf("%w: entry %d is not what was written", raftlog.ErrDamaged, index)
	}
	if has {
		out.Extensions = out.Extensions[:at:at]
		if at == 0 {
			out.Extensions = nil
		}
	}
	return has, nil
}

// lockTimeout bounds the wait for another process that holds a file open.
const lockTimeout = 2 * time.Second

func options() *bbolt.Options {
	return &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType, NoFreelistSync: true}
}

// readOptions are those of a file that nothing is changed of.
func readOptions() *bbolt.Options {
	o := options()
	o.ReadOnly = true
	return o
}
