package kafkaproto

import (
	"encoding/binary"
	"fmt"
)

// maxWrapped bounds the message set inside one wrapper that is given out, in
// bytes. A batch that would need more is given as messages of their own: 7 bytes
// of a stored record can take 26 as a message, so the stored size bounds little,
// and a client has to unpack a wrapper as a whole.
const maxWrapped = 16 << 20

// ToMessageSet appends the records of batches (whole record batches, magic 2)
// from offset from on to dst, as a message set of magic 0 or 1 of at most
// maxBytes.
//
// As a 0.8 broker does, it cuts the last message at maxBytes, the first one too
// if it does not fit: that is how an old client notices a message larger than
// its buffer. A compressed batch becomes one wrapper with the codec it has, if
// the magic has it (gzip and snappy, in magic 1 LZ4), else messages of their
// own; so does one whose wrapper would be the first and not fit, since its
// messages may, and one that unpacks to more than 16 MiB of messages. Control
// batches are left out, headers of records too, and in magic 0 timestamps.
//
// Batches that cannot be read are ErrCorrupt, ErrUnknownMagic or ErrTooLarge
// (they decompress to more than MaxUnpacked), unless records stand before the
// first of those: then these are given, and the error is for who asks for what
// comes after. On an error dst is given back as it was.
func ToMessageSet(dst, batches []byte, magic int8, from int64, maxBytes int) ([]byte, error) {
	if magic != 0 && magic != 1 {
		return dst, fmt.Errorf("%w: no message set has magic %d", ErrUnknownMagic, magic)
	}
	start := len(dst)
	for batch, err := range Batches(batches) {
		if len(dst)-start >= maxBytes {
			break
		}
		before := len(dst)
		if err == nil {
			dst, err = appendBatch(dst, batch, magic, from, maxBytes-(before-start), before == start)
		}
		if err != nil {
			dst = dst[:before]
			if before > start {
				break
			}
			return dst, err
		}
	}
	if len(dst)-start > max(maxBytes, 0) {
		dst = dst[:start+max(maxBytes, 0)]
	}
	return dst, nil
}

// appendBatch appends one batch; what exceeds room is cut by the caller.
func appendBatch(dst []byte, batch Batch, magic int8, from int64, room int, first bool) ([]byte, error) {
	h := batch.header
	if h.Control() || h.LastOffset() < from {
		return dst, nil
	}
	if err := batch.CheckCRC(); err != nil {
		return dst, err
	}
	out := messageWriter{header: h, magic: magic, from: from}
	codec, records := h.Codec(), batch.bytes[BatchHeaderSize:]
	if codec == None {
		return out.messages(dst, records, room)
	}
	unpackedBuf := getScratch()
	unpacked := *unpackedBuf
	defer func() { putScratch(unpackedBuf, unpacked) }()
	var err error
	if unpacked, err = decompress(codec, fromLog, unpacked, records, MaxUnpacked); err != nil {
		return dst, fmt.Errorf("record batch at offset %d: %w", h.BaseOffset, err)
	}
	if codec == Gzip || codec == Snappy || codec == LZ4 && magic == 1 {
		before := len(dst)
		var ok bool
		if dst, ok, err = out.wrapper(dst, unpacked, codec); err != nil {
			return dst, err
		}
		if ok && !(first && len(dst)-before > room) {
			return dst, nil
		}
		dst = dst[:before]
	}
	return out.messages(dst, unpacked, room)
}

// messageWriter writes the records of one batch as messages.
type messageWriter struct {
	header BatchHeader
	magic  int8
	from   int64 // records below are left out

	relative     bool  // offsets count from the first one written
	first, last  int64 // offsets written; first is -1 before any
	maxTimestamp int64 // of the records written
}

// messages appends the records until room is used up.
func (w *messageWriter) messages(dst, records []byte, room int) ([]byte, error) {
	w.first, w.relative = -1, false
	return w.append(dst, records, room)
}

// wrapper appends the records as one compressed message. ok is false, and
// nothing useful appended, if they are more than a wrapper should hold.
func (w *messageWriter) wrapper(dst, records []byte, codec Codec) (_ []byte, ok bool, err error) {
	setBuf := getScratch()
	set := *setBuf
	defer func() { putScratch(setBuf, set) }()

	w.first, w.relative = -1, w.magic == 1
	if set, err = w.append(set, records, maxWrapped+1); err != nil {
		return dst, false, err
	}
	if len(set) > maxWrapped {
		return dst, false, nil
	}
	if w.first < 0 {
		return dst, true, nil // compaction took all records from `from` on
	}
	start := len(dst)
	dst = openMessage(dst, w.last, w.magic, w.attributes(codec), w.maxTimestamp)
	dst = appendNullableBytes(dst, nil)
	lengthAt := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	if dst, err = compress(codec, dst, set); err != nil {
		return dst, false, err
	}
	binary.BigEndian.PutUint32(dst[lengthAt:], uint32(len(dst)-lengthAt-4))
	sealMessage(dst[start:])
	return dst, true, nil
}

// attributes are those of a message with that codec in this batch.
func (w *messageWriter) attributes(codec Codec) byte {
	a := byte(codec)
	if w.magic == 1 && w.header.LogAppendTime() {
		a |= attrLogAppendTime
	}
	return a
}

// append appends each record as a message until room is used up or more; of a message that does not
// fit, no more than a little beyond.
func (w *messageWriter) append(dst, records []byte, room int) ([]byte, error) {
	h, start, count, next := w.header, len(dst), int32(0), int32(0)
	kept := byte(attrKept0)
	if w.magic == 1 {
		kept = attrKept1
	}
	for len(records) > 0 {
		r, rest, err := nextRecord(records, fromLog)
		if err == nil && (r.offsetDelta < next || r.offsetDelta > h.LastOffsetDelta || count == h.Records) {
			err = fmt.Errorf("%w: record with offset delta %d of %d, number %d of %d", ErrCorrupt, r.offsetDelta, h.LastOffsetDelta, count+1, h.Records)
		}
		if err != nil {
			return dst, fmt.Errorf("record batch at offset %d: %w", h.BaseOffset, err)
		}
		records, next = rest, r.offsetDelta+1
		count++
		offset := h.BaseOffset + int64(r.offsetDelta)
		if offset < w.from {
			continue
		}
		timestamp := h.BaseTimestamp + r.timestampDelta
		if h.LogAppendTime() {
			timestamp = h.MaxTimestamp
		}
		if w.first < 0 {
			w.first, w.maxTimestamp = offset, timestamp
		}
		w.last, w.maxTimestamp = offset, max(w.maxTimestamp, timestamp)
		if w.relative {
			offset -= w.first
		}
		dst = appendMessage(dst, offset, w.magic, r.attributes&kept|w.attributes(None), timestamp, r.key, r.value, room-(len(dst)-start))
		if len(dst)-start >= room {
			return dst, nil
		}
	}
	if count != h.Records {
		return dst, fmt.Errorf("%w: record batch at offset %d has %d records, not %d", ErrCorrupt, h.BaseOffset, count, h.Records)
	}
	return dst, nil
}
