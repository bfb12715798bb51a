package raftlog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// batching is how the batches of a journal file are laid out. The zero value is that of format 1.
type batching struct {
	stamped bool   // format 2: the file has a header, each batch a stamp
	secret  uint64 // of the file; no client can know it
}

// start is where the first batch is.
func (l batching) start() int64 {
	if l.stamped {
		return journalHeader
	}
	return 0
}

// header is the size of a batch's header.
func (l batching) header() int {
	if l.stamped {
		return batchHeader + stampBytes
	}
	return batchHeader
}

// fileHeader gives the first bytes of a file of format 2.
func (l batching) fileHeader() []byte {
	le := binary.LittleEndian
	b := append(make([]byte, 0, journalHeader), journalMagic...)
	b = le.AppendUint64(b, 0)
	// It is where a batch of format 1 has its number, which is not 0: so a header with a bad magic
	// is no void batch.
	b = le.AppendUint64(b, l.secret)
	b = append(b, make([]byte, journalHeader-4-len(b))...)
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func align(n int) int { return (n + frameAlign - 1) &^ (frameAlign - 1) }

// encodeBatch lays out a batch that is written at pos.
func encodeBatch(b []byte, form batching, pos int64, epoch, seq uint64, writes []*journalWrite) []byte {
	le := binary.LittleEndian
	if form.stamped {
		b = append(b[:0], batchMagic2...)
	} else {
		b = append(b[:0], batchMagic1...)
	}
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, epoch)
	b = le.AppendUint64(b, seq)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, uint32(len(writes)))
	if form.stamped {
		b = le.AppendUint64(b, stamp(form.secret, pos))
	}
	for _, w := range writes {
		b = le.AppendUint64(b, w.id)
		b = le.AppendUint64(b, uint64(w.pos))
		b = le.AppendUint32(b, uint32(len(w.data)))
		b = le.AppendUint32(b, 0)
		b = append(b, w.data...)
		for len(b)%frameAlign != 0 {
			b = append(b, 0)
		}
	}
	le.PutUint32(b[24:], uint32(len(b)-form.header()))
	le.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
	return b
}

// journalBatch is a batch as it was read.
type journalBatch struct {
	epoch, seq uint64
	crc        uint32
	count      uint32
	bytes      int64 // of the body
	body       []byte
}

// parse reads the header of a batch that is at pos. ok is false if it can be none; its CRC is not
// verified yet.
func (l batching) parse(b []byte, pos int64) (batch journalBatch, ok bool) {
	magic := batchMagic1
	if l.stamped {
		magic = batchMagic2
	}
	le := binary.LittleEndian
	if len(b) < l.header() || string(b[:4]) != magic || l.stamped && le.Uint64(b[batchHeader:]) != stamp(l.secret, pos) {
		return batch, false
	}
	batch = journalBatch{crc: le.Uint32(b[4:]), epoch: le.Uint64(b[8:]), seq: le.Uint64(b[16:]), bytes: int64(le.Uint32(b[24:])), count: le.Uint32(b[28:])}
	return batch, batch.bytes <= maxJournalBatch && batch.bytes%frameAlign == 0 && int64(batch.count)*recordHeader <= batch.bytes
}

// records calls fn for each append in the batch.
func (b journalBatch) records(fn func(id uint64, pos int64, data []byte) error) error {
	le := binary.LittleEndian
	rest := b.body
	for range b.count {
		if len(rest) < recordHeader {
			return fmt.Errorf("%w: journal batch %d is too short", ErrDamaged, b.seq)
		}
		size := int(le.Uint32(rest[16:]))
		if size > len(rest)-recordHeader {
			return fmt.Errorf("%w: journal batch %d is too short", ErrDamaged, b.seq)
		}
		if err := fn(le.Uint64(rest), int64(le.Uint64(rest[8:])), rest[recordHeader:recordHeader+size]); err != nil {
			return err
		}
		rest = rest[min(len(rest), align(recordHeader+size)):]
	}
	return nil
}

// headOf gives what the head of a file says, good or not; nothing if it is no batch's.
func (l batching) headOf(b []byte) (batch journalBatch) {
	magic := batchMagic1
	if l.stamped {
		magic = batchMagic2
	}
	if len(b) >= l.header() && string(b[:4]) == magic {
		batch.epoch, batch.seq = binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])
	}
	return batch
}

// begun reports whether the head of a file that is neither good nor void can be what there is of a
// write that did not end: of the newest batch, or of making the file void. last is the number of
// the newest good batch, seen that of the newest that may be one.
func (l batching) begun(b []byte, epoch, last, seen uint64) bool {
	if len(b) < l.header() || allZero(b[:4]) || allZero(b[16:batchHeader]) {
		return true
	}
	head := l.headOf(b)
	switch head.epoch {
	case epoch: // a file is made void when those before it are: so few batches can be gone
		return isPartOf(head.seq, last+1) || head.seq > last && (seen == 0 || head.seq <= seen+maxJournalFiles+1)
	case epoch + 1:
		return head.seq == 1
	}
	return false
}

// isPartOf reports whether a number is what was written of another, the low bytes first, before a
// write ended.
func isPartOf(part, whole uint64) bool {
	for bits := 8; bits < 64; bits += 8 {
		if part == whole&(1<<bits-1) {
			return true
		}
	}
	return part == whole
}
