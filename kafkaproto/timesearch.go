package kafkaproto

import "fmt"

// TimestampedOffset is a record's place and time.
type TimestampedOffset struct {
	Offset      int64
	Timestamp   int64 // ms since epoch
	LeaderEpoch int32
}

// FirstAtOrAfter finds the first record of the batch, at offset from or above, whose timestamp is
// at or after timestamp (ms since epoch). The header decides where it can. The records are not
// checked beyond what is read. Errors are ErrCorrupt, ErrUnknownMagic and ErrTooLarge.
func (b Batch) FirstAtOrAfter(from, timestamp int64) (TimestampedOffset, bool, error) {
	h := &b.header
	if h.Control() || h.LastOffset() < from || h.MaxTimestamp < timestamp {
		return TimestampedOffset{}, false, nil
	}
	found, ok := TimestampedOffset{LeaderEpoch: h.LeaderEpoch}, false
	err := b.eachRecord(func(offset, at int64, _ record) bool {
		if offset >= from && at >= timestamp {
			found.Offset, found.Timestamp, ok = offset, at, true
		}
		return !ok
	})
	return found, ok && err == nil, err
}

// Latest finds the first of those records of the batch, at offset from or above, that have the
// largest timestamp. ok is false if no record has a timestamp. Errors are those of FirstAtOrAfter.
func (b Batch) Latest(from int64) (found TimestampedOffset, ok bool, err error) {
	h := &b.header
	if h.Control() || h.LastOffset() < from || h.MaxTimestamp < 0 {
		return TimestampedOffset{}, false, nil
	}
	found.LeaderEpoch = h.LeaderEpoch
	err = b.eachRecord(func(offset, at int64, _ record) bool {
		if offset >= from && at >= 0 && (!ok || at > found.Timestamp) {
			found.Offset, found.Timestamp, ok = offset, at, true
		}
		return true
	})
	return found, ok && err == nil, err
}

// RecordInfo is what EachRecord tells of a record.
type RecordInfo struct {
	Offset    int64 `json:"offset"`
	Timestamp int64 `json:"timestamp"` // ms since epoch, -1: none
	Key       int   `json:"key"`       // bytes; -1: null
	Value     int   `json:"value"`     // bytes; -1: null
}

// EachRecord calls f for every record of the batch. The error wraps ErrCorrupt or
// ErrUnsupportedCompression.
func (b Batch) EachRecord(f func(RecordInfo)) error {
	size := func(field []byte) int {
		if field == nil {
			return -1
		}
		return len(field)
	}
	return b.eachRecord(func(offset, at int64, r record) bool {
		f(RecordInfo{offset, at, size(r.key), size(r.value)})
		return true
	})
}

// eachRecord calls f with offset, timestamp and content of every record until it says no.
func (b Batch) eachRecord(f func(offset, at int64, r record) bool) error {
	h := &b.header
	records, done, err := b.unpack(fromLog, MaxUnpacked)
	if err != nil {
		return fmt.Errorf("record batch at offset %d: %w", h.BaseOffset, err)
	}
	defer done()
	for range h.Records {
		r, rest, err := nextRecord(records, fromLog)
		if err != nil {
			return fmt.Errorf("record batch at offset %d: %w", h.BaseOffset, err)
		}
		records = rest
		at := h.BaseTimestamp + r.timestampDelta
		if h.LogAppendTime() {
			at = h.MaxTimestamp
		}
		if !f(h.BaseOffset+int64(r.offsetDelta), at, r) {
			return nil
		}
	}
	return nil
}
