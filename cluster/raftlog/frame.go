package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/hashicorp/raft"
)

// The bytes of an entry on disk; FORMAT.md tells why.
const (
	frameHeader = 40 // of format 1, and between nodes
	stampBytes  = 8  // more in format 2
	frameAlign  = 8

	// maxPayload bounds the data of one entry, and what a damaged length makes us read.
	maxPayload = 256 << 20
	maxExtra   = 1<<16 - 1

	flagCallStart = 1 // the first entry of a StoreLogs call
	flagGap       = 2 // it stands for a run of entries without records, see Compacted
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamaged is in every error about bytes on disk that are not what was written.
var ErrDamaged = errors.New("damaged log")

// framing is how the entries of a segment are laid out. The zero value is that of format 1.
type framing struct {
	stamped bool   // format 2: each entry has a stamp
	secret  uint64 // of the segment; no client can know it
}

// header is the size of an entry's header.
func (fr framing) header() int {
	if fr.stamped {
		return frameHeader + stampBytes
	}
	return frameHeader
}

// size is what the entry takes in the file.
func (fr framing) size(entry *raft.Log) int64 {
	n := int64(fr.header() + len(entry.Data) + len(entry.Extensions))
	return (n + frameAlign - 1) &^ (frameAlign - 1)
}

// stamp is what binds an entry to its segment and to its position in it.
func stamp(secret uint64, pos int64) uint64 { return secret + uint64(pos) }

// frame is the header of an entry.
type frame struct {
	crc      uint32 // over the rest of the header and what follows it
	chain    uint32 // crc of the entry before; the segment's seed for the first
	data     uint32 // bytes
	extra    uint16 // bytes of raft.Log.Extensions, behind the data
	kind     raft.LogType
	flags    uint8
	index    uint64 // of the last entry that it stands for
	run      uint32 // entries that it stands for: one, unless it is a gap
	term     uint64
	appended int64 // ns since 1970, by the leader's clock; 0 for none
	header   int   // bytes
}

// size is what the entry takes in the file.
func (f *frame) size() int64 {
	n := int64(f.header) + int64(f.data) + int64(f.extra)
	return (n + frameAlign - 1) &^ (frameAlign - 1)
}

// first is the index of the first entry that it stands for.
func (f *frame) first() uint64 { return f.index - uint64(f.run-1) }

// holds reports whether it is the entry of that index, or stands for it.
func (f *frame) holds(index uint64) bool { return f.first() <= index && index <= f.index }

// sum is the CRC of the entry, b[:f.size()] being all of it.
func (f *frame) sum(b []byte) uint32 {
	return crc32.Checksum(b[4:f.header+int(f.data)+int(f.extra)], castagnoli)
}

// appendFrame appends the entry as it is written at pos, and gives its CRC.
func appendFrame(dst []byte, fr framing, pos int64, entry *raft.Log, chain uint32, flags uint8) ([]byte, uint32, error) {
	start := len(dst)
	dst, crc, err := appendHeader(dst, fr, pos, entry, chain, flags)
	if err != nil {
		return dst, 0, err
	}
	dst = append(dst, entry.Data...)
	dst = append(dst, entry.Extensions...)
	return appendPadding(dst, len(dst)-start), crc, nil
}

// appendHeader appends the entry's header alone, and gives the entry's CRC.
func appendHeader(dst []byte, fr framing, pos int64, entry *raft.Log, chain uint32, flags uint8) ([]byte, uint32, error) {
	if len(entry.Data) > maxPayload || len(entry.Extensions) > maxExtra {
		return dst, 0, fmt.Errorf("raft log entry %d has %d + %d bytes, the log takes %d + %d", entry.Index, len(entry.Data), len(entry.Extensions), maxPayload, maxExtra)
	}
	start := len(dst)
	le := binary.LittleEndian
	dst = append(dst, 0, 0, 0, 0)
	dst = le.AppendUint32(dst, chain)
	size := uint32(len(entry.Data))
	if gap := Compacted(entry).gap(); gap > 0 {
		size, flags = gap, flags|flagGap
	}
	dst = le.AppendUint32(dst, size)
	dst = le.AppendUint16(dst, uint16(len(entry.Extensions)))
	dst = append(dst, byte(entry.Type), flags)
	dst = le.AppendUint64(dst, entry.Index)
	dst = le.AppendUint64(dst, entry.Term)
	var at int64
	if !entry.AppendedAt.IsZero() {
		at = entry.AppendedAt.UnixNano()
	}
	dst = le.AppendUint64(dst, uint64(at))
	if fr.stamped {
		dst = le.AppendUint64(dst, stamp(fr.secret, pos))
	}
	crc := crc32.Update(crc32.Checksum(dst[start+4:], castagnoli), castagnoli, entry.Data)
	crc = crc32.Update(crc, castagnoli, entry.Extensions)
	le.PutUint32(dst[start:], crc)
	return dst, crc, nil
}

var padding [frameAlign]byte

// appendPadding fills up an entry of that size.
func appendPadding(dst []byte, size int) []byte {
	return append(dst, padding[:-size&(frameAlign-1)]...)
}

// parseFrame reads the header of an entry that is at pos. The error says that it can be none; its
// CRC is not verified yet.
func parseFrame(b []byte, fr framing, pos int64) (frame, error) {
	if len(b) < fr.header() {
		return frame{}, fmt.Errorf("%w: %d bytes are no entry", ErrDamaged, len(b))
	}
	le := binary.LittleEndian
	f := frame{
		crc: le.Uint32(b), chain: le.Uint32(b[4:]), data: le.Uint32(b[8:]), extra: le.Uint16(b[12:]),
		kind: raft.LogType(b[14]), flags: b[15],
		index: le.Uint64(b[16:]), term: le.Uint64(b[24:]), appended: int64(le.Uint64(b[32:])),
		run: 1, header: fr.header(),
	}
	if f.flags&flagGap != 0 {
		f.run, f.data = f.data, 0
	}
	if fr.stamped {
		// First of all: what has another one was never written here, and its lengths mean nothing.
		if le.Uint64(b[frameHeader:]) != stamp(fr.secret, pos) {
			return frame{}, fmt.Errorf("%w: no entry of this segment is at position %d", ErrDamaged, pos)
		}
	}
	if f.data > maxPayload || f.index == 0 || f.run == 0 || uint64(f.run) > f.index {
		return frame{}, fmt.Errorf("%w: an entry of index %d with %d bytes, one of %d", ErrDamaged, f.index, f.data, f.run)
	}
	return f, nil
}

// verify checks header and content, b[:f.size()] being the whole entry.
func (f *frame) verify(b []byte) error {
	if got := f.sum(b); got != f.crc {
		return fmt.Errorf("%w: entry %d: CRC %08x, its bytes give %08x", ErrDamaged, f.index, f.crc, got)
	}
	return nil
}

// entry gives the Raft entry; data and extensions alias b.
func (f *frame) entry(b []byte) raft.Log {
	end := f.header + int(f.data)
	data := b[f.header:end:end]
	log := raft.Log{Index: f.index, Term: f.term, Type: f.kind, Data: data}
	if f.extra > 0 {
		log.Extensions = b[end : end+int(f.extra)]
	}
	if f.appended != 0 {
		log.AppendedAt = time.Unix(0, f.appended)
	}
	return log
}
