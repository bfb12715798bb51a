package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/catalog"
	"github.com/trimaran-io/trimaran/cluster/identity"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// LogDir is the data directory of a stopped node, to be looked at. Nothing in it is
// changed. The node cannot start while it is open.
type LogDir struct {
	lock    *os.File
	archive *raftlog.Archive
	only    string // the log that the path named; "": all
	old     bool   // votes and catalog are in files of an older program
}

// errOldFiles is the answer to what only files of this program tell.
var errOldFiles = errors.New("votes and catalog are in files of an older program (votes.db, catalog/raft.db); the next start of the node brings them over")

// OpenLogDir opens a node's data directory, or one log's folder in it. It
// fails when a node runs on it.
func OpenLogDir(path string) (*LogDir, error) {
	d := &LogDir{}
	if _, err := os.Stat(filepath.Join(path, "manifest")); err == nil {
		full, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		path, d.only = filepath.Dir(full), filepath.Base(full)
		if d.only != catalog.Group {
			path = filepath.Dir(path)
		}
	}
	lock, err := os.Open(filepath.Join(path, "LOCK"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s is no node's data directory: it has no file LOCK", path)
	}
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("data directory %s is in use by another process; stop the node first: %w", path, err)
	}
	if d.old = isOld(path); d.old && d.only == catalog.Group {
		lock.Close()
		return nil, errOldFiles // what is there is of a start that was cut short
	}
	if d.archive, err = raftlog.OpenArchive(path); err != nil {
		lock.Close()
		return nil, err
	}
	d.lock = lock
	return d, nil
}

// isOld reports whether node.json says that the files of an older program count. Without it the
// directory is looked at as far as it goes.
func isOld(dir string) bool {
	var file identity.File
	b, err := os.ReadFile(filepath.Join(dir, "node.json"))
	return err == nil && json.Unmarshal(b, &file) == nil && file.Old()
}

// Close lets the node start again.
func (d *LogDir) Close() error { return d.lock.Close() }

// JournalErr says what is wrong with the node's journal, if anything.
func (d *LogDir) JournalErr() error { return d.archive.JournalErr }

// Partitions gives the names of the partitions' folders, topic id and number, and
// the bytes of all their segments. Of the catalog's folder it gives that name.
func (d *LogDir) Partitions() (names []string, bytes int64, err error) {
	if d.only == catalog.Group {
		return []string{d.only}, 0, nil
	}
	all, sizes, err := d.archive.Groups()
	if err != nil {
		return nil, 0, err
	}
	for _, name := range all {
		if d.only != "" && name != d.only || strings.HasSuffix(name, ".deleted") {
			continue
		}
		names = append(names, name)
		bytes += sizes[name]
	}
	return names, bytes, nil
}

// Describe gives a partition's segments.
func (d *LogDir) Describe(name string) (*raftlog.ArchivedLog, error) { return d.archive.Describe(name) }

// Verify reads all of a partition and gives what is wrong. progress, which may be
// nil, is told of bytes read.
func (d *LogDir) Verify(name string, progress func(int64)) (raftlog.Verified, []error) {
	if name == catalog.Group {
		return d.archive.Verify(name, catalogSpan, nil, progress)
	}
	var bad []error
	id, err := fsm.ParsePartitionID(name)
	if err != nil {
		bad = append(bad, err)
	}
	found, more := d.archive.Verify(name, replica.SpanOf(id), checkEntry, progress)
	return found, append(bad, more...)
}

// VerifyOwn gives what is wrong with what the node keeps for itself: the catalog's log and the
// votes. The files of an older program are verified when they are brought over.
func (d *LogDir) VerifyOwn() (bad []error) {
	if d.only != "" || d.old {
		return nil
	}
	votes, err := d.archive.Votes()
	if err != nil {
		bad = append(bad, err)
	}
	for _, v := range votes {
		if v.Damaged != "" {
			bad = append(bad, fmt.Errorf("votes of %s: %s (the node copies it from others when it starts)", v.Group, v.Damaged))
		}
	}
	if d.archive.HasCatalog() {
		_, wrong := d.Verify(catalog.Group, nil)
		for _, err := range wrong {
			bad = append(bad, fmt.Errorf("catalog: %w", err))
		}
	}
	return bad
}

// Votes gives what the node has voted, by group.
func (d *LogDir) Votes() ([]raftlog.ArchivedVotes, error) {
	if d.old {
		return nil, errOldFiles
	}
	return d.archive.Votes()
}

