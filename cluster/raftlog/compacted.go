package raftlog

import (
	"encoding/binary"

	"github.com/hashicorp/raft"
)

// An entry below Raft's window of which compaction has taken records says so in its extensions, and
// so it goes to other replicas that copy it: an offset behind it that its data no longer lead to.
// One of which nothing is left stands for the entries in front of it that are like it, too: it has
// the index of the last, and they had its term and its extensions. So terms by offset are known for
// ever, and what the extensions say.
//
//	kind 2 (1), next offset behind it 8, entries that it stands for 4; little endian; then the
//	extensions that it was appended with
//
// Kinds of extensions that entries are appended with are the state machine's (fsm.StampOf); none
// is 2.
const (
	compactedKind = 2
	compactedSize = 13
)

// CompactedEntry is what an entry says of what is gone of it.
type CompactedEntry struct {
	Compacted bool
	After     int64  // next offset behind it
	Run       uint32 // how many entries it stands for; 1 if it has data
	Data      bool   // something is left
	// Extensions are those that it was appended with, as a part of the entry's.
	Extensions []byte
}

// Compacted reads what compaction has noted in an entry.
func Compacted(entry *raft.Log) (c CompactedEntry) {
	b := entry.Extensions
	if len(b) < compactedSize || b[0] != compactedKind {
		return CompactedEntry{Run: 1, Extensions: b}
	}
	le := binary.LittleEndian
	c = CompactedEntry{true, int64(le.Uint64(b[1:])), max(le.Uint32(b[9:]), 1), len(entry.Data) > 0, b[compactedSize:]}
	if c.Data || uint64(c.Run) > entry.Index {
		c.Run = 1
	}
	return c
}

// gap is how many entries it stands for if it is a run of entries without records, else 0.
func (c CompactedEntry) gap() uint32 {
	if !c.Compacted || c.Data {
		return 0
	}
	return c.Run
}

// firstOf is the index of the first entry that one stands for.
func firstOf(entry *raft.Log) uint64 { return entry.Index - uint64(Compacted(entry).Run-1) }

// note makes an entry one that compaction has taken records of.
func (c CompactedEntry) note(entry *raft.Log) {
	le := binary.LittleEndian
	b := append(make([]byte, 0, compactedSize+len(c.Extensions)), compactedKind)
	b = le.AppendUint64(b, uint64(c.After))
	b = le.AppendUint32(b, c.Run)
	entry.Extensions = append(b, c.Extensions...)
}
