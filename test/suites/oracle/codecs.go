package oracle

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"math/bits"
)

// Numbers of the codecs in attributes.
const (
	codecGzip   = 1
	codecSnappy = 2
	codecLZ4    = 3
	codecZstd   = 4
)

// gz is one gzip member.
func gz(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	w.Close()
	return b.Bytes()
}

// Snappy, in literals only: nothing becomes smaller.

// rawSnappy is a block without framing.
func rawSnappy(data []byte) []byte {
	b := binary.AppendUvarint(nil, uint64(len(data)))
	for len(data) > 0 {
		n := min(len(data), 60)
		b = append(append(b, byte(n-1)<<2), data[:n]...)
		data = data[n:]
	}
	return b
}

// xerial is the framing of snappy-java: a header and blocks behind their size.
func xerial(blocks ...[]byte) []byte {
	b := xerialHeader(1, 1)
	for _, block := range blocks {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(block))), block...)
	}
	return b
}

func xerialHeader(version, compatible uint32) []byte {
	b := []byte("\x82SNAPPY\x00")
	b = binary.BigEndian.AppendUint32(b, version)
	return binary.BigEndian.AppendUint32(b, compatible)
}

// LZ4, in blocks that are not compressed.

// lz4Frame is a frame in which all can be chosen. The flags' version is 1.
type lz4Frame struct {
	data     [][]byte // one block each
	linked   bool
	noEnd    bool
	sums     bool // block checksums
	sum      bool // content checksum
	size     bool // content size
	dict     bool // dictionary id 1
	reserved bool // a reserved bit of the flags
	version  byte // in place of 1
	max      byte // block size code in place of 4 (64 KiB)
	badHead  bool // wrong header checksum
	oldHead  bool // header checksum over the frame's magic as well (KAFKA-3160)
	badSum   bool // wrong checksums, of blocks or content
	badSize  bool
	packed   bool // blocks are said to be compressed, and are one literal run
}

func (f lz4Frame) bytes() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0x184D2204)
	version := f.version
	if version == 0 {
		version = 1
	}
	flags := version << 6
	for bit, on := range map[byte]bool{0x20: !f.linked, 0x10: f.sums, 0x08: f.size, 0x04: f.sum, 0x02: f.reserved, 0x01: f.dict} {
		if on {
			flags |= bit
		}
	}
	size := f.max
	if size == 0 {
		size = 4
	}
	b = append(b, flags, size<<4)
	content := bytes.Join(f.data, nil)
	if f.size {
		n := uint64(len(content))
		if f.badSize {
			n++
		}
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	if f.dict {
		b = binary.LittleEndian.AppendUint32(b, 1)
	}
	head := byte(xxh32(b[4:]) >> 8)
	if f.oldHead {
		head = byte(xxh32(b) >> 8)
	}
	if f.badHead {
		head++
	}
	b = append(b, head)
	wrong := uint32(0)
	if f.badSum {
		wrong = 1
	}
	for _, block := range f.data {
		if f.packed {
			block = lz4Literals(block)
			b = binary.LittleEndian.AppendUint32(b, uint32(len(block)))
		} else {
			b = binary.LittleEndian.AppendUint32(b, uint32(len(block))|1<<31)
		}
		b = append(b, block...)
		if f.sums {
			b = binary.LittleEndian.AppendUint32(b, xxh32(block)+wrong)
		}
	}
	if f.noEnd {
		return b
	}
	b = append(b, 0, 0, 0, 0)
	if f.sum {
		b = binary.LittleEndian.AppendUint32(b, xxh32(content)+wrong)
	}
	return b
}

// lz4Literals is a compressed block of one run of literals.
func lz4Literals(data []byte) []byte {
	n := len(data)
	if n < 15 {
		return append([]byte{byte(n) << 4}, data...)
	}
	b := []byte{0xf0}
	for n -= 15; n >= 255; n -= 255 {
		b = append(b, 255)
	}
	return append(append(b, byte(n)), data...)
}

// lz4Legacy is the format before frames: a magic and blocks, without an end.
func lz4Legacy(data []byte) []byte {
	block := lz4Literals(data)
	b := binary.LittleEndian.AppendUint32(nil, 0x184C2102)
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(block))), block...)
}

// skippable is a frame that readers of LZ4 and zstd shall skip.
func skippable(data string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0x184D2A50)
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(data))), data...)
}

// xxh32 is xxHash 32 with seed 0.
func xxh32(b []byte) uint32 {
	var p1, p2, p3, p4, p5 uint32 = 2654435761, 2246822519, 3266489917, 668265263, 374761393
	h, n := p5, uint32(len(b))
	if len(b) >= 16 {
		v := [4]uint32{p1 + p2, p2, 0, -p1}
		for ; len(b) >= 16; b = b[16:] {
			for i := range v {
				v[i] = bits.RotateLeft32(v[i]+binary.LittleEndian.Uint32(b[4*i:])*p2, 13) * p1
			}
		}
		h = bits.RotateLeft32(v[0], 1) + bits.RotateLeft32(v[1], 7) + bits.RotateLeft32(v[2], 12) + bits.RotateLeft32(v[3], 18)
	}
	h += n
	for ; len(b) >= 4; b = b[4:] {
		h = bits.RotateLeft32(h+binary.LittleEndian.Uint32(b)*p3, 17) * p4
	}
	for _, c := range b {
		h = bits.RotateLeft32(h+uint32(c)*p5, 11) * p1
	}
	h = (h ^ h>>15) * p2
	h = (h ^ h>>13) * p3
	return h ^ h>>16
}

// Zstandard, in raw blocks.

// zstdFrame is a frame in which all can be chosen.
type zstdFrame struct {
	data     []byte
	window   byte // window descriptor; 0: single segment, with the content's size
	dict     byte // dictionary id, in one byte
	badSum   bool // a wrong content checksum
	reserved bool
	badSize  bool
	noLast   bool // no block is the last
	badBlock bool // a block of the reserved type
}

func (f zstdFrame) bytes() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0xFD2FB528)
	var descriptor byte
	if f.window == 0 {
		descriptor |= 0x80 | 0x20 // a size of 4 bytes, single segment
	}
	if f.dict != 0 {
		descriptor |= 1
	}
	if f.badSum {
		descriptor |= 4
	}
	if f.reserved {
		descriptor |= 8
	}
	b = append(b, descriptor)
	if f.window != 0 {
		b = append(b, f.window)
	}
	if f.dict != 0 {
		b = append(b, f.dict)
	}
	if f.window == 0 {
		n := uint32(len(f.data))
		if f.badSize {
			n++
		}
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	block := uint32(len(f.data)) << 3
	if !f.noLast {
		block |= 1
	}
	if f.badBlock {
		block |= 3 << 1
	}
	b = append(b, byte(block), byte(block>>8), byte(block>>16))
	b = append(b, f.data...)
	if f.badSum {
		b = append(b, 1, 2, 3, 4)
	}
	return b
}
