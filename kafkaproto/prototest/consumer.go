package prototest

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/kafkaproto"
)

// Of gives a batch as a producer sends it, with sequence numbers from first on, in a transaction or
// not.
func Of(batch kafkaproto.Batch, producerID int64, epoch int16, first int32, transactional bool) kafkaproto.Batch {
	b := batch.Clone().Bytes()
	attributes := binary.BigEndian.Uint16(b[21:])
	if transactional {
		attributes |= 1 << 4
	}
	binary.BigEndian.PutUint16(b[21:], attributes)
	binary.BigEndian.PutUint64(b[43:], uint64(producerID))
	binary.BigEndian.PutUint16(b[51:], uint16(epoch))
	binary.BigEndian.PutUint32(b[53:], uint32(first))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	made, err := kafkaproto.ParseBatch(b)
	if err != nil {
		panic(err)
	}
	return made
}

// Consumed is a record that a consumer gives to its user.
type Consumed struct {
	Offset int64
	Value  string
}

// Aborted is an aborted transaction as the answer to a fetch has it.
type Aborted struct{ ProducerID, First int64 }

// Consume gives what Kafka's consumer makes of a fetch from offset from on, and the offset that it
// fetches next (CompletedFetch in clients of Apache Kafka 4). Where committed records are read, the
// records of aborted transactions are left out; markers always are.
func Consume(batches []byte, from int64, committed bool, aborted []Aborted) (records []Consumed, next int64, err error) {
	left := slices.Clone(aborted)
	slices.SortStableFunc(left, func(a, b Aborted) int { return cmp.Compare(a.First, b.First) })
	skipped := map[int64]bool{}
	next = from
	for batch, err := range kafkaproto.Batches(batches) {
		if err != nil {
			return records, next, err
		}
		h := batch.Header()
		if committed && h.ProducerID >= 0 {
			for len(left) > 0 && left[0].First <= h.LastOffset() {
				skipped[left[0].ProducerID], left = true, left[1:]
			}
			marker, merr := kafkaproto.ParseMarker(batch)
			switch {
			case h.Control() && merr == nil && !marker.Commit:
				delete(skipped, h.ProducerID)
			case h.Transactional() && skipped[h.ProducerID]:
				next = h.NextOffset()
				continue
			}
		}
		if !h.Control() {
			values, err := Values(batch)
			if err != nil {
				return records, next, err
			}
			for i, value := range values {
				if offset := h.BaseOffset + int64(i); offset >= next {
					records = append(records, Consumed{offset, value})
				}
			}
		}
		next = h.NextOffset()
	}
	return records, next, nil
}

// Values gives the values of a batch that is not compressed.
func Values(batch kafkaproto.Batch) (values []string, err error) {
	rest := batch.Bytes()[kafkaproto.BatchHeaderSize:]
	for range batch.Header().Records {
		length, n := binary.Varint(rest)
		if n <= 0 || length < 0 || length > int64(len(rest)-n) {
			return nil, fmt.Errorf("prototest: a record of %d bytes in %d", length, len(rest))
		}
		var record kmsg.Record
		if err := record.ReadFrom(rest[:n+int(length)]); err != nil {
			return nil, err
		}
		values, rest = append(values, string(record.Value)), rest[n+int(length):]
	}
	return values, nil
}
