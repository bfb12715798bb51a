package kafkaproto

import (
	"encoding/binary"
	"fmt"
)

// origin is where compressed bytes come from, which decides how strictly they are read.
type origin int8

const (
	// fromLog: from a batch that was stored, perhaps by a program that checked less.
	// Whatever can be read is.
	fromLog origin = iota
	// fromBatch: from a producer's record batch, which is stored as it came. All that
	// readers have in common is one frame, to the last byte: the first reader that stops
	// at something else, or behind the first frame, never gets past it.
	fromBatch
	// fromSet0 and fromSet1: from a wrapper of magic 0 or 1, which is compressed anew. What
	// Kafka reads is taken; its LZ4 knows one frame, too.
	fromSet0
	fromSet1
)

// checkCompressed reports whether the compressed bytes are framed as their origin has to
// be, as far as can be told without decompressing: LZ4 and zstd. The error is ErrCorrupt.
func checkCompressed(codec Codec, from origin, src []byte) error {
	switch {
	case codec == LZ4 && from != fromLog:
		return checkLZ4(src)
	case codec == Zstd && from == fromBatch:
		return checkZstd(src)
	}
	return nil
}

// The LZ4 frame format.
const (
	lz4Magic = 0x184D2204

	// Frame header: magic 4, FLG 1, BD 1, [content size 8], [dictionary id 4], HC 1.
	lz4FlagsAt = 4

	lz4Version     = 0xc0 // of the flags; 1 is known
	lz4Independent = 0x20
	lz4BlockSums   = 0x10
	lz4HasSize     = 0x08
	lz4HasSum      = 0x04
	lz4Reserved    = 0x02
	lz4HasDict     = 0x01

	lz4Stored = 1 << 31 // of a block's size: it is not compressed
)

// checkLZ4 walks over src, which must be one LZ4 frame as Java's clients read it (KIP-57,
// org.apache.kafka.common.compress.Lz4BlockInputStream): version 1, independent blocks, no
// dictionary, no reserved bits, no empty block (which that stream takes for its end or
// stumbles over), an end mark. Java stops reading there; others refuse what follows, so
// nothing may. Checksums are for who decompresses.
func checkLZ4(src []byte) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: lz4: %s", ErrCorrupt, fmt.Sprintf(format, args...))
	}
	if len(src) < lz4FlagsAt+3 {
		return bad("%d bytes are no frame", len(src))
	}
	if magic := binary.LittleEndian.Uint32(src); magic != lz4Magic {
		return bad("frame magic %08x, want %08x", magic, uint32(lz4Magic))
	}
	flags, descriptor := src[lz4FlagsAt], src[lz4FlagsAt+1]
	size := descriptor >> 4 & 7
	switch {
	case flags&lz4Version != 1<<6:
		return bad("frame version %d, want 1", flags>>6)
	case flags&(lz4Reserved|lz4HasDict) != 0 || descriptor&0x8f != 0:
		return bad("frame with a dictionary or reserved bits")
	case flags&lz4Independent == 0:
		return bad("blocks depend on the ones before, which Kafka's consumers do not read")
	case size < 4:
		return bad("block size code %d, want 4 to 7", size)
	}
	most := 1 << (8 + 2*size) // 64 KiB to 4 MiB
	at := lz4HeaderSize(flags)
	for {
		if len(src)-at < 4 {
			return bad("no end mark")
		}
		word := binary.LittleEndian.Uint32(src[at:])
		at += 4
		if word == 0 {
			break
		}
		n := int(word &^ lz4Stored)
		switch {
		case n > most:
			return bad("block of %d bytes, at most %d", n, most)
		case n > len(src)-at:
			return bad("block of %d bytes where %d are left", n, len(src)-at)
		case n == 0, n == 1 && word&lz4Stored == 0 && src[at] == 0:
			return bad("empty block")
		}
		at += n
		if flags&lz4BlockSums != 0 {
			at += 4
		}
	}
	if flags&lz4HasSum != 0 {
		at += 4
	}
	if at != len(src) {
		return bad("frame of %d bytes in %d", at, len(src))
	}
	return nil
}

// lz4HeaderSize is that of a frame with these flags.
func lz4HeaderSize(flags byte) int {
	n := lz4FlagsAt + 3
	if flags&lz4HasSize != 0 {
		n += 8
	}
	if flags&lz4HasDict != 0 {
		n += 4
	}
	return n
}

// The Zstandard frame format (RFC 8878).
const (
	zstdMagic = 0xFD2FB528

	// Of the frame header's descriptor.
	zstdSingleSegment = 0x20
	zstdHasSum        = 0x04

	zstdRLE = 1 // block type: one byte that is repeated
)

// checkZstd walks over src, which must be one frame and nothing else: readers that
// decompress in one call take the first frame for all there is. What stands in the frame
// is for who decompresses.
func checkZstd(src []byte) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: zstd: %s", ErrCorrupt, fmt.Sprintf(format, args...))
	}
	if len(src) < 5 {
		return bad("%d bytes are no frame", len(src))
	}
	if magic := binary.LittleEndian.Uint32(src); magic != zstdMagic {
		return bad("frame magic %08x, want %08x", magic, uint32(zstdMagic))
	}
	descriptor := src[4]
	at := 5 + [4]int{0, 1, 2, 4}[descriptor&3] // dictionary id
	at += [4]int{0, 2, 4, 8}[descriptor>>6]    // content size
	switch {
	case descriptor&zstdSingleSegment == 0:
		at++ // window
	case descriptor>>6 == 0:
		at++ // a content size of one byte
	}
	for last := false; !last; {
		if len(src)-at < 3 {
			return bad("no last block")
		}
		word := int(src[at]) | int(src[at+1])<<8 | int(src[at+2])<<16
		at += 3
		last = word&1 != 0
		if word>>1&3 == zstdRLE {
			at++
		} else {
			at += word >> 3
		}
	}
	if descriptor&zstdHasSum != 0 {
		at += 4
	}
	if at != len(src) {
		return bad("frame of %d bytes in %d", at, len(src))
	}
	return nil
}
