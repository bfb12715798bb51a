// Package wire writes and reads the numbers, byte strings and names that bodies of frames are made
// of.
//
// You are here: below cluster/raftlink and cluster/election, each of which has a body of its own,
// beside cluster/link, which carries bodies unread. Integers are big endian and of fixed width.
// What is read came from another node, and counts for nothing until it fits.
package wire

import (
	"encoding/binary"
)

const (
	// OwnPart is the size in bytes from which a byte string is sent in place instead of copied.
	OwnPart = 2 << 10
	// MaxName bounds a name, in bytes: its length is one byte.
	MaxName = 255
)

// Encoder builds a body as a list of parts: small things in one buffer, big byte strings in place.
type Encoder struct {
	parts [][]byte
	Buf   []byte // what was written since the last part
}

// U8, U32 and U64 write a number.
func (e *Encoder) U8(v uint8)   { e.Buf = append(e.Buf, v) }
func (e *Encoder) U32(v uint32) { e.Buf = binary.BigEndian.AppendUint32(e.Buf, v) }
func (e *Encoder) U64(v uint64) { e.Buf = binary.BigEndian.AppendUint64(e.Buf, v) }

// Flag writes a byte, 1 or 0.
func (e *Encoder) Flag(v bool) {
	if v {
		e.U8(1)
	} else {
		e.U8(0)
	}
}

// Bytes writes a uvarint of length+1, 0 for nil, and the bytes, which must not be changed any more.
func (e *Encoder) Bytes(b []byte) {
	if b == nil {
		e.U8(0)
		return
	}
	e.Buf = binary.AppendUvarint(e.Buf, uint64(len(b))+1)
	if len(b) < OwnPart {
		e.Buf = append(e.Buf, b...)
		return
	}
	e.parts = append(e.parts, e.Buf, b)
	e.Buf = nil
}

// Done gives the parts of what was written, none if that is nothing.
func (e *Encoder) Done() [][]byte {
	if len(e.Buf) > 0 {
		e.parts = append(e.parts, e.Buf)
		e.Buf = nil
	}
	return e.parts
}

// Decoder reads from one body; the first thing that does not fit sets Bad, and everything after is
// zero.
type Decoder struct {
	B   []byte // what is left
	Bad bool
}

// Take gives the next n bytes, of the body itself; nil if there are fewer.
func (d *Decoder) Take(n int) []byte {
	if d.Bad || n > len(d.B) || n < 0 {
		d.Bad = true
		return nil
	}
	out := d.B[:n:n]
	d.B = d.B[n:]
	return out
}

// U8, U32 and U64 read a number.
func (d *Decoder) U8() uint8 {
	if b := d.Take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *Decoder) U32() uint32 {
	if b := d.Take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *Decoder) U64() uint64 {
	if b := d.Take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// Flag reads a byte that is 0 for no.
func (d *Decoder) Flag() bool { return d.U8() != 0 }

// Uvarint reads a number of 1 to 10 bytes.
func (d *Decoder) Uvarint() uint64 {
	if d.Bad {
		return 0
	}
	v, n := binary.Uvarint(d.B)
	if n <= 0 {
		d.Bad = true
		return 0
	}
	d.B = d.B[n:]
	return v
}

// Bytes reads what Encoder.Bytes wrote, as a slice of the body itself.
func (d *Decoder) Bytes() []byte {
	n := d.Uvarint()
	if n == 0 {
		return nil
	}
	if n-1 > uint64(len(d.B)) {
		d.Bad = true
		return nil
	}
	return d.Take(int(n - 1))
}

// Name reads what AppendName wrote.
func (d *Decoder) Name() string { return string(d.Take(int(d.U8()))) }

// AppendName appends a byte with the length and the name, cut to MaxName bytes.
func AppendName(b []byte, s string) []byte {
	if len(s) > MaxName {
		s = s[:MaxName]
	}
	return append(append(b, byte(len(s))), s...)
}
