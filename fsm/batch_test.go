package fsm

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/trimaran-io/trimaran/kafkaproto"
)

// newBatch makes a record batch whose header is sound and whose records are
// filler: the machine never looks at them.
func newBatch(base Offset, records, size int, epoch LeaderEpoch, filler byte) []byte {
	b := make([]byte, max(size, kafkaproto.BatchHeaderSize))
	for i := kafkaproto.BatchHeaderSize; filler != 0 && i < len(b); i++ {
		b[i] = filler
	}
	fillHeader(b, base, records, epoch)
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	return b
}

// fillHeader writes the header of a batch that is the whole of b, but the CRC.
func fillHeader(b []byte, base Offset, records int, epoch LeaderEpoch) {
	be := binary.BigEndian
	be.PutUint32(b[8:], uint32(len(b)-12))
	b[16] = 2
	be.PutUint32(b[23:], uint32(records-1))
	be.PutUint64(b[43:], ^uint64(0)) // no producer id
	be.PutUint16(b[51:], ^uint16(0))
	be.PutUint32(b[53:], ^uint32(0))
	be.PutUint32(b[57:], uint32(records))
	be.PutUint64(b, uint64(base))
	be.PutUint32(b[12:], uint32(epoch))
}

// fillProducer makes the batch one of an idempotent producer, and its newest record
// of that time.
func fillProducer(b []byte, id int64, epoch, sequence int, at int64) {
	be := binary.BigEndian
	be.PutUint64(b[35:], uint64(at))
	be.PutUint64(b[43:], uint64(id))
	be.PutUint16(b[51:], uint16(epoch))
	be.PutUint32(b[53:], uint32(sequence))
	be.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
}
