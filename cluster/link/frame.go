package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A frame is a fixed header and a body, all integers big endian:
//
//	 0  u32  length of the body
//	 4  u8   type
//	 5  u8   kind: of a call or a request, who asks says; of an answer, its status
//	 6  u16  zero
//	 8  u64  request id, chosen by the dialing side, unique within a session
//	16  u32  CRC-32C over bytes 0..15 and the body
//
// The checksum is there because what is carried may have no other: TCP's own is weak.
const headerSize = 20

// Frame types. Numbers are for ever: a new meaning takes a new number.
const (
	framePing     uint8 = 1  // dialer → acceptor, id counts up; a body is ignored
	framePong     uint8 = 2  // acceptor → dialer, echoes the id
	frameCall     uint8 = 3  // a call
	frameCancel   uint8 = 4  // the caller no longer waits for that id
	frameAnswer   uint8 = 5  // of a call or a request; kind is the status
	frameRequest  uint8 = 6  // a request for who serves them (Link.Serve)
	frameChunk    uint8 = 7  // a piece of the stream of that id; an empty one: the source failed
	frameCredit   uint8 = 8  // acceptor → dialer: u32 bytes of a stream consumed
	frameProgress uint8 = 9  // acceptor → dialer: still working on that id
	frameBeacon   uint8 = 10 // dialer → acceptor, from version 2 on: unanswered (Observer.Beacon)
)

// Status of an answer.
const (
	StatusOK      uint8 = 0 // the body is the answer
	StatusError   uint8 = 1 // worked on and failed; the body is a text, perhaps with more behind it
	StatusRefused uint8 = 2 // surely not worked on; the body is a reason code and a text
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Errors of the decoder. Each ends the connection it came from.
var (
	errFrameChecksum = errors.New("frame with a wrong checksum")
	errFrameSize     = errors.New("frame larger than allowed")
	errFrameHeader   = errors.New("frame header with bits of an unknown version")
)

type frameHeader struct {
	length uint32
	typ    uint8
	kind   uint8
	id     uint64
	crc    uint32
}

// appendHeader appends the header of a frame whose body is parts, one after another.
func appendHeader(dst []byte, typ, kind uint8, id uint64, parts [][]byte) []byte {
	length := 0
	for _, p := range parts {
		length += len(p)
	}
	at := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, uint32(length))
	dst = append(dst, typ, kind, 0, 0)
	dst = binary.BigEndian.AppendUint64(dst, id)
	crc := crc32.Update(0, castagnoli, dst[at:at+16])
	for _, p := range parts {
		crc = crc32.Update(crc, castagnoli, p)
	}
	return binary.BigEndian.AppendUint32(dst, crc)
}

func parseHeader(b *[headerSize]byte) (frameHeader, error) {
	h := frameHeader{
		length: binary.BigEndian.Uint32(b[0:]),
		typ:    b[4],
		kind:   b[5],
		id:     binary.BigEndian.Uint64(b[8:]),
		crc:    binary.BigEndian.Uint32(b[16:]),
	}
	if b[6] != 0 || b[7] != 0 {
		return h, errFrameHeader
	}
	return h, nil
}

// trustedSize is how much is allocated on the word of a frame's header alone; beyond it the buffer
// grows as bytes arrive. An entry of ordinary size (1 MiB and what surrounds it) is not copied on
// its way in.
const trustedSize = 1<<20 + 64<<10

// readFrame reads one frame with a body of at most limit bytes. The body is the
// caller's to keep. io.EOF means that the stream ended between two frames.
func readFrame(r io.Reader, limit int) (frameHeader, []byte, error) {
	var raw [headerSize]byte
	if _, err := io.ReadFull(r, raw[:]); err != nil {
		return frameHeader{}, nil, err
	}
	h, err := parseHeader(&raw)
	if err != nil {
		return h, nil, err
	}
	if uint64(h.length) > uint64(limit) {
		return h, nil, fmt.Errorf("%w: %d bytes, at most %d", errFrameSize, h.length, limit)
	}
	body, err := readBody(r, int(h.length))
	if err != nil {
		return h, nil, err
	}
	crc := crc32.Update(0, castagnoli, raw[:16])
	if crc = crc32.Update(crc, castagnoli, body); crc != h.crc {
		return h, nil, errFrameChecksum
	}
	return h, body, nil
}

func readBody(r io.Reader, n int) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	body := make([]byte, min(n, trustedSize))
	have := 0
	for {
		m, err := io.ReadFull(r, body[have:])
		have += m
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if have == n {
			return body, nil
		}
		grown := make([]byte, min(n, 2*have))
		copy(grown, body)
		body = grown
	}
}
