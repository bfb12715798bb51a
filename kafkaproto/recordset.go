package kafkaproto

import (
	"encoding/binary"
	"fmt"
)

// MaxUnpacked bounds what one compressed wrapper or record batch may decompress
// to, in bytes, whatever is configured: a batch that could be stored can be read.
const MaxUnpacked = 256 << 20

// Limits bounds what FromMessageSet and CheckProduced take and make, in bytes. Zero is no bound
// but that of the formats and MaxUnpacked.
type Limits struct {
	// MaxMessageBytes bounds a message or compressed wrapper as it stands in the
	// set, with its offset and size, as 0.8's message.max.bytes does, and the
	// batches that come out (see FromMessageSet).
	MaxMessageBytes int
	// MaxDecompressed bounds what all wrappers of one set decompress to, together.
	MaxDecompressed int
	// NoZstd is that a record batch may not be compressed with zstd (KIP-110: before Produce
	// version 7).
	NoZstd bool
	// Transactions is that batches may belong to transactions.
	Transactions bool
	// NeedKeys is that every record needs a key, as in a compacted topic.
	NeedKeys bool
	// Earliest and Latest bound the timestamps that records bring, in ms since epoch,
	// both included; no timestamp (-1) is within. With a Latest of 0 nothing is bounded.
	Earliest, Latest int64
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
// A last message that is cut off, in the set or in a wrapper, is left out, as Kafka's
// brokers do (org.apache.kafka.common.record.ByteBufferLogInputStream): a client of old
// times passes on what it fetched, whose last message may be cut.
//
// An empty set gives no batches. Errors: ErrCorrupt for a wrong length or CRC,
// for a wrapper that is empty or holds another wrapper or another magic; ErrTooLarge,
// ErrUnknownMagic, ErrUnsupportedCompression (LZ4 and the codecs 0.8 has are supported),
// ErrInvalidRecord for a message without the key it needs, and ErrInvalidTimestamp for a
// time out of bounds, a negative one, or a producer that claims log append time. On an
// error nothing of the set is given.
func FromMessageSet(set []byte, lim Limits) (batches []Batch, records int, err error) {
	left := MaxUnpacked
	if lim.MaxDecompressed > 0 {
		left = min(left, lim.MaxDecompressed)
	}
	blame := newBlame(lim)
	for at := 0; !isCut(set[at:]); {
		var batch Batch
		var size, count, unpacked int
		if run := uncompressedRun(set[at:], lim.MaxMessageBytes); run > 0 {
			batch, size, count, err = fromMessages(set[at:], run, lim.MaxMessageBytes, blame)
		} else {
			batch, size, count, unpacked, err = fromWrapper(set[at:], lim.MaxMessageBytes, left, blame)
			left -= unpacked
		}
		if err != nil {
			return nil, 0, fmt.Errorf("message set at byte %d: %w", at+size, err)
		}
		batches = append(batches, batch)
		records += count
		at += size
	}
	if err := blame.err(); err != nil {
		return nil, 0, err
	}
	return batches, records, nil
}

// isCut reports whether no whole message begins set, but the beginning of one at most. A
// size that no message has is none of a message that was cut.
func isCut(set []byte) bool {
	if len(set) < messagePrefix {
		return true
	}
	size := int(int32(binary.BigEndian.Uint32(set[8:])))
	if size < minMessage0 {
		return false
	}
	// As far as the magic it must be there to be judged by it.
	if len(set) <= messageMagicAt {
		return true
	}
	return size > len(set)-messagePrefix && (set[messageMagicAt] == 0 || set[messageMagicAt] == 1)
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
func fromMessages(set []byte, run, maxBytes int, blame *blame) (batch Batch, size, count int, err error) {
	b := make([]byte, BatchHeaderSize, BatchHeaderSize+run+maxRecordOverhead)
	times := timestamps{blame: blame}
	for size < run {
		m, err := nextMessage(set[size:run], maxBytes)
		if err != nil {
			return Batch{}, size, 0, err
		}
		if b, err = times.append(b, m, count); err != nil {
			return Batch{}, size, 0, err
		}
		count++
		size += m.size
	}
	return sealBatch(b, None, count, times.base, times.max), size, count, nil
}

// fromWrapper turns the wrapper at the start of set into a batch.
func fromWrapper(set []byte, maxBytes, maxUnpacked int, blame *blame) (batch Batch, size, count, unpacked int, err error) {
	wrapper, err := nextMessage(set, maxBytes)
	if err != nil {
		return Batch{}, 0, 0, 0, err
	}
	codec := wrapper.codec()
	switch {
	case codec == None: // uncompressedRun took those it could read
		return Batch{}, 0, 0, 0, fmt.Errorf("%w: message", ErrCorrupt)
	case codec > LZ4:
		return Batch{}, 0, 0, 0, fmt.Errorf("%w: codec %d in magic %d", ErrUnsupportedCompression, codec, wrapper.magic)
	case wrapper.magic == 1 && wrapper.attributes&attrLogAppendTime != 0:
		return Batch{}, 0, 0, 0, fmt.Errorf("%w: log append time", ErrInvalidTimestamp)
	case wrapper.value == nil:
		return Batch{}, 0, 0, 0, fmt.Errorf("%w: compressed message without value", ErrCorrupt)
	}
	innerBuf, recordsBuf := getScratch(), getScratch()
	inner, records := *innerBuf, *recordsBuf
	defer func() { putScratch(innerBuf, inner); putScratch(recordsBuf, records) }()

	if inner, err = decompress(codec, fromSet0+origin(wrapper.magic), inner, wrapper.value, maxUnpacked); err != nil {
		return Batch{}, 0, 0, 0, err
	}
	times := timestamps{blame: blame}
	for at := 0; !isCut(inner[at:]); count++ {
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
			return Batch{}, 0, 0, 0, fmt.Errorf("compressed message at byte %d: %w", at, err)
		}
		at += m.size
	}
	if count == 0 {
		return Batch{}, 0, 0, 0, fmt.Errorf("%w: compressed message that holds none", ErrCorrupt)
	}
	b := make([]byte, BatchHeaderSize, BatchHeaderSize+len(wrapper.value)+len(wrapper.value)/8+64)
	if b, err = compress(codec, b, records); err != nil {
		return Batch{}, 0, 0, 0, err
	}
	if maxBytes > 0 && len(b) > maxBytes+formatGrowth {
		return Batch{}, 0, 0, 0, fmt.Errorf("%w: %d bytes compressed again, at most %d", ErrTooLarge, len(b), maxBytes)
	}
	return sealBatch(b, codec, count, times.base, times.max), wrapper.size, count, len(inner), nil
}

// timestamps gathers what a batch header says of its records' timestamps.
type timestamps struct {
	base, max int64
	blame     *blame
}

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
	t.blame.look(int32(delta), m.key, m.timestamp)
	return appendRecord(dst, record{
		attributes:     m.attributes & kept,
		timestampDelta: m.timestamp - t.base,
		offsetDelta:    int32(delta),
		key:            m.key,
		value:          m.value,
	}), nil
}
