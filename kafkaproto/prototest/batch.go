// Package prototest makes record batches for tests.
//
// You are here: for tests only, of whoever is handed batches as values.
package prototest

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/kafkaproto"
)

// Batch gives a record batch with one record per value, of no producer, as an old client's message
// set becomes it. It panics if that is more than 1 MiB.
func Batch(values ...string) kafkaproto.Batch {
	var set []byte
	for _, value := range values {
		m := kmsg.MessageV0{Value: []byte(value), MessageSize: int32(14 + len(value))}
		raw := m.AppendTo(nil)
		binary.BigEndian.PutUint32(raw[12:], crc32.ChecksumIEEE(raw[16:]))
		set = append(set, raw...)
	}
	batches, _, err := kafkaproto.FromMessageSet(set, kafkaproto.Limits{MaxMessageBytes: 1 << 20, MaxDecompressed: 1 << 24})
	if err != nil || len(batches) != 1 {
		panic(fmt.Sprintf("prototest: %d batches, %v", len(batches), err))
	}
	return batches[0]
}

// Keyed is a record with a key.
type Keyed struct {
	Key, Value string
	Null       bool // it has no value: a tombstone
}

// KeyedBatch makes a batch of records with keys, without times.
func KeyedBatch(records ...Keyed) kafkaproto.Batch {
	var set []byte
	for _, r := range records {
		m := kmsg.MessageV0{Key: []byte(r.Key), Value: []byte(r.Value), MessageSize: int32(14 + len(r.Key) + len(r.Value))}
		if r.Null {
			m.Value = nil
			m.MessageSize = int32(14 + len(r.Key))
		}
		raw := m.AppendTo(nil)
		binary.BigEndian.PutUint32(raw[12:], crc32.ChecksumIEEE(raw[16:]))
		set = append(set, raw...)
	}
	batches, _, err := kafkaproto.FromMessageSet(set, kafkaproto.Limits{MaxMessageBytes: 1 << 24, MaxDecompressed: 1 << 24})
	if err != nil || len(batches) != 1 {
		panic(fmt.Sprintf("prototest: %d batches, %v", len(batches), err))
	}
	return batches[0]
}
