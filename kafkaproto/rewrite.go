package kafkaproto

import (
	"bytes"
	"cmp"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Record is what Records and Retain tell of a record. Key aliases the batch, or what it was
// decompressed to, and is valid until the function that was given it returns.
type Record struct {
	Offset    int64
	Timestamp int64  // ms since epoch, -1: none
	Key       []byte // nil: null
	Null      bool   // its value is null: a tombstone, if it has a key
}

// Records calls f for every record of the batch until it says no. Errors are ErrCorrupt,
// ErrTooLarge and ErrUnsupportedCompression.
func (b Batch) Records(f func(Record) bool) error {
	deltas := deltas{last: -1}
	err := b.eachRecord(func(offset, at int64, r record) bool {
		return deltas.take(b.header, r) && f(Record{offset, at, r.key, r.value == nil})
	})
	return cmp.Or(err, deltas.bad)
}

// deltas holds that offsets of records go up, and that none is behind those of the batch. No
// producer can send others, but somebody may have written into a backup.
type deltas struct {
	last int32
	bad  error
}

// take reports whether the record may follow.
func (d *deltas) take(h BatchHeader, r record) bool {
	if r.offsetDelta <= d.last || r.offsetDelta > h.LastOffsetDelta {
		d.bad = fmt.Errorf("record batch at offset %d: %w: a record with offset delta %d of %d behind %d", h.BaseOffset, ErrCorrupt, r.offsetDelta, h.LastOffsetDelta, d.last)
	}
	d.last = r.offsetDelta
	return d.bad == nil
}

// Retain gives the batch with those of its records alone that keep says yes to, and how many they
// are. Their bytes are as they were, and so are the batch's offsets, producer, epoch, base
// timestamp and codec; the largest timestamp is that of what is left, unless it is the time of all.
// Where all are kept it is the same batch, byte for byte. One of which none is kept has no codec,
// and its base timestamp as the largest.
//
// The bytes follow from the records that are left and from what never changes in the header: what
// is left of what an earlier call has left is what one call would have left of the first batch.
//
// Errors are those of Records: the batch is not what its header says.
func (b Batch) Retain(keep func(Record) bool) (rest Batch, kept int, err error) {
	h := b.header
	records, done, err := b.unpack(fromLog, MaxUnpacked)
	if err != nil {
		return Batch{}, 0, fmt.Errorf("record batch at offset %d: %w", h.BaseOffset, err)
	}
	defer done()
	buf := getScratch()
	left := (*buf)[:0]
	defer func() { putScratch(buf, left) }()
	newest, deltas := int64(-1), deltas{last: -1}
	for range h.Records {
		r, behind, err := nextRecord(records, fromLog)
		if err != nil {
			return Batch{}, 0, fmt.Errorf("record batch at offset %d: %w", h.BaseOffset, err)
		}
		if !deltas.take(h, r) {
			return Batch{}, 0, deltas.bad
		}
		at := h.BaseTimestamp + r.timestampDelta
		if h.LogAppendTime() {
			at = h.MaxTimestamp
		}
		if keep(Record{h.BaseOffset + int64(r.offsetDelta), at, r.key, r.value == nil}) {
			left = append(left, records[:len(records)-len(behind)]...)
			newest = max(newest, at)
			kept++
		}
		records = behind
	}
	if kept == int(h.Records) {
		return b, kept, nil
	}
	h.Records = int32(kept)
	if kept == 0 {
		return b.without(h), 0, nil
	}
	if !h.LogAppendTime() {
		h.MaxTimestamp = newest
	}
	out := make([]byte, BatchHeaderSize, BatchHeaderSize+len(left))
	switch h.Codec() {
	case None:
		out = append(out, left...)
	case Zstd:
		w := zstdWriters.Get().(*zstd.Encoder)
		out = w.EncodeAll(left, out)
		zstdWriters.Put(w)
	default:
		if out, err = compress(h.Codec(), out, left); err != nil {
			return Batch{}, 0, fmt.Errorf("record batch at offset %d: %w", h.BaseOffset, err)
		}
	}
	return h.seal(out), kept, nil
}

// OutsideTransaction gives the batch as one that belongs to no transaction: what a committed one is
// to readers, who then need no marker of it. Where it belongs to none it is the same batch.
func (b Batch) OutsideTransaction() Batch {
	h := b.header
	if !h.Transactional() || h.Control() {
		return b
	}
	h.Attributes &^= attrTransactional
	return h.seal(bytes.Clone(b.bytes))
}

// without gives the batch of which nothing is left.
func (b Batch) without(h BatchHeader) Batch {
	h.Attributes &^= attrCodecMask
	if !h.LogAppendTime() {
		h.MaxTimestamp = h.BaseTimestamp
	}
	return h.seal(make([]byte, BatchHeaderSize))
}

// seal puts the header in front of the records that b has behind the room for it.
func (h BatchHeader) seal(b []byte) Batch {
	h.Length = int32(len(b) - batchPrefix)
	h.put(b)
	h.CRC = resealCRC(b)
	return Batch{h, b}
}

// zstdWriters give what follows from the batch alone: no goroutines of their own, and nothing from
// one batch to the next.
var zstdWriters = sync.Pool{New: func() any {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic("kafkaproto: zstd writer: " + err.Error())
	}
	return w
}}
