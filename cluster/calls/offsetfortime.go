package calls

import (
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// OffsetForTimeRequest asks a partition's leader for the first record at or after a time.
type OffsetForTimeRequest struct {
	Partition fsm.PartitionID
	Time      int64 // ms since epoch; -3 for the largest there is
}

// OffsetForTimeReply is the record that was found.
type OffsetForTimeReply struct {
	kafkaproto.TimestampedOffset
	Found bool
}

var offsetForTimeCall = Call[OffsetForTimeRequest, OffsetForTimeReply]{
	request: fixed(ErrMalformed,
		func(f fields, q OffsetForTimeRequest) fields { return f.partition(q.Partition).uint64(uint64(q.Time)) },
		func(r *Reader) OffsetForTimeRequest { return OffsetForTimeRequest{r.Partition(), int64(r.Uint64())} }),
	answer: form[OffsetForTimeReply]{
		func(a OffsetForTimeReply) ([]byte, error) {
			if !a.Found {
				return nil, nil
			}
			return foundOffset.put(a.TimestampedOffset)
		},
		func(b []byte) (a OffsetForTimeReply, err error) {
			if len(b) == 0 {
				return a, nil
			}
			a.Found = true
			a.TimestampedOffset, err = foundOffset.get(b)
			return a, err
		},
	},
}

var foundOffset = fixed(ErrMalformedAnswer,
	func(f fields, t kafkaproto.TimestampedOffset) fields {
		return f.uint64(uint64(t.Offset)).uint64(uint64(t.Timestamp)).uint32(uint32(t.LeaderEpoch))
	},
	func(r *Reader) kafkaproto.TimestampedOffset {
		return kafkaproto.TimestampedOffset{Offset: int64(r.Uint64()), Timestamp: int64(r.Uint64()), LeaderEpoch: int32(r.Uint32())}
	})
