package kafkaproto

import (
	"encoding/binary"
	"fmt"
)

// MaxUnpacked bounds what one compressed wrapper or record batch may decompress
// to, in bytes, whatever is configured: a batch that could be stored can be read.
const MaxUnpacked = 256 << 20

// Limits bounds what FromMessageSet takes and makes, in bytes. Zero is no bound
// but that of the formats and MaxUnpacked.
type Limits struct {
	// MaxMessageBytes bounds a message or compressed wrapper as it stands in the
	// set, with its offset and size, as 0.8's message.max.bytes does, and the
	// batches that come out (see FromMessageSet).
	MaxMessageBytes int
	// MaxDecompressed bounds what all wrappers of one set decompress to, together.
	MaxDecompressed int
}

// formatGrowth is how much larger than the message it was made from a batch may
// be: its header and the record's numbers against the message's.
const formatGrowth = BatchHeaderSize + maxRecordOverhead

// attrKept are the bits of a message's attributes that have no meaning in its
// format. They are kept in the record's attributes, which Kafka does not use, so
// that a message of magic 0 comes back byte for byte.
const (
	attrKept0 = 0xff &^ attrCodecMask
	attrKept1 = attrKept0 &^ attrLogAppendTime
)

// FromMessageSet checks a message set of magic 0 and 1 as a producer sends it
// and turns it into record batches (magic 2), in memory of their own, with
// base offset 0 and no leader epoch. records counts the records in all batches.
//
// Uncompressed messages that follow one another share a batch of at most
// MaxMessageBytes; one message of exactly that size still makes a batch, which is
// then larger by the formats' difference, less than 100 bytes. A wrapper becomes
// one batch with the same codec (snappy in xerial framing). Offsets in the set
// mean nothing and are not looked at. A message of magic 0 has no timestamp (-1).
//
// An empty set gives no batches. Errors: ErrCorrupt for a wrong length or CRC,
// for a message that is not whole, for a wrapper that is empty or holds another
// wrapper or another magic; ErrTooLarge, ErrUnknownMagic,
// ErrUnsupportedCompression (LZ4 and the codecs 0.8 has are supported), and
// ErrInvalidTimestamp for a producer that claims log append time or a negative
// timestamp. On an error nothing of the set is given.
func FromMessageSet(set []byte, lim Limits) (batches [][]byte, records int, err error) {
	left := MaxUnpacked
	if lim.MaxDecompressed > 0 {
		left = min(left, lim.MaxDecompressed)
	}
	for at := 0; at < len(set); {
		var batch []byte
		var size, count, unpacked int
		if run := uncompressedRun(set[at:], lim.MaxMessageBytes); run > 0 {
			batch, size, count, err = fromMessages(set[at:], run, lim.MaxMessageBytes)
		} else {
			batch, size, count, unpacked, err = fromWrapper(set[at:], lim.MaxMessageBytes, left)
			left -= unpacked
		}
		if err != nil {
			return nil, 0, fmt.Errorf("message set at byte %d: %w", at+size, err)
		}
		batches = append(batches, batch)
		records += count
		at += size
	}
	return batches, records, nil
}

// uncompressedRun gives the bytes of the uncompressed messages of one magic at
// the start of set, as far as one batch of maxBytes can hold them, at least one;
// 0 if the first is compressed or wrong. It looks at sizes and attributes only, so that
// the batch gets the right room at once: room for the rest of the set would let
// a set of many short runs take room for its length many times over.
func uncompressedRun(set []byte, maxBytes int) int {
	run := 0
	for len(set)-run >= messagePrefix+minMessage0 {
		m := set[run:]
		size := int(int32(binary.BigEndian.Uint32(m[8:])))
		if size < minMessage0 || size > len(m)-messagePrefix || m[messageMagicAt] != set[messageMagicAt] ||
			m[messageAttributesAt]&attrCodecMask != 0 {
			break
		}
		size += messagePrefix
		if run > 0 && maxBytes > 0 && run+size > maxBytes-BatchHeaderSize {
			break
		}
		run += size
	}
	return run
}

