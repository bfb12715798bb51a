package kafkaproto

import (
	"fmt"
	"math"
)

// RecordError says what is wrong with one record of a batch (KIP-467).
type RecordError struct {
	Index  int32 // in the batch, from 0
	Reason string
}

// InvalidRecords says which records make a batch one that is not taken. It wraps
// ErrInvalidRecord or, if one of them has a wrong time, ErrInvalidTimestamp, as in
// Kafka's LogValidator.
type InvalidRecords struct {
	Cause   error
	Records []RecordError // the first, maxBlamed at most
}

// maxBlamed bounds the records that are named: a batch of a MiB can have 100,000.
const maxBlamed = 100

// Error implements error.
func (e *InvalidRecords) Error() string {
	more := ""
	if n := len(e.Records) - 1; n > 0 {
		more = fmt.Sprintf(", and %d more", n)
	}
	return fmt.Sprintf("%v: record %d of the batch: %s%s", e.Cause, e.Records[0].Index, e.Records[0].Reason, more)
}

// Unwrap gives the cause.
func (e *InvalidRecords) Unwrap() error { return e.Cause }

// blame gathers the records that a topic does not take.
type blame struct {
	needKeys         bool
	earliest, latest int64
	found            *InvalidRecords
}

func newBlame(lim Limits) *blame {
	b := &blame{needKeys: lim.NeedKeys, earliest: lim.Earliest, latest: lim.Latest}
	if b.latest == 0 {
		b.earliest, b.latest = math.MinInt64, math.MaxInt64
	}
	return b
}

// look looks at a record: first for its key, as Kafka does. A timestamp below -1, which
// stands for none, is no time.
func (b *blame) look(index int32, key []byte, timestamp int64) {
	switch {
	case key == nil && b.needKeys:
		b.add(index, ErrInvalidRecord, func() string { return "a compacted topic takes no record without key" })
	case timestamp >= b.earliest && timestamp <= b.latest && timestamp >= 0 || timestamp == -1:
	case timestamp < 0:
		b.add(index, ErrInvalidTimestamp, func() string { return fmt.Sprintf("its timestamp is %d", timestamp) })
	default:
		b.add(index, ErrInvalidTimestamp, func() string {
			return fmt.Sprintf("its timestamp, %d, is not within %d and %d, which the topic allows", timestamp, b.earliest, b.latest)
		})
	}
}

// add writes no reason that is not told: a batch that is small when it is compressed can have
// millions of records.
func (b *blame) add(index int32, cause error, reason func() string) {
	if b.found == nil {
		b.found = &InvalidRecords{Cause: cause}
	}
	if cause == ErrInvalidTimestamp {
		b.found.Cause = cause
	}
	if len(b.found.Records) < maxBlamed {
		b.found.Records = append(b.found.Records, RecordError{index, reason()})
	}
}

// err gives what was found, nil for nothing.
func (b *blame) err() error {
	if b.found == nil {
		return nil
	}
	return b.found
}
