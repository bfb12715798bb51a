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
	frameHeader = 40
	frameAlign  = 8

	// maxPayload bounds the data of one entry, and what a damaged length makes us read.
	maxPayload = 256 << 20
	maxExtra   = 1<<16 - 1

	flagCallStart = 1 // the first entry of a StoreLogs call
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamaged is in every error about bytes on disk that are not what was written.
var ErrDamaged = errors.New("damaged log")

// frame is the header of an entry.
type frame struct {
	crc      uint32 // over the rest of the header and what follows it
	chain    uint32 // crc of the entry before; the segment's seed for the first
	data     uint32 // bytes
	extra    uint16 // bytes of raft.Log.Extensions, behind the data
	kind     raft.LogType
	flags    uint8
	index    uint64
	term     uint64
	appended int64 // ns since 1970, by the leader's clock; 0 for none
}

// size is what the entry takes in the file.
func (f *frame) size() int64 {
	n := int64(frameHeader) + int64(f.data) + int64(f.extra)
	return (n + frameAlign - 1) &^ (frameAlign - 1)
}

func frameSize(entry *raft.Log) int64 {
	n := int64(frameHeader + len(entry.Data) + len(entry.Extensions))
	return (n + frameAlign - 1) &^ (frameAlign - 1)
}

// appendFrame appends the entry as it is written, and gives its CRC.
func appendFrame(dst []byte, entry *raft.Log, chain uint32, flags uint8) ([]byte, uint32, error) {
	start := len(dst)
	dst, crc, err := appendHeader(dst, entry, chain, flags)
	if err != nil {
		return dst, 0, err
	}
	dst = append(dst, entry.Data...)
	dst = append(dst, entry.Extensions...)
	return appendPadding(dst, len(dst)-start), crc, nil
}

// appendHeader appends the entry's header alone, and gives the entry's CRC.
func appendHeader(dst []byte, entry *raft.Log, chain uint32, flags uint8) ([]byte, uint32, error) {
	if len(entry.Data) > maxPayload || len(entry.Extensions) > maxExtra {
		return dst, 0, fmt.Errorf("raft log entry %d has %d + %d bytes, the log takes %d + %d", entry.Index, len(entry.Data), len(entry.Extensions), maxPayload, maxExtra)
	}
	start := len(dst)
	le := binary.LittleEndian
	dst = append(dst, 0, 0, 0, 0)
	dst = le.AppendUint32(dst, chain)
	dst = le.AppendUint32(dst, uint32(len(entry.Data)))
	dst = le.AppendUint16(dst, uint16(len(entry.Extensions)))
	dst = append(dst, byte(entry.Type), flags)
	dst = le.AppendUint64(dst, entry.Index)
	dst = le.AppendUint64(dst, entry.Term)
	var at int64
	if !entry.AppendedAt.IsZero() {
		at = entry.AppendedAt.UnixNano()
	}
	dst = le.AppendUint64(dst, uint64(at))
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

// parseFrame reads a header. The error says that it can be none; nothing is
// verified yet.
func parseFrame(b []byte) (frame, error) {
	if len(b) < frameHeader {
		return frame{}, fmt.Errorf("%w: %d bytes are no entry", ErrDamaged, len(b))
	}
	le := binary.LittleEndian
	f := frame{
		crc: le.Uint32(b), chain: le.Uint32(b[4:]), data: le.Uint32(b[8:]), extra: le.Uint16(b[12:]),
		kind: raft.LogType(b[14]), flags: b[15],
		index: le.Uint64(b[16:]), term: le.Uint64(b[24:]), appended: int64(le.Uint64(b[32:])),
	}
	if f.data > maxPayload || f.index == 0 {
		return frame{}, fmt.Errorf("%w: an entry of index %d with %d bytes", ErrDamaged, f.index, f.data)
	}
	return f, nil
}

// verify checks header and content, b[:f.size()] being the whole entry.
func (f *frame) verify(b []byte) error {
	if got := crc32.Checksum(b[4:frameHeader+int(f.data)+int(f.extra)], castagnoli); got != f.crc {
		return fmt.Errorf("%w: entry %d: CRC %08x, its bytes give %08x", ErrDamaged, f.index, f.crc, got)
	}
	return nil
}

// entry gives the Raft entry; data and extensions alias b.
func (f *frame) entry(b []byte) raft.Log {
	data := b[frameHeader : frameHeader+int(f.data) : frameHeader+int(f.data)]
	log := raft.Log{Index: f.index, Term: f.term, Type: f.kind, Data: data}
	if f.extra > 0 {
		log.Extensions = b[frameHeader+int(f.data) : frameHeader+int(f.data)+int(f.extra)]
	}
	if f.appended != 0 {
		log.AppendedAt = time.Unix(0, f.appended)
	}
	return log
}