// checkEntry checks the batches of an entry of records.
func checkEntry(entry *raft.Log) error {
	if entry.Type != raft.LogCommand || !fsm.IsRecords(entry.Data) {
		return nil
	}
	for batch, err := range kafkaproto.Batches(entry.Data) {
		if err == nil {
			err = batch.CheckCRC()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// DumpedEntry is one entry of a log.
type DumpedEntry struct {
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
	// "records", "groups", "catalog", "log start", "control", "configuration", "noop", "barrier"
	Kind    string        `json:"kind"`
	Pos     int64         `json:"position"`
	Bytes   int           `json:"bytes"`
	At      int64         `json:"appended_at"` // ms, the leader's clock; 0: not known
	Start   int64         `json:"log_start,omitempty"`
	Batches []DumpedBatch `json:"batches,omitempty"`
	Error   string        `json:"error,omitempty"`
}

// DumpedBatch is one record batch.
type DumpedBatch struct {
	BaseOffset    int64                   `json:"base_offset"`
	LastOffset    int64                   `json:"last_offset"`
	Records       int32                   `json:"records"`
	Bytes         int                     `json:"bytes"`
	LeaderEpoch   int32                   `json:"leader_epoch"`
	Codec         string                  `json:"codec"`
	BaseTimestamp int64                   `json:"base_timestamp"`
	MaxTimestamp  int64                   `json:"max_timestamp"`
	ProducerID    int64                   `json:"producer_id"`
	ProducerEpoch int16                   `json:"producer_epoch"`
	BaseSequence  int32                   `json:"base_sequence"`
	List          []kafkaproto.RecordInfo `json:"list,omitempty"`
	Error         string                  `json:"error,omitempty"`
}

// Entries calls fn for the entries of the segment that begins with Raft index
// base, with their records if those are wanted.
func (d *LogDir) Entries(name string, base uint64, records bool, fn func(DumpedEntry) error) error {
	return d.archive.Entries(name, base, func(pos int64, entry *raft.Log) error {
		e := entry
		if name == catalog.Group && entry.Type == raft.LogCommand {
			// no records
			e = &raft.Log{Index: entry.Index, Term: entry.Term, Type: entry.Type, AppendedAt: entry.AppendedAt}
		}
		dumped := dumpEntry(pos, e, records)
		if e != entry {
			dumped.Kind, dumped.Bytes = catalog.Group, len(entry.Data)
		}
		return fn(dumped)
	})
}

func dumpEntry(pos int64, entry *raft.Log, records bool) DumpedEntry {
	e := DumpedEntry{Index: entry.Index, Term: entry.Term, Kind: "control", Pos: pos, Bytes: len(entry.Data)}
	if !entry.AppendedAt.IsZero() {
		e.At = entry.AppendedAt.UnixMilli()
	}
	switch {
	case entry.Type == raft.LogConfiguration:
		e.Kind = "configuration"
	case entry.Type == raft.LogNoop:
		e.Kind = "noop"
	case entry.Type == raft.LogBarrier:
		e.Kind = "barrier"
	case entry.Type != raft.LogCommand:
		e.Kind = entry.Type.String()
	case fsm.IsRecords(entry.Data):
		e.Kind = "records"
		for batch, err := range kafkaproto.Batches(entry.Data) {
			if err != nil {
				e.Error = err.Error()
				break
			}
			e.Batches = append(e.Batches, dumpBatch(batch, records))
		}
	default:
		if start, ok := fsm.ParseLogStart(entry.Data); ok {
			e.Kind, e.Start = "log start", int64(start)
		} else if fsm.IsShardEntry(entry.Data) {
			e.Kind = "groups"
		}
	}
	return e
}

func dumpBatch(batch kafkaproto.Batch, records bool) DumpedBatch {
	h := batch.Header()
	b := DumpedBatch{
		BaseOffset: h.BaseOffset, LastOffset: h.LastOffset(), Records: h.Records, Bytes: batch.Size(), LeaderEpoch: h.LeaderEpoch,
		Codec: h.Codec().String(), BaseTimestamp: h.BaseTimestamp, MaxTimestamp: h.MaxTimestamp,
		ProducerID: h.ProducerID, ProducerEpoch: h.ProducerEpoch, BaseSequence: h.BaseSequence,
	}
	err := batch.CheckCRC()
	if err == nil && records {
		err = batch.EachRecord(func(r kafkaproto.RecordInfo) { b.List = append(b.List, r) })
	}
	if err != nil {
		b.Error = err.Error()
	}
	return b
}
