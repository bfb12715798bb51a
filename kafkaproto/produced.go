package kafkaproto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// CheckProduced checks what a producer sends for one partition in Produce
// version 3 and above: exactly one record batch (magic 2), which is taken as it
// is. The rules are those of Kafka's LogValidator and ProduceRequest. Records are
// looked into, also compressed ones; MaxDecompressed and MaxUnpacked bound what
// they decompress to, and what is compressed must be so that every consumer can read it.
//
// The one thing that is put right, in place, is a max timestamp that is not that
// of the records: brokers do so, and lookups by time rely on it.
//
// Errors: ErrInvalidRecord for what breaks a rule, ErrInvalidTimestamp for a time out of
// bounds or a producer that claims log append time (*InvalidRecords where single records
// are to blame), ErrCorrupt for an impossible length or a wrong CRC, ErrTooLarge,
// ErrUnsupportedCompression, ErrTransactional.
func CheckProduced(set []byte, lim Limits) (Batch, error) {
	h, err := checkProducedHeader(set, lim)
	if err != nil {
		return Batch{}, err
	}
	b := Batch{h, set}
	maxTimestamp, err := b.checkRecords(lim)
	if err != nil {
		return Batch{}, err
	}
	if h.MaxTimestamp != maxTimestamp {
		b.header.MaxTimestamp = maxTimestamp
		binary.BigEndian.PutUint64(set[batchMaxTimestampAt:], uint64(maxTimestamp))
		b.header.CRC = resealCRC(set)
	}
	return b, nil
}

// checkRecords checks the records of a batch that a producer sent, and gives the largest timestamp,
// ms since epoch.
func (b Batch) checkRecords(lim Limits) (maxTimestamp int64, err error) {
	left := MaxUnpacked
	if lim.MaxDecompressed > 0 {
		left = min(left, lim.MaxDecompressed)
	}
	records, done, err := b.unpack(fromBatch, left)
	if errors.Is(err, ErrCorrupt) { // and the CRC is right: sending it again would not help
		err = fmt.Errorf("%w: %v", ErrInvalidRecord, err)
	}
	if err != nil {
		return -1, err
	}
	defer done()
	maxTimestamp = -1
	blame := newBlame(lim)
	for i := range b.header.Records {
		r, rest, err := nextRecord(records, fromBatch)
		if err == nil {
			err = r.checkHeaders()
		}
		if err == nil && r.offsetDelta != i {
			err = fmt.Errorf("its offset delta is %d", r.offsetDelta)
		}
		if err != nil {
			return -1, &InvalidRecords{ErrInvalidRecord, []RecordError{{i, err.Error()}}}
		}
		records = rest
		timestamp := b.header.BaseTimestamp + r.timestampDelta
		if i == 0 || timestamp > maxTimestamp {
			maxTimestamp = timestamp
		}
		blame.look(i, r.key, timestamp)
	}
	if len(records) > 0 {
		return -1, fmt.Errorf("%w: %d bytes behind the batch's %d records", ErrInvalidRecord, len(records), b.header.Records)
	}
	return maxTimestamp, blame.err()
}

// checkProducedHeader checks what a producer's batch says of itself, and its CRC. set may be
// anything.
func checkProducedHeader(set []byte, lim Limits) (h BatchHeader, err error) {
	if len(set) < BatchHeaderSize {
		return h, fmt.Errorf("%w: %d bytes where a record batch is expected", ErrInvalidRecord, len(set))
	}
	h, unsound := ParseBatchHeader(set) // h has what stands there in any case
	size := int64(h.Length) + batchPrefix
	switch {
	case h.Magic != 2:
		return h, fmt.Errorf("%w: magic %d, only record batches (2) are allowed in this version", ErrInvalidRecord, h.Magic)
	case unsound == nil && lim.NoZstd && h.Codec() == Zstd:
		return h, fmt.Errorf("%w: zstd in a version that does not have it", ErrUnsupportedCompression)
	case size < BatchHeaderSize:
		return h, fmt.Errorf("%w: record batch of %d bytes", ErrCorrupt, size)
	case lim.MaxMessageBytes > 0 && size > int64(lim.MaxMessageBytes):
		return h, fmt.Errorf("%w: record batch of %d bytes, at most %d", ErrTooLarge, size, lim.MaxMessageBytes)
	case size > int64(len(set)):
		return h, fmt.Errorf("%w: record batch of %d bytes is cut after %d", ErrInvalidRecord, size, len(set))
	case size < int64(len(set)):
		return h, fmt.Errorf("%w: %d bytes behind the one record batch that a partition may have", ErrInvalidRecord, int64(len(set))-size)
	case h.BaseOffset != 0:
		return h, fmt.Errorf("%w: base offset %d of a record batch, not 0", ErrInvalidRecord, h.BaseOffset)
	case unsound != nil:
		return h, fmt.Errorf("%w: %v", ErrInvalidRecord, unsound)
	}
	if err := h.checkCRC(set); err != nil {
		return h, err
	}
	switch {
	case h.Records < 1 || h.Records != h.LastOffsetDelta+1:
		return h, fmt.Errorf("%w: %d records in %d offsets", ErrInvalidRecord, h.Records, h.LastOffsetDelta+1)
	case h.Control():
		return h, fmt.Errorf("%w: clients may not write control records", ErrInvalidRecord)
	case h.Transactional() && !lim.Transactions:
		return h, ErrTransactional
	case h.Transactional() && h.ProducerID < 0:
		return h, fmt.Errorf("%w: transactional, and of no producer", ErrInvalidRecord)
	case h.ProducerID >= 0 && (h.BaseSequence < 0 || h.ProducerEpoch < 0):
		return h, fmt.Errorf("%w: sequence number %d and epoch %d of producer %d", ErrInvalidRecord, h.BaseSequence, h.ProducerEpoch, h.ProducerID)
	case h.LogAppendTime():
		return h, fmt.Errorf("%w: log append time", ErrInvalidTimestamp)
	case h.Codec() > Zstd:
		return h, fmt.Errorf("%w: codec %d", ErrUnsupportedCompression, h.Codec())
	}
	return h, nil
}

// unpack gives the records of the batch, decompressed to at most limit bytes. They are valid until
// done is called.
func (b Batch) unpack(from origin, limit int) (records []byte, done func(), err error) {
	records = b.bytes[BatchHeaderSize:b.header.Size()]
	if b.header.Codec() == None {
		return records, func() {}, nil
	}
	buf := getScratch()
	unpacked, err := decompress(b.header.Codec(), from, *buf, records, limit)
	done = func() { putScratch(buf, unpacked) }
	if err != nil {
		done()
		return nil, nil, err
	}
	return unpacked, done, nil
}

// resealCRC writes the CRC-32C of the batch that b is, and gives it.
func resealCRC(b []byte) uint32 {
	sum := crc32.Checksum(b[batchAttributesAt:], castagnoli)
	binary.BigEndian.PutUint32(b[batchCRCAt:], sum)
	return sum
}
