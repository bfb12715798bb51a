package kafkaproto

import (
	"encoding/binary"
	"fmt"
)

// A marker ends a transaction in a partition's log (KIP-98). It is a control batch: transactional,
// without sequence numbers, with one record (EndTransactionMarker of org.apache.kafka.common):
//
//	key    version 2, type 2: 0 abort, 1 commit
//	value  version 2, coordinator epoch 4
//
// Both versions are 0. Whoever reads a later one reads this much of it.
const (
	markerKeySize   = 4
	markerValueSize = 6

	markerAbort  = 0
	markerCommit = 1
)

// Marker is what a control batch says of the transaction that it ends.
type Marker struct {
	Commit           bool
	CoordinatorEpoch int32
}

// NewMarker makes the control batch that ends what the producer has open, at timestamp (ms since
// epoch), with base offset 0 and no leader epoch.
func NewMarker(m Marker, producerID int64, producerEpoch int16, timestamp int64) Batch {
	var key [markerKeySize]byte
	var value [markerValueSize]byte
	if m.Commit {
		binary.BigEndian.PutUint16(key[2:], markerCommit)
	}
	binary.BigEndian.PutUint32(value[2:], uint32(m.CoordinatorEpoch))
	b := make([]byte, BatchHeaderSize, BatchHeaderSize+maxRecordOverhead)
	b = appendRecord(b, record{key: key[:], value: value[:]})
	batch := sealBatch(b, None, 1, timestamp, timestamp)
	batch.header.Attributes = attrTransactional | attrControl
	batch.header.ProducerID, batch.header.ProducerEpoch = producerID, producerEpoch
	batch.header.put(b)
	batch.header.CRC = resealCRC(b)
	return batch
}

// ParseMarker gives what a control batch says. The error, ErrInvalidRecord, is that it ends no
// transaction: it is of another kind, or no producer's.
func ParseMarker(b Batch) (Marker, error) {
	h := b.Header()
	if !h.Control() || !h.Transactional() || h.ProducerID < 0 || h.ProducerEpoch < 0 {
		return Marker{}, fmt.Errorf("%w: no transaction's control batch", ErrInvalidRecord)
	}
	if h.Records != 1 || h.Codec() != None {
		return Marker{}, fmt.Errorf("%w: control batch of %d records, codec %d", ErrInvalidRecord, h.Records, h.Codec())
	}
	r, _, err := nextRecord(b.bytes[BatchHeaderSize:], fromBatch)
	if err != nil {
		return Marker{}, fmt.Errorf("%w: control record: %v", ErrInvalidRecord, err)
	}
	if len(r.key) < markerKeySize || len(r.value) < markerValueSize ||
		int16(binary.BigEndian.Uint16(r.key)) < 0 || int16(binary.BigEndian.Uint16(r.value)) < 0 {
		return Marker{}, fmt.Errorf("%w: control record with a key of %d bytes and a value of %d", ErrInvalidRecord, len(r.key), len(r.value))
	}
	m := Marker{CoordinatorEpoch: int32(binary.BigEndian.Uint32(r.value[2:]))}
	switch kind := binary.BigEndian.Uint16(r.key[2:]); kind {
	case markerAbort:
	case markerCommit:
		m.Commit = true
	default:
		return Marker{}, fmt.Errorf("%w: control record of type %d", ErrInvalidRecord, kind)
	}
	return m, nil
}
