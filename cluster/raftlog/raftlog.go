package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
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
	store     *raftboltdb.BoltStore
	snapshots raft.SnapshotStore
	*boltGuard

	serving atomic.Bool // Raft runs: errors it cannot bear are kept from it
	abandon chan struct{}
	left    sync.Once
}

// Serving says that Raft runs: an entry that cannot be read then fails the file, and Raft waits for the group to be closed. It
// panics on an entry that it is to apply and cannot read (invariant 9).
func (b *Bolt) Serving() { b.serving.Store(true) }

// Abandon lets go of calls of Raft that wait. The group's transport must be closed and its shutdown
// begun: what they get is not what was written.
func (b *Bolt) Abandon() { b.left.Do(func() { close(b.abandon) }) }

// GetLog implements raft.LogStore.
func (b *Bolt) GetLog(index uint64, out *raft.Log) error {
	err := b.read(func() error {
		return SnapshotTerm{summed{b.store}, b.snapshots}.GetLog(index, out)
	})
	if err == nil || errors.Is(err, raft.ErrLogNotFound) || !b.serving.Load() {
		return err
	}
	b.fail(err)
	<-b.abandon
	*out = raft.Log{Index: index, Type: raft.LogNoop}
	return nil
}

// StoreLog implements raft.LogStore.
func (b *Bolt) StoreLog(entry *raft.Log) error { return b.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (b *Bolt) StoreLogs(entries []*raft.Log) error {
	return b.write(func() error { return summed{b.store}.StoreLogs(entries) })
}

// DeleteRange implements raft.LogStore.
func (b *Bolt) DeleteRange(from, to uint64) error {
	return b.write(func() error { return b.store.DeleteRange(from, to) })
}

// FirstIndex implements raft.LogStore.
func (b *Bolt) FirstIndex() (index uint64, err error) {
	err = b.read(func() error { index, err = b.store.FirstIndex(); return err })
	return index, err
}

// LastIndex implements raft.LogStore.
func (b *Bolt) LastIndex() (index uint64, err error) {
	err = b.read(func() error { index, err = b.store.LastIndex(); return err })
	return index, err
}

// Close implements Log.
func (b *Bolt) Close() error { return b.close(b.store.Close) }

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

// get is GetLog, and reports whether the entry has a CRC: those from before there were any have none.
func (s summed) get(index uint64, out *raft.Log) (has bool, err error) {
	if err := s.BoltStore.GetLog(index, out); err != nil {
		return false, err
	}
	at := len(out.Extensions) - len(sumMark) - 4
	has = at >= 0 && bytes.HasPrefix(out.Extensions[at:], sumMark)
	if out.Index != index || has && binary.LittleEndian.Uint32(out.Extensions[at+len(sumMark):]) != sumOf(out, out.Extensions[:at]) {
		return has, fmt.Errorf("%w: entry %d is not what was written", ErrDamaged, index)
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

func boltOptions() *bbolt.Options {
	return &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType, NoFreelistSync: true}
}

// OpenBolt opens or creates the log in the file path, of a group whose snapshots are
// there (see SnapshotTerm; nil: none). It fails when another process has the file open, and with ErrDamaged if
// something in it is not what was written.
func OpenBolt(path string, snapshots raft.SnapshotStore) (*Bolt, error) {
	if err := checkBolt(path); err != nil {
		return nil, fmt.Errorf("open raft log: %w", err)
	}
	indexes, err := boltIndexes(path)
	if err != nil {
		return nil, fmt.Errorf("open raft log %s: %w", path, err)
	}
	store, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: boltOptions(), MsgpackUseNewTimeFormat: true})
	if err != nil {
		return nil, fmt.Errorf("open raft log %s: %w", path, err)
	}
	b := &Bolt{store: store, snapshots: snapshots, boltGuard: &boltGuard{path: path}, abandon: make(chan struct{})}
	if err := b.read(func() error { return b.check(indexes) }); err != nil {
		return nil, errors.Join(fmt.Errorf("open raft log %s: %w", path, err), b.Close())
	}
	return b, nil
}

// check reads all entries; indexes are those that the file has.
func (b *Bolt) check(indexes []uint64) error {
	covered := uint64(0) // a log from before IsMonotonic may have a hole up to a snapshot that was installed
	if b.snapshots != nil {
		if list, err := b.snapshots.List(); err == nil && len(list) > 0 {
			covered = list[0].Index
		}
	}
	all := false
	for i, index := range indexes {
		if i > 0 && index != indexes[i-1]+1 && index > covered+1 {
			return fmt.Errorf("%w: a hole between entries %d and %d", ErrDamaged, indexes[i-1], index)
		}
		has, err := summed{b.store}.get(index, new(raft.Log))
		if all = all || has; all && !has && err == nil {
			err = fmt.Errorf("%w: entry %d has no CRC, and one before it has", ErrDamaged, index)
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			err = fmt.Errorf("%w: entry %d: %w", ErrDamaged, index, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// boltIndexes gives the keys of the entries in a file of raft-boltdb.
func boltIndexes(path string) (indexes []uint64, err error) {
	if info, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil, nil
	}
	options := boltOptions()
	options.ReadOnly = true
	db, err := bbolt.Open(path, 0o600, options)
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
				return fmt.Errorf("%w: a key of %d bytes", ErrDamaged, len(key))
			}
			indexes = append(indexes, binary.BigEndian.Uint64(key))
			return nil
		})
	})
	return indexes, err
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
