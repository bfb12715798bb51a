package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"slices"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// journalRun is the batches that one journal file has, one after the other.
type journalRun struct {
	epoch       uint64
	first, last uint64 // sequence numbers; last < first: none
	end         int64  // position behind them
}

// journalInput is a file of the journal as a start finds it.
type journalInput struct {
	number int
	path   string
	file   vfs.File
	size   int64
	form   batching
	lost   bool   // its header is damaged, and it has been written
	head   []byte // what the header of its first batch should be
	run    journalRun

	buf  *[]byte // all have the same, as large as the largest batch
	have []byte  // what is in it, from at on; nil: it may be in use for another one
	at   int64
}

// openInput opens a file of the journal and reads its header.
func (j *replay) openInput(number int, buf *[]byte) (*journalInput, error) {
	in := &journalInput{number: number, buf: buf, path: filepath.Join(j.dir, fmt.Sprintf(journalNamesakes, number))}
	var err error
	if in.file, err = j.disk.fs.Open(in.path); err != nil {
		return nil, err
	}
	if err := in.readHead(); err != nil {
		in.file.Close()
		return nil, err
	}
	return in, nil
}

func (in *journalInput) readHead() (err error) {
	if in.size, err = in.file.Size(); err != nil {
		return err
	}
	b, err := in.bytes(0, journalHeader)
	if err != nil {
		return err
	}
	if len(b) == journalHeader && string(b[:7]) == journalMagic[:7] {
		good := crc32.Checksum(b[:journalHeader-4], castagnoli) == binary.LittleEndian.Uint32(b[journalHeader-4:])
		if good && b[7] > journalMagic[7] {
			return fmt.Errorf("%s: %w: format %d", in.path, ErrVersion, b[7])
		}
		in.form = batching{stamped: true, secret: binary.LittleEndian.Uint64(b[16:])}
		in.lost = !good || b[7] != journalMagic[7]
	}
	head, err := in.bytes(in.form.start(), in.form.header())
	in.head = slices.Clone(head)
	if allZero(in.head) {
		in.lost = false // it was being made, and has no batch
	}
	return err
}

// bytes gives n bytes at a position, fewer if the file ends before. They are valid until the next
// call.
func (in *journalInput) bytes(pos int64, n int) ([]byte, error) {
	n = int(max(min(int64(n), in.size-pos), 0))
	if pos < in.at || pos+int64(n) > in.at+int64(len(in.have)) {
		want := int(min(int64(max(n, walkChunk)), in.size-pos))
		if cap(*in.buf) < want {
			*in.buf = make([]byte, want)
		}
		got, err := in.file.ReadAt((*in.buf)[:want], pos)
		if in.have, in.at = (*in.buf)[:got], pos; got < n {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // it is shorter than a moment ago
			}
			return nil, fmt.Errorf("read %s: %w", in.path, err)
		}
	}
	return in.have[pos-in.at:][:n], nil
}

// batch reads the batch at pos. ok is false if there is no good one.
func (in *journalInput) batch(j *replay, pos int64) (batch journalBatch, ok bool, err error) {
	header := in.form.header()
	b, err := in.bytes(pos, header)
	if err != nil {
		return batch, false, err
	}
	batch, ok = in.form.parse(b, pos)
	if !ok || in.lost || batch.bytes > in.size-pos-int64(header) {
		return batch, false, nil
	}
	if b, err = in.bytes(pos, header+int(batch.bytes)); err != nil {
		return batch, false, err
	}
	j.hashed += int64(len(b)) - 8
	batch.body = b[header:]
	return batch, crc32.Checksum(b[8:], castagnoli) == batch.crc, nil
}

// batches calls fn for the batches of one epoch with consecutive numbers that the file begins with.
func (in *journalInput) batches(j *replay, fn func(journalBatch) error) (run journalRun, err error) {
	run.first = 1 // none
	run.end = in.form.start()
	for first := true; ; first = false {
		batch, ok, err := in.batch(j, run.end)
		if err != nil || !ok || !first && (batch.epoch != run.epoch || batch.seq != run.last+1) {
			return run, err
		}
		if first {
			run.epoch, run.first = batch.epoch, batch.seq
		}
		run.last = batch.seq
		run.end += int64(in.form.header()) + batch.bytes
		if err := fn(batch); err != nil {
			return run, err
		}
	}
}

// later is what a file of the journal has somewhere behind the batches that it begins with.
type later struct {
	epoch uint64 // the highest, of batches that are ours
	seq   uint64 // the highest in the epoch that was asked for, of batches that are ours; 0: none
	seen  uint64 // the same, of what may be one
}

// search looks for good batches anywhere behind the run. What a client wrote may look like one of
// format 1. One is ours if it has the id of a segment, which no client knows. In format 2 it is the
// stamp that no client knows, and nothing else is looked at.
func (in *journalInput) search(j *replay, epoch uint64, targets replayTargets) (found later, err error) {
	if in.lost {
		return found, nil
	}
	ours := int64(-1) // where the id of a segment was seen last
	look := func(at int64, b []byte) (c claim, ok bool) {
		if !in.form.stamped && len(b) >= 8 && targets[binary.LittleEndian.Uint64(b)] != nil {
			ours = at
		}
		batch, ok := in.form.parse(b, at)
		if !ok {
			return c, false
		}
		return claim{at: at, skip: 8, to: at + int64(in.form.header()) + batch.bytes, crc: batch.crc, tag: batch.seq}, true
	}
	var failed error
	hashed, err := sweep(in.file, in.run.end, in.size, in.form.header(), look, func(c claim) bool {
		b, err := in.bytes(c.at, in.form.header())
		if err != nil {
			failed = err
			return false
		}
		batch, _ := in.form.parse(b, c.at)
		known := in.form.stamped || ours > c.at
		if known {
			found.epoch = max(found.epoch, batch.epoch)
		}
		if batch.epoch == epoch {
			found.seen = max(found.seen, batch.seq)
			if known {
				found.seq = max(found.seq, batch.seq)
			}
		}
		return true
	})
	j.hashed += hashed
	return found, errors.Join(err, failed)
}
