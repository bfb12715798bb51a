package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/trimaran-io/trimaran/cluster/link/wire"
)

// The handshake is one message each way, before any frame:
//
//	magic "TRMP" | u16 length | body | u32 CRC-32C of all before
//
// The body of the hello: u16 lowest and u16 highest version spoken, u8 class,
// u64 boot, u64 generation, then three strings (u8 length and bytes): identity of the
// dialing node, identity it means to reach ("" any), cluster id ("" none yet).
// The body of the answer: u16 version chosen (0 when refused), u8 reason, then three
// strings: identity, cluster id, text, and then (not from the first releases) u64 boot.
// Bytes behind what is known are ignored, so that a later version can add to the end.
const (
	helloMagic = "TRMP"
	// maxHello bounds what is read from a stranger before it has said who it is.
	maxHello = 1024
	// maxIdentity bounds identities and cluster ids.
	maxIdentity = wire.MaxName

	versionMin uint16 = 1
	// versionMax is 2: beacons (frameBeacon) may be sent to the accepting side.
	versionMax uint16 = 2

	versionBeacons uint16 = 2 // the first with frameBeacon
)

// Class says what a connection carries.
type Class uint8

const (
	Control Class = 0 // opens a session
	Bulk    Class = 1 // joins the session of the same generation
	single  Class = 2 // one call to an address, no session
)

func (c Class) String() string {
	switch c {
	case Control:
		return "control"
	case Bulk:
		return "bulk"
	case single:
		return "single"
	}
	return fmt.Sprintf("class %d", uint8(c))
}

type hello struct {
	versionMin, versionMax uint16
	class                  Class
	boot                   uint64 // random, one per process: a restarted node has another
	generation             uint64 // counts the sessions of that process
	identity               string
	target                 string
	clusterID              string
}

type helloAnswer struct {
	version   uint16
	reason    uint8
	identity  string
	clusterID string
	text      string
	boot      uint64 // of the answering process; 0 from one that does not say
}

var errHello = errors.New("malformed hello")

func takeString8(b []byte) (string, []byte, error) {
	if len(b) < 1 || len(b) < 1+int(b[0]) {
		return "", nil, errHello
	}
	n := 1 + int(b[0])
	return string(b[1:n]), b[n:], nil
}

func (h hello) encode() []byte {
	b := binary.BigEndian.AppendUint16(nil, h.versionMin)
	b = binary.BigEndian.AppendUint16(b, h.versionMax)
	b = append(b, byte(h.class))
	b = binary.BigEndian.AppendUint64(b, h.boot)
	b = binary.BigEndian.AppendUint64(b, h.generation)
	b = wire.AppendName(b, h.identity)
	b = wire.AppendName(b, h.target)
	return wire.AppendName(b, h.clusterID)
}

func decodeHello(b []byte) (hello, error) {
	var h hello
	if len(b) < 21 {
		return h, errHello
	}
	h.versionMin = binary.BigEndian.Uint16(b)
	h.versionMax = binary.BigEndian.Uint16(b[2:])
	h.class = Class(b[4])
	h.boot = binary.BigEndian.Uint64(b[5:])
	h.generation = binary.BigEndian.Uint64(b[13:])
	b = b[21:]
	for _, s := range []*string{&h.identity, &h.target, &h.clusterID} {
		var err error
		if *s, b, err = takeString8(b); err != nil {
			return h, err
		}
	}
	if h.identity == "" || h.versionMin > h.versionMax {
		return h, errHello
	}
	return h, nil
}

func (a helloAnswer) encode() []byte {
	b := binary.BigEndian.AppendUint16(nil, a.version)
	b = append(b, a.reason)
	b = wire.AppendName(b, a.identity)
	b = wire.AppendName(b, a.clusterID)
	b = wire.AppendName(b, a.text)
	return binary.BigEndian.AppendUint64(b, a.boot)
}

func decodeHelloAnswer(b []byte) (helloAnswer, error) {
	var a helloAnswer
	if len(b) < 3 {
		return a, errHello
	}
	a.version, a.reason = binary.BigEndian.Uint16(b), b[2]
	b = b[3:]
	for _, s := range []*string{&a.identity, &a.clusterID, &a.text} {
		var err error
		if *s, b, err = takeString8(b); err != nil {
			return a, err
		}
	}
	if len(b) >= 8 {
		a.boot = binary.BigEndian.Uint64(b)
	}
	return a, nil
}

// chooseVersion picks the highest version that both sides speak.
func chooseVersion(theirMin, theirMax uint16) (uint16, bool) {
	v := min(theirMax, versionMax)
	return v, v >= max(theirMin, versionMin)
}

// writeHello sends one handshake message in one write.
func writeHello(w io.Writer, body []byte) error {
	b := append([]byte(helloMagic), 0, 0)
	binary.BigEndian.PutUint16(b[4:], uint16(len(body)))
	b = append(b, body...)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	_, err := w.Write(b)
	return err
}

// readHello reads one handshake message and not a byte beyond it.
func readHello(r io.Reader) ([]byte, error) {
	var head [6]byte
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		return nil, err
	}
	if string(head[:4]) != helloMagic {
		return nil, fmt.Errorf("%w: it begins with %q, which is not this protocol", errHello, head[:4])
	}
	if _, err := io.ReadFull(r, head[4:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head[4:]))
	if n > maxHello {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", errHello, n, maxHello)
	}
	rest := make([]byte, n+4)
	if _, err := io.ReadFull(r, rest); err != nil {
		return nil, err
	}
	crc := crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, rest[:n])
	if binary.BigEndian.Uint32(rest[n:]) != crc {
		return nil, fmt.Errorf("%w: wrong checksum", errHello)
	}
	return rest[:n], nil
}
