package raftlog

import (
	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// assembly puts entries together for one write. The data of large ones are not
// copied.
type assembly struct {
	framing framing
	at      int64 // position in the file

	buf    []byte
	pieces [][]byte // nil: all is in buf
	from   int      // buf up to here is in pieces
	size   int64
}

// pieceBytes is the size from which data are written from where they are.
const pieceBytes = 32 << 10

func (a *assembly) add(entry *raft.Log, chain uint32, flags uint8) (crc uint32, err error) {
	if len(entry.Data) < pieceBytes {
		before := len(a.buf)
		a.buf, crc, err = appendFrame(a.buf, a.framing, a.at+a.size, entry, chain, flags)
		a.size += int64(len(a.buf) - before)
		return crc, err
	}
	if a.buf, crc, err = appendHeader(a.buf, a.framing, a.at+a.size, entry, chain, flags); err != nil {
		return 0, err
	}
	// buf may move when it grows: the pieces keep the array that they are in.
	a.pieces = append(a.pieces, a.buf[a.from:len(a.buf):len(a.buf)], entry.Data)
	a.from = len(a.buf)
	a.buf = append(a.buf, entry.Extensions...)
	a.buf = appendPadding(a.buf, a.framing.header()+len(entry.Data)+len(entry.Extensions))
	a.size += a.framing.size(entry)
	return crc, nil
}

func (a *assembly) write(f vfs.File, at int64) error {
	if a.pieces == nil {
		_, err := f.WriteAt(a.buf, at)
		return err
	}
	if a.from < len(a.buf) {
		a.pieces = append(a.pieces, a.buf[a.from:])
	}
	return f.WriteVector(a.pieces, at)
}
