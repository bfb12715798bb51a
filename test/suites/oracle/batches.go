package oracle

import (
	"encoding/binary"
	"hash/crc32"
)

// Fields of a record batch (magic 2), by their place in it.
const (
	atBaseOffset      = 0
	atLength          = 8
	atLeaderEpoch     = 12
	atMagic           = 16
	atCRC             = 17
	atAttributes      = 21
	atLastOffsetDelta = 23
	atBaseTimestamp   = 27
	atMaxTimestamp    = 35
	atProducerID      = 43
	atProducerEpoch   = 51
	atBaseSequence    = 53
	atCount           = 57
	batchHeader       = 61
)

// edit changes a batch before its CRC is computed.
type edit func(b []byte)

func set8(at int, v int8) edit { return func(b []byte) { b[at] = byte(v) } }
func set16(at int, v int16) edit {
	return func(b []byte) { binary.BigEndian.PutUint16(b[at:], uint16(v)) }
}
func set32(at int, v int32) edit {
	return func(b []byte) { binary.BigEndian.PutUint32(b[at:], uint32(v)) }
}
func set64(at int, v int64) edit {
	return func(b []byte) { binary.BigEndian.PutUint64(b[at:], uint64(v)) }
}

// batch makes a record batch of these records, as a producer does, but for the edits. Its
// timestamps begin at the time of the case.
func (t *T) batch(records []byte, count int, edits ...edit) []byte {
	b := make([]byte, batchHeader, batchHeader+len(records))
	b = append(b, records...)
	for _, e := range []edit{
		set32(atLength, int32(len(b)-12)), set32(atLeaderEpoch, -1), set8(atMagic, 2), set32(atLastOffsetDelta, int32(count-1)),
		set64(atBaseTimestamp, t.Now), set64(atMaxTimestamp, t.Now), set64(atProducerID, -1), set16(atProducerEpoch, -1),
		set32(atBaseSequence, -1), set32(atCount, int32(count)),
	} {
		e(b)
	}
	for _, e := range edits {
		e(b)
	}
	binary.BigEndian.PutUint32(b[atCRC:], crc32.Checksum(b[atAttributes:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// times makes the first and the largest timestamp this far from now, in ms.
func (t *T) times(base, largest int64) edit {
	return func(b []byte) { set64(atBaseTimestamp, t.Now+base)(b); set64(atMaxTimestamp, t.Now+largest)(b) }
}

// vi is a zigzag varint, as the numbers of a record are.
func vi(n int64) []byte { return binary.AppendVarint(nil, n) }

// long is a varint that is longer than it needs to be, by so many bytes.
func long(n int64, more int) []byte {
	b := vi(n)
	b[len(b)-1] |= 0x80
	for range more - 1 {
		b = append(b, 0x80)
	}
	return append(b, 0)
}

func varintLen(n int64) int { return len(vi(n)) }

func join(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// field is a key or value with its length.
func field(s string) []byte { return join(vi(int64(len(s))), []byte(s)) }

var nothing = vi(-1) // a null key or value

// sized puts the length in front of a record.
func sized(parts ...[]byte) []byte {
	body := join(parts...)
	return join(vi(int64(len(body))), body)
}

// rec is a record with a key.
func rec(delta int64, key, value string) []byte { return recAt(0, delta, field(key), field(value)) }

// recAt is a record with a timestamp delta, and a key and value that have their lengths.
func recAt(timestamp, delta int64, key, value []byte) []byte {
	return sized([]byte{0}, vi(timestamp), vi(delta), key, value, vi(0))
}

// message is a message of magic 0 or 1 with a right CRC. Key and value may be nil.
func message(offset int64, magic, attributes int8, timestamp int64, key, value []byte) []byte {
	body := []byte{byte(magic), byte(attributes)}
	if magic > 0 {
		body = binary.BigEndian.AppendUint64(body, uint64(timestamp))
	}
	for _, f := range [][]byte{key, value} {
		n := int32(-1)
		if f != nil {
			n = int32(len(f))
		}
		body = append(binary.BigEndian.AppendUint32(body, uint32(n)), f...)
	}
	b := binary.BigEndian.AppendUint64(nil, uint64(offset))
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)+4))
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(body))
	return append(b, body...)
}
