package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// indexHead gives the header of a final index of a segment: next is the next offset behind it,
// written and crc are of the points, state of the state machine there.
func (e extent) indexHead(next int64, written int, crc uint32, state []byte) []byte {
	le := binary.LittleEndian
	b := append(make([]byte, 0, indexHeader), indexMagic...)
	b = le.AppendUint64(b, e.base)
	b = le.AppendUint64(b, e.last)
	b = le.AppendUint64(b, uint64(e.end))
	b = le.AppendUint64(b, uint64(e.start))
	b = le.AppendUint64(b, uint64(next))
	b = le.AppendUint64(b, uint64(e.maxTime))
	b = le.AppendUint32(b, uint32(written))
	b = le.AppendUint32(b, uint32(len(state)))
	b = le.AppendUint32(b, crc)
	b = le.AppendUint32(b, crc32.Checksum(state, castagnoli))
	b = le.AppendUint32(b, 0)
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// openIndex opens a final index. The error wraps ErrDamaged if there is no good
// one that fits the segment: it can be made again.
func openIndex(d *disk, s *segment) (*index, error) {
	x := &index{path: indexPath(s.path), base: s.base}
	x.handle.init(d, x.path, nil)
	f, err := x.acquire()
	if err != nil {
		return nil, err
	}
	defer x.handle.release()
	b := make([]byte, indexHeader)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	le := binary.LittleEndian
	if string(b[:8]) != indexMagic || crc32.Checksum(b[:indexHeader-4], castagnoli) != le.Uint32(b[indexHeader-4:]) ||
		le.Uint64(b[8:]) != s.base || le.Uint64(b[16:]) != s.last || int64(le.Uint64(b[24:])) != s.end || int64(le.Uint64(b[32:])) != s.start {
		return nil, fmt.Errorf("%w: %s is no index of its segment", ErrDamaged, x.path)
	}
	x.written, x.state, x.crc, x.final = int(le.Uint32(b[56:])), int(le.Uint32(b[60:])), le.Uint32(b[64:]), true
	x.stateAt = indexHeader + int64(x.written)*pointSize
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if x.state > maxState || size != x.stateAt+int64(x.state) {
		return nil, fmt.Errorf("%w: %s has %d bytes, want %d", ErrDamaged, x.path, size, x.stateAt+int64(x.state))
	}
	return x, nil
}

// acquire opens the file. The error wraps ErrDamaged if it is not there.
func (x *index) acquire() (vfs.File, error) {
	f, err := x.handle.acquire()
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: index: %w", ErrDamaged, err)
	}
	return f, err
}

// resumeIndex opens an index that is not final, of which a manifest vouches for
// count points. The error wraps ErrDamaged if they are not there.
func resumeIndex(d *disk, s *segment, count int, crc uint32) (*index, error) {
	x := &index{path: indexPath(s.path), base: s.base, written: count, crc: crc}
	x.handle.init(d, x.path, nil)
	if err := x.check(); err != nil {
		return nil, err
	}
	return x, nil
}

func crcOf(f io.ReaderAt, at, size int64) (uint32, error) {
	var crc uint32
	buf := make([]byte, min(size, 64<<10))
	for size > 0 {
		n := min(size, int64(len(buf)))
		if got, err := f.ReadAt(buf[:n], at); int64(got) < n {
			if err == nil || errors.Is(err, io.EOF) {
				return 0, fmt.Errorf("%w: the file is too short", ErrDamaged)
			}
			return 0, err
		}
		crc = crc32.Update(crc, castagnoli, buf[:n])
		at, size = at+n, size-n
	}
	return crc, nil
}

// keeps gives where the file has what is kept with the segment, and how many bytes; final is false
// while it may still change.
func (x *index) keeps() (at int64, size int, final bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.stateAt, x.state, x.final
}

// readState gives what is kept with the segment; nil: nothing, or the index is not final. The error
// wraps ErrDamaged if it can be made again.
func (x *index) readState() ([]byte, error) {
	at, size, final := x.keeps()
	if !final || size == 0 {
		return nil, nil
	}
	f, err := x.acquire()
	if err != nil {
		return nil, err
	}
	defer x.handle.release()
	header, b := make([]byte, indexHeader), make([]byte, size)
	_, err = f.ReadAt(header, 0)
	if err == nil {
		_, err = f.ReadAt(b, at)
	}
	if errors.Is(err, io.EOF) || err == nil && crc32.Checksum(b, castagnoli) != binary.LittleEndian.Uint32(header[68:]) {
		err = fmt.Errorf("%w: %s: what is kept with its segment", ErrDamaged, x.path)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}