// fromMessages turns the uncompressed messages in the first run bytes of set
// into a batch. size is how far it came.
func fromMessages(set []byte, run, maxBytes int) (batch []byte, size, count int, err error) {
	batch = make([]byte, BatchHeaderSize, BatchHeaderSize+run+maxRecordOverhead)
	var times timestamps
	for size < run {
		m, err := nextMessage(set[size:run], maxBytes)
		if err != nil {
			return nil, size, 0, err
		}
		if batch, err = times.append(batch, m, count); err != nil {
			return nil, size, 0, err
		}
		count++
		size += m.size
	}
	sealBatch(batch, None, count, times.base, times.max)
	return batch, size, count, nil
}

// fromWrapper turns the wrapper at the start of set into a batch.
func fromWrapper(set []byte, maxBytes, maxUnpacked int) (batch []byte, size, count, unpacked int, err error) {
	wrapper, err := nextMessage(set, maxBytes)
	if err != nil {
		return nil, 0, 0, 0, err
	}
	codec := wrapper.codec()
	switch {
	case codec == None: // uncompressedRun took those it could read
		return nil, 0, 0, 0, fmt.Errorf("%w: message", ErrCorrupt)
	case codec > LZ4:
		return nil, 0, 0, 0, fmt.Errorf("%w: codec %d in magic %d", ErrUnsupportedCompression, codec, wrapper.magic)
	case wrapper.magic == 1 && wrapper.attributes&attrLogAppendTime != 0:
		return nil, 0, 0, 0, fmt.Errorf("%w: log append time", ErrInvalidTimestamp)
	case wrapper.value == nil:
		return nil, 0, 0, 0, fmt.Errorf("%w: compressed message without value", ErrCorrupt)
	}
	innerBuf, recordsBuf := getScratch(), getScratch()
	inner, records := *innerBuf, *recordsBuf
	defer func() { putScratch(innerBuf, inner); putScratch(recordsBuf, records) }()

	if inner, err = decompress(codec, wrapper.magic, inner, wrapper.value, maxUnpacked); err != nil {
		return nil, 0, 0, 0, err
	}
	var times timestamps
	for at := 0; at < len(inner); count++ {
		m, err := nextMessage(inner[at:], 0)
		switch {
		case err != nil:
		case m.codec() != None:
			err = fmt.Errorf("%w: compressed message inside a compressed one", ErrCorrupt)
		case m.magic != wrapper.magic:
			err = fmt.Errorf("%w: message of magic %d inside a compressed one of magic %d", ErrCorrupt, m.magic, wrapper.magic)
		default:
			if m.magic == 1 {
				m.attributes &^= attrLogAppendTime // the wrapper's counts (KIP-32)
			}
			records, err = times.append(records, m, count)
		}
		if err != nil {
			return nil, 0, 0, 0, fmt.Errorf("compressed message at byte %d: %w", at, err)
		}
		at += m.size
	}
	if count == 0 {
		return nil, 0, 0, 0, fmt.Errorf("%w: compressed message that holds none", ErrCorrupt)
	}
	batch = make([]byte, BatchHeaderSize, BatchHeaderSize+len(wrapper.value)+len(wrapper.value)/8+64)
	if batch, err = compress(codec, batch, records); err != nil {
		return nil, 0, 0, 0, err
	}
	if maxBytes > 0 && len(batch) > maxBytes+formatGrowth {
		return nil, 0, 0, 0, fmt.Errorf("%w: %d bytes compressed again, at most %d", ErrTooLarge, len(batch), maxBytes)
	}
	sealBatch(batch, codec, count, times.base, times.max)
	return batch, wrapper.size, count, len(inner), nil
}

// timestamps gathers what a batch header says of its records' timestamps.
type timestamps struct{ base, max int64 }

// append adds the message as the batch's record with that offset delta.
func (t *timestamps) append(dst []byte, m message, delta int) ([]byte, error) {
	kept := byte(attrKept0)
	if m.magic == 1 {
		kept = attrKept1
		switch {
		case m.attributes&attrLogAppendTime != 0:
			return dst, fmt.Errorf("%w: log append time", ErrInvalidTimestamp)
		case m.timestamp < -1:
			return dst, fmt.Errorf("%w: %d", ErrInvalidTimestamp, m.timestamp)
		}
	}
	if delta == 0 {
		t.base, t.max = m.timestamp, m.timestamp
	}
	t.max = max(t.max, m.timestamp)
	return appendRecord(dst, record{
		attributes:     m.attributes & kept,
		timestampDelta: m.timestamp - t.base,
		offsetDelta:    int32(delta),
		key:            m.key,
		value:          m.value,
	}), nil
}
