package kafkaproto

import (
	"encoding/binary"
	"hash/crc32"
	"math"
)

// NewEmpty gives a batch without records that stands for count offsets from base on, of no
// producer, as Kafka's cleaner leaves one. count is 1 to 2^31 - 1.
func NewEmpty(base int64, count int32, epoch int32) Batch {
	be := binary.BigEndian
	b := make([]byte, BatchHeaderSize)
	be.PutUint64(b, uint64(base))
	be.PutUint32(b[8:], BatchHeaderSize-12)
	be.PutUint32(b[12:], uint32(epoch))
	b[16] = 2
	be.PutUint32(b[23:], uint32(count-1))
	be.PutUint64(b[27:], math.MaxUint64) // no time
	be.PutUint64(b[35:], math.MaxUint64)
	be.PutUint64(b[43:], math.MaxUint64) // no producer
	be.PutUint16(b[51:], math.MaxUint16)
	be.PutUint32(b[53:], math.MaxUint32)
	be.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	batch, err := ParseBatch(b)
	if err != nil {
		panic("kafkaproto: an empty batch is none: " + err.Error())
	}
	return batch
}
