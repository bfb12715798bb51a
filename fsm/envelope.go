package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A snapshot is wrapped so that damage, another kind of file and a newer format
// are told apart before anything of it is believed, all big endian:
//
//	0      magic      4   which machine's
//	4      version    2
//	6      payload    n
//	6 + n  CRC-32C    4   over everything before it

// ErrSnapshot is in every error about a snapshot that cannot be restored.
var ErrSnapshot = errors.New("snapshot cannot be restored")

const (
	envelopeHead = 6
	envelopeTail = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal wraps what build appends.
func seal(magic string, version uint16, build func([]byte) []byte) []byte {
	b := append(make([]byte, 0, 512), magic...)
	b = binary.BigEndian.AppendUint16(b, version)
	b = build(b)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// unseal gives the payload of a snapshot of that magic and of a version up to
// newest, and its version.
func unseal(magic string, newest uint16, b []byte) (payload []byte, version uint16, err error) {
	if len(b) < envelopeHead+envelopeTail {
		return nil, 0, fmt.Errorf("%w: %d bytes are too few", ErrSnapshot, len(b))
	}
	if string(b[:4]) != magic {
		return nil, 0, fmt.Errorf("%w: it begins with %q, want %q", ErrSnapshot, b[:4], magic)
	}
	body, sum := b[:len(b)-envelopeTail], binary.BigEndian.Uint32(b[len(b)-envelopeTail:])
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return nil, 0, fmt.Errorf("%w: damaged: CRC %08x, its bytes give %08x", ErrSnapshot, sum, got)
	}
	version = binary.BigEndian.Uint16(b[4:])
	if version == 0 || version > newest {
		err := fmt.Errorf("%w: format %d, this program knows 1 to %d", ErrSnapshot, version, newest)
		if version > newest {
			err = fmt.Errorf("%w; %w", err, ErrNewer)
		}
		return nil, 0, err
	}
	return body[envelopeHead:], version, nil
}
