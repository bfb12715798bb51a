package kafkaproto

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
)

// A record of magic 2 (KIP-98). All numbers but the attributes are zigzag
// varints (those of Protocol Buffers):
//
//	length           bytes that follow
//	attributes       1 byte, unused by Kafka
//	timestamp delta  to the batch's base timestamp
//	offset delta     to the batch's base offset
//	key              length, -1: null, and bytes
//	value            length, -1: null, and bytes
//	headers          count, and each with key and value

// record is one record of a batch. Its bytes alias the batch, or what it was
// decompressed to.
type record struct {
	attributes     byte
	timestampDelta int64
	offsetDelta    int32
	key, value     []byte // nil: null
	headers        []byte // their count and what follows, not looked at
}

// maxVarint32 is the most bytes that Kafka reads of a varint of 32 bits
// (org.apache.kafka.common.utils.ByteUtils).
const maxVarint32 = 5

// varint32 reads a varint of 32 bits. From a producer it may have no more bytes than every
// consumer reads; n is 0 if it has, or if there is none.
func varint32(b []byte, from origin) (v int64, n int) {
	v, n = binary.Varint(b)
	if from == fromBatch && n > maxVarint32 {
		return 0, 0
	}
	return v, n
}

// nextRecord reads the first record of b. Headers are not looked at: no format
// that records are turned into can carry them.
func nextRecord(b []byte, from origin) (r record, rest []byte, err error) {
	length, n := varint32(b, from)
	if n <= 0 || length < 0 || length > int64(len(b)-n) {
		return record{}, nil, fmt.Errorf("%w: record length", ErrCorrupt)
	}
	rest = b[n+int(length):]
	b = b[n : n+int(length)]
	if len(b) < 1 {
		return record{}, nil, fmt.Errorf("%w: empty record", ErrCorrupt)
	}
	r.attributes = b[0]
	b = b[1:]
	if r.timestampDelta, n = binary.Varint(b); n <= 0 {
		return record{}, nil, fmt.Errorf("%w: timestamp delta of a record", ErrCorrupt)
	}
	b = b[n:]
	delta, n := varint32(b, from)
	if n <= 0 || delta < 0 || delta > math.MaxInt32 {
		return record{}, nil, fmt.Errorf("%w: offset delta of a record", ErrCorrupt)
	}
	r.offsetDelta = int32(delta)
	b = b[n:]
	var ok bool
	if r.key, b, ok = varintBytes(b, from); !ok {
		return record{}, nil, fmt.Errorf("%w: key length of a record", ErrCorrupt)
	}
	if r.value, r.headers, ok = varintBytes(b, from); !ok {
		return record{}, nil, fmt.Errorf("%w: value length of a record", ErrCorrupt)
	}
	return r, rest, nil
}

// checkHeaders reports whether the record, which a producer sent, ends with its headers,
// as it should: a count, and that many keys, which may not be null, with values.
func (r record) checkHeaders() error {
	count, n := varint32(r.headers, fromBatch)
	if n <= 0 || count < 0 || count > int64(len(r.headers)) {
		return fmt.Errorf("%w: header count of a record", ErrCorrupt)
	}
	b := r.headers[n:]
	for ; count > 0; count-- {
		length, n := varint32(b, fromBatch)
		if n <= 0 || length < 0 || length > int64(len(b)-n) {
			return fmt.Errorf("%w: header key length of a record", ErrCorrupt)
		}
		var ok bool
		if _, b, ok = varintBytes(b[n+int(length):], fromBatch); !ok {
			return fmt.Errorf("%w: header value length of a record", ErrCorrupt)
		}
	}
	if len(b) > 0 {
		return fmt.Errorf("%w: %d bytes behind the headers of a record", ErrCorrupt, len(b))
	}
	return nil
}

func varintBytes(b []byte, from origin) (field, rest []byte, ok bool) {
	length, n := varint32(b, from)
	if n <= 0 || length < -1 || length > int64(len(b)-n) {
		return nil, nil, false
	}
	b = b[n:]
	if length < 0 {
		return nil, b, true
	}
	return b[:length:length], b[length:], true
}

func varintSize(v int64) int {
	return (bits.Len64(uint64(v<<1^v>>63)|1) + 6) / 7
}

func varintBytesSize(field []byte) int {
	if field == nil {
		return 1
	}
	return varintSize(int64(len(field))) + len(field)
}

// maxRecordOverhead is the most that a record takes beside key and value:
// length 5, attributes 1, timestamp delta 10, offset delta 5, key length 5,
// value length 5, header count 1. A message of magic 1 takes 34, one of magic 0,
// whose timestamp delta is always 0 in one byte, takes 26 where the record takes
// at most 23: so records never need more room than the messages they come from.
const maxRecordOverhead = 32

// appendRecord appends a record without headers.
func appendRecord(dst []byte, r record) []byte {
	length := 1 + varintSize(r.timestampDelta) + varintSize(int64(r.offsetDelta)) + varintBytesSize(r.key) + varintBytesSize(r.value) + 1
	dst = binary.AppendVarint(dst, int64(length))
	dst = append(dst, r.attributes)
	dst = binary.AppendVarint(dst, r.timestampDelta)
	dst = binary.AppendVarint(dst, int64(r.offsetDelta))
	dst = appendVarintBytes(dst, r.key)
	dst = appendVarintBytes(dst, r.value)
	return append(dst, 0)
}

func appendVarintBytes(dst, field []byte) []byte {
	if field == nil {
		return append(dst, 1) // -1 in zigzag
	}
	dst = binary.AppendVarint(dst, int64(len(field)))
	return append(dst, field...)
}

// sealBatch fills in the header of the batch that b is, whose records stand
// behind the room for it: base offset 0, no leader epoch, no producer id.
func sealBatch(b []byte, codec Codec, count int, baseTimestamp, maxTimestamp int64) Batch {
	h := BatchHeader{
		BaseOffset:      0,
		Length:          int32(len(b) - batchPrefix),
		LeaderEpoch:     -1,
		Magic:           2,
		Attributes:      int16(codec),
		LastOffsetDelta: int32(count - 1),
		BaseTimestamp:   baseTimestamp,
		MaxTimestamp:    maxTimestamp,
		ProducerID:      -1,
		ProducerEpoch:   -1,
		BaseSequence:    -1,
		Records:         int32(count),
	}
	h.put(b)
	h.CRC = resealCRC(b)
	return Batch{h, b}
}
