package kafkaproto

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
)

// Batch is one whole record batch (magic 2): its bytes and its header, which was read from them and
// checked once, where the batch came in (from a client, another node or a disk). Whoever has one
// need not look at the bytes again to know what they say of themselves. The zero Batch is none.
//
// A Batch is a value, its bytes are not copied with it. Stamp and StampLogAppendTime write into the
// bytes and into the header of the one value that they are called on; other copies keep the header
// that they had.
type Batch struct {
	header BatchHeader
	bytes  []byte
}

// ParseBatch takes b for one whole record batch. The header is checked as ParseBatchHeader does,
// and that the batch is exactly as long as b; the CRC is not. Errors are ErrCorrupt or
// ErrUnknownMagic.
func ParseBatch(b []byte) (Batch, error) {
	h, err := ParseBatchHeader(b)
	if err != nil {
		return Batch{}, err
	}
	if h.Size() != len(b) {
		return Batch{}, fmt.Errorf("%w: record batch of %d bytes says it has %d", ErrCorrupt, len(b), h.Size())
	}
	return Batch{h, b}, nil
}

// Batches goes over the whole record batches that stand one after another in b. Headers are checked
// as ParseBatchHeader does, CRCs are not. At bytes that are no batch, or a cut one, it yields a
// zero Batch with an error once and ends. The batches alias b.
func Batches(b []byte) iter.Seq2[Batch, error] {
	return func(yield func(Batch, error) bool) {
		for len(b) > 0 {
			h, err := ParseBatchHeader(b)
			if err == nil && h.Size() > len(b) {
				err = fmt.Errorf("%w: record batch of %d bytes is cut after %d", ErrCorrupt, h.Size(), len(b))
			}
			if err != nil {
				yield(Batch{}, err)
				return
			}
			size := h.Size()
			if !yield(Batch{h, b[:size:size]}, nil) {
				return
			}
			b = b[size:]
		}
	}
}

// Header is what the batch says of itself.
func (b Batch) Header() BatchHeader { return b.header }

// Bytes are the batch as clients read it. They are nil of the zero Batch.
func (b Batch) Bytes() []byte { return b.bytes }

// Size is the batch's size in bytes, header included.
func (b Batch) Size() int { return len(b.bytes) }

// CheckCRC reports whether the CRC-32C matches. The error is ErrCorrupt.
func (b Batch) CheckCRC() error { return b.header.checkCRC(b.bytes) }

// Clone is the batch in memory of its own.
func (b Batch) Clone() Batch { return Batch{b.header, bytes.Clone(b.bytes)} }

// Stamp writes base offset and partition leader epoch into the batch, in place; the CRC does not
// cover them.
func (b *Batch) Stamp(base int64, epoch int32) {
	b.header.BaseOffset, b.header.LeaderEpoch = base, epoch
	binary.BigEndian.PutUint64(b.bytes, uint64(base))
	binary.BigEndian.PutUint32(b.bytes[batchEpochAt:], uint32(epoch))
}

// StampLogAppendTime makes now (ms since epoch) the timestamp of all records of the batch, in place
// (message.timestamp.type=LogAppendTime).
func (b *Batch) StampLogAppendTime(now int64) {
	b.header.Attributes |= attrLogAppendTime
	b.header.MaxTimestamp = now
	binary.BigEndian.PutUint16(b.bytes[batchAttributesAt:], uint16(b.header.Attributes))
	binary.BigEndian.PutUint64(b.bytes[batchMaxTimestampAt:], uint64(now))
	b.header.CRC = resealCRC(b.bytes)
}
