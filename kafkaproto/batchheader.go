package kafkaproto

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
)

// A record batch (magic 2, KIP-98) opens with a fixed header, all big endian:
//
//	 0  base offset            8   offset of the first record; not under the CRC
//	 8  batch length           4   bytes that follow this field
//	12  partition leader epoch 4   not under the CRC
//	16  magic                  1   2
//	17  CRC-32C                4   over everything from attributes to the end
//	21  attributes             2   codec, timestamp type, transactional, control
//	23  last offset delta      4   offset of the last record minus base offset
//	27  base timestamp         8   milliseconds
//	35  max timestamp          8   milliseconds
//	43  producer id            8   -1: none
//	51  producer epoch         2   -1: none
//	53  base sequence          4   -1: none
//	57  record count           4
//	61  records, compressed as one if a codec is set
//
// Base offset and leader epoch stand outside the CRC so that the leader can
// stamp them without reading the rest.
const (
	// BatchHeaderSize is the size in bytes of a record batch without records.
	BatchHeaderSize = 61

	batchLengthAt       = 8
	batchEpochAt        = 12
	batchMagicAt        = 16
	batchCRCAt          = 17
	batchAttributesAt   = 21
	batchMaxTimestampAt = 35
	batchPrefix         = 12 // bytes that the batch length does not count
	minBatchLength      = BatchHeaderSize - batchPrefix
)

// Bits of a record batch's attributes.
const (
	attrCodecMask     = 0x07
	attrLogAppendTime = 0x08
	attrTransactional = 0x10
	attrControl       = 0x20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// BatchHeader is the header of one record batch (magic 2).
type BatchHeader struct {
	BaseOffset      int64
	Length          int32 // bytes after this field
	LeaderEpoch     int32
	Magic           int8
	CRC             uint32
	Attributes      int16
	LastOffsetDelta int32
	BaseTimestamp   int64 // ms since epoch, -1: none
	MaxTimestamp    int64 // ms since epoch, -1: none
	ProducerID      int64
	ProducerEpoch   int16
	BaseSequence    int32
	Records         int32
}

// Size is the batch's whole size in bytes, header included.
func (h BatchHeader) Size() int { return batchPrefix + int(h.Length) }

// LastOffset is the offset of the batch's last record. The offsets of a batch
// are BaseOffset to LastOffset even if compaction removed some records.
func (h BatchHeader) LastOffset() int64 { return h.BaseOffset + int64(h.LastOffsetDelta) }

// NextOffset is the first offset after the batch.
func (h BatchHeader) NextOffset() int64 { return h.LastOffset() + 1 }

// Codec is how the batch's records are compressed.
func (h BatchHeader) Codec() Codec { return Codec(h.Attributes & attrCodecMask) }

// Control reports whether the batch carries markers of transactions, which
// take offsets but are never given to consumers.
func (h BatchHeader) Control() bool { return h.Attributes&attrControl != 0 }

// Transactional reports whether the batch belongs to a transaction.
func (h BatchHeader) Transactional() bool { return h.Attributes&attrTransactional != 0 }

// BeginsTransactional reports whether b, which may be anything, begins with a record batch that
// says that it belongs to a transaction.
func BeginsTransactional(b []byte) bool {
	return len(b) >= BatchHeaderSize && b[batchMagicAt] == 2 && b[batchAttributesAt+1]&attrTransactional != 0
}

// LogAppendTime reports whether MaxTimestamp is the time of every record.
func (h BatchHeader) LogAppendTime() bool { return h.Attributes&attrLogAppendTime != 0 }

// ParseBatchHeader reads the header at the start of b, which may hold only a
// part of the batch but at least BatchHeaderSize bytes. It checks what the
// header says about itself (magic, length, counts, no negative or overflowing
// offset), not the CRC and not that the whole batch is there. Errors are
// ErrCorrupt or ErrUnknownMagic.
func ParseBatchHeader(b []byte) (BatchHeader, error) {
	if len(b) < BatchHeaderSize {
		return BatchHeader{}, fmt.Errorf("%w: record batch of %d bytes is shorter than its header", ErrCorrupt, len(b))
	}
	be := binary.BigEndian
	h := BatchHeader{
		BaseOffset:      int64(be.Uint64(b)),
		Length:          int32(be.Uint32(b[batchLengthAt:])),
		LeaderEpoch:     int32(be.Uint32(b[batchEpochAt:])),
		Magic:           int8(b[batchMagicAt]),
		CRC:             be.Uint32(b[batchCRCAt:]),
		Attributes:      int16(be.Uint16(b[batchAttributesAt:])),
		LastOffsetDelta: int32(be.Uint32(b[23:])),
		BaseTimestamp:   int64(be.Uint64(b[27:])),
		MaxTimestamp:    int64(be.Uint64(b[batchMaxTimestampAt:])),
		ProducerID:      int64(be.Uint64(b[43:])),
		ProducerEpoch:   int16(be.Uint16(b[51:])),
		BaseSequence:    int32(be.Uint32(b[53:])),
		Records:         int32(be.Uint32(b[57:])),
	}
	switch {
	case h.Magic != 2:
		return h, fmt.Errorf("%w: %d where a record batch (2) is expected", ErrUnknownMagic, h.Magic)
	case h.Length < minBatchLength || h.Length > math.MaxInt32-batchPrefix:
		return h, fmt.Errorf("%w: record batch length %d", ErrCorrupt, h.Length)
	case h.BaseOffset < 0:
		return h, fmt.Errorf("%w: base offset %d", ErrCorrupt, h.BaseOffset)
	case h.LastOffsetDelta < 0 || h.LastOffsetDelta == math.MaxInt32 || h.BaseOffset > math.MaxInt64-1-int64(h.LastOffsetDelta):
		return h, fmt.Errorf("%w: last offset delta %d on base offset %d", ErrCorrupt, h.LastOffsetDelta, h.BaseOffset)
	case h.Records < 0 || h.Records > h.LastOffsetDelta+1:
		return h, fmt.Errorf("%w: %d records in %d offsets", ErrCorrupt, h.Records, int64(h.LastOffsetDelta)+1)
	}
	return h, nil
}

// put writes the header to the start of b, all but the CRC.
func (h *BatchHeader) put(b []byte) {
	be := binary.BigEndian
	be.PutUint64(b, uint64(h.BaseOffset))
	be.PutUint32(b[batchLengthAt:], uint32(h.Length))
	be.PutUint32(b[batchEpochAt:], uint32(h.LeaderEpoch))
	b[batchMagicAt] = byte(h.Magic)
	be.PutUint16(b[batchAttributesAt:], uint16(h.Attributes))
	be.PutUint32(b[23:], uint32(h.LastOffsetDelta))
	be.PutUint64(b[27:], uint64(h.BaseTimestamp))
	be.PutUint64(b[batchMaxTimestampAt:], uint64(h.MaxTimestamp))
	be.PutUint64(b[43:], uint64(h.ProducerID))
	be.PutUint16(b[51:], uint16(h.ProducerEpoch))
	be.PutUint32(b[53:], uint32(h.BaseSequence))
	be.PutUint32(b[57:], uint32(h.Records))
}

// checkCRC reports whether the CRC-32C of the whole batch that b is matches.
func (h *BatchHeader) checkCRC(b []byte) error {
	if sum := crc32.Checksum(b[batchAttributesAt:], castagnoli); sum != h.CRC {
		return fmt.Errorf("%w: record batch at offset %d has CRC %08x, its bytes give %08x", ErrCorrupt, h.BaseOffset, h.CRC, sum)
	}
	return nil
}
