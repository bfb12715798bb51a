package kafkaproto

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A message set is messages one after another, without a count, all big endian:
//
//	 0  offset      8
//	 8  size        4   bytes that follow
//	12  CRC-32      4   IEEE, over everything from magic to the end
//	16  magic       1   0 or 1
//	17  attributes  1   bits 0-2 codec; magic 1: bit 3 timestamp type
//	18  timestamp   8   magic 1 only: milliseconds, -1: none
//	    key         4 + n, -1: null
//	    value       4 + n, -1: null
//
// A message with a codec is a wrapper: its value is a message set, compressed.
// Offsets inside a wrapper are absolute in magic 0 and count from the wrapper's
// first message in magic 1 (KIP-31); a wrapper's own offset is its last message's.
const (
	messagePrefix       = 12 // bytes that the size does not count
	messageMagicAt      = 16
	messageAttributesAt = 17
	minMessage0         = 4 + 1 + 1 + 4 + 4 // size of an empty message
	minMessage1         = minMessage0 + 8
)

// message is one message of magic 0 or 1. Key and value alias the set.
type message struct {
	magic      int8
	attributes byte
	timestamp  int64  // -1 in magic 0
	key, value []byte // nil: null
	size       int    // in the set, with offset and size
}

func (m message) codec() Codec { return Codec(m.attributes & attrCodecMask) }

// nextMessage reads the first message of a set. All is checked, a message that
// is not whole is ErrCorrupt. maxBytes bounds its size in the set; 0 does not.
func nextMessage(set []byte, maxBytes int) (message, error) {
	if len(set) < messagePrefix+minMessage0 {
		return message{}, fmt.Errorf("%w: %d bytes where a message is expected", ErrCorrupt, len(set))
	}
	size := int(int32(binary.BigEndian.Uint32(set[8:])))
	switch {
	case size < minMessage0:
		return message{}, fmt.Errorf("%w: message size %d", ErrCorrupt, size)
	case maxBytes > 0 && size > maxBytes-messagePrefix:
		return message{}, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, messagePrefix+size, maxBytes)
	case size > len(set)-messagePrefix:
		return message{}, fmt.Errorf("%w: message of %d bytes where %d are left", ErrCorrupt, size, len(set)-messagePrefix)
	}
	b := set[:messagePrefix+size]
	m := message{magic: int8(b[messageMagicAt]), attributes: b[messageAttributesAt], timestamp: -1, size: len(b)}
	if m.magic != 0 && m.magic != 1 {
		return message{}, fmt.Errorf("%w: %d in a message set", ErrUnknownMagic, m.magic)
	}
	want := binary.BigEndian.Uint32(b[messagePrefix:])
	if sum := crc32.ChecksumIEEE(b[messageMagicAt:]); sum != want {
		return message{}, fmt.Errorf("%w: message has CRC %08x, its bytes give %08x", ErrCorrupt, want, sum)
	}
	rest := b[messageAttributesAt+1:]
	if m.magic == 1 {
		if size < minMessage1 {
			return message{}, fmt.Errorf("%w: message size %d with magic 1", ErrCorrupt, size)
		}
		m.timestamp = int64(binary.BigEndian.Uint64(rest))
		rest = rest[8:]
	}
	var ok bool
	if m.key, rest, ok = nullableBytes(rest); !ok {
		return message{}, fmt.Errorf("%w: key length of a message", ErrCorrupt)
	}
	if m.value, rest, ok = nullableBytes(rest); !ok || len(rest) > 0 {
		return message{}, fmt.Errorf("%w: value length of a message", ErrCorrupt)
	}
	return m, nil
}

// nullableBytes reads a 4-byte length, -1 for null, and that many bytes.
func nullableBytes(b []byte) (field, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := int(int32(binary.BigEndian.Uint32(b)))
	b = b[4:]
	switch {
	case n == -1:
		return nil, b, true
	case n < 0 || n > len(b):
		return nil, nil, false
	}
	return b[:n:n], b[n:], true
}

func appendNullableBytes(dst, field []byte) []byte {
	return append(appendLength(dst, field), field...)
}

func appendLength(dst, field []byte) []byte {
	if field == nil {
		return binary.BigEndian.AppendUint32(dst, 0xffffffff)
	}
	return binary.BigEndian.AppendUint32(dst, uint32(len(field)))
}

// openMessage appends a message up to its key, which sealMessage completes
// once key and value are there.
func openMessage(dst []byte, offset int64, magic int8, attributes byte, timestamp int64) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(offset))
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0, byte(magic), attributes)
	if magic == 1 {
		dst = binary.BigEndian.AppendUint64(dst, uint64(timestamp))
	}
	return dst
}

// sealMessage fills in size and CRC of the message that b is.
func sealMessage(b []byte) {
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-messagePrefix))
	binary.BigEndian.PutUint32(b[messagePrefix:], crc32.ChecksumIEEE(b[messageMagicAt:]))
}

// appendMessage appends a message. One of more than room bytes is cut somewhere behind
// them: what nobody gets is not copied, however large it is.
func appendMessage(dst []byte, offset int64, magic int8, attributes byte, timestamp int64, key, value []byte, room int) []byte {
	start := len(dst)
	dst = openMessage(dst, offset, magic, attributes, timestamp)
	if len(key)+len(value) <= room {
		dst = appendNullableBytes(dst, key)
		dst = appendNullableBytes(dst, value)
		sealMessage(dst[start:])
		return dst
	}
	sum := crc32.ChecksumIEEE(dst[start+messageMagicAt:])
	size := len(dst) - start - messagePrefix
	for _, field := range [][]byte{key, value} {
		for _, part := range [][]byte{appendLength(nil, field), field} {
			sum = crc32.Update(sum, crc32.IEEETable, part)
			size += len(part)
			dst = append(dst, part[:max(min(len(part), room-(len(dst)-start)), 0)]...)
		}
	}
	binary.BigEndian.PutUint32(dst[start+8:], uint32(size))
	binary.BigEndian.PutUint32(dst[start+messagePrefix:], sum)
	return dst
}
