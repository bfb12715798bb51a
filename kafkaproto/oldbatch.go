package kafkaproto

import "iter"

// CheckBatch reports whether b is exactly one whole record batch whose header
// is sound and whose CRC-32C matches. It does not look into the records.
// Errors are ErrCorrupt or ErrUnknownMagic.
func CheckBatch(b []byte) error {
	batch, err := ParseBatch(b)
	if err != nil {
		return err
	}
	return batch.CheckCRC()
}

// StampBatch is Batch.Stamp for bytes that CheckBatch accepts.
func StampBatch(b []byte, base int64, epoch int32) { (&Batch{bytes: b}).Stamp(base, epoch) }

// SplitBatches is Batches for who reads the headers again.
func SplitBatches(b []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for batch, err := range Batches(b) {
			if !yield(batch.bytes, err) {
				return
			}
		}
	}
}

// FirstAtOrAfter is Batch.FirstAtOrAfter for bytes.
func FirstAtOrAfter(b []byte, from, timestamp int64) (TimestampedOffset, bool, error) {
	batch, err := ParseBatch(b)
	if err != nil {
		return TimestampedOffset{}, false, err
	}
	return batch.FirstAtOrAfter(from, timestamp)
}

// Latest is Batch.Latest for bytes.
func Latest(b []byte, from int64) (found TimestampedOffset, ok bool, err error) {
	batch, err := ParseBatch(b)
	if err != nil {
		return TimestampedOffset{}, false, err
	}
	return batch.Latest(from)
}

// EachRecord is Batch.EachRecord for bytes.
func (h BatchHeader) EachRecord(b []byte, f func(RecordInfo)) error { return Batch{h, b}.EachRecord(f) }

// StampLogAppendTime is Batch.StampLogAppendTime for bytes that CheckBatch accepts.
func StampLogAppendTime(b []byte, now int64) {
	if batch, err := ParseBatch(b); err == nil {
		batch.StampLogAppendTime(now)
	}
}
