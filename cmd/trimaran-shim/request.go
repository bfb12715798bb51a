package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// API keys that the proxy has to know (Kafka protocol guide).
const (
	apiProduce         = 0
	apiFetch           = 1
	apiListOffsets     = 2
	apiMetadata        = 3
	apiOffsetFetch     = 9
	apiFindCoordinator = 10
	apiDescribeGroups  = 15
	apiListGroups      = 16
	apiApiVersions     = 18
	apiDescribeConfigs = 32
)

// repeatable are the requests that change nothing, so that one without an
// answer may be sent again to another gateway. Metadata may create a topic, and
// creating it twice creates it once.
var repeatable = map[int16]bool{
	apiFetch: true, apiListOffsets: true, apiMetadata: true, apiOffsetFetch: true,
	apiFindCoordinator: true, apiDescribeGroups: true, apiListGroups: true,
	apiApiVersions: true, apiDescribeConfigs: true,
}

// request is one message of a client on its way.
type request struct {
	frame       []byte // with its size prefix
	key         int16
	version     int16
	correlation int32
	answered    bool // an answer will come; false for Produce with acks 0
	sent        bool // the gateway may have it whole
}

// safe reports whether the request may be sent (again) to another gateway: it
// was not handed over whole, or changes nothing.
func (r *request) safe() bool { return !r.sent || repeatable[r.key] }

var errRequest = errors.New("malformed request")

// parseRequest reads the head of a request; frame includes the size prefix.
func parseRequest(frame []byte) (*request, error) {
	const head = 4 + 8
	if len(frame) < head {
		return nil, fmt.Errorf("%w: %d bytes", errRequest, len(frame))
	}
	r := &request{
		frame:       frame,
		key:         int16(binary.BigEndian.Uint16(frame[4:])),
		version:     int16(binary.BigEndian.Uint16(frame[6:])),
		correlation: int32(binary.BigEndian.Uint32(frame[8:])),
		answered:    true,
	}
	if r.key != apiProduce {
		return r, nil
	}
	acks, err := produceAcks(frame[head:], r.version)
	if err != nil {
		return nil, err
	}
	r.answered = acks != 0
	return r, nil
}

// produceAcks finds the acks field of a Produce request; b begins at the
// client id of the header. From version 3 on a transactional id stands before
// acks, from 9 on header and body are in flexible form (KIP-482).
func produceAcks(b []byte, version int16) (int16, error) {
	bad := fmt.Errorf("%w: produce", errRequest)
	// skip takes off a nullable string with a length of 2 bytes.
	skip := func() bool {
		if len(b) < 2 {
			return false
		}
		n := int(int16(binary.BigEndian.Uint16(b)))
		b = b[2:]
		if n < 0 {
			return n == -1
		}
		if n > len(b) {
			return false
		}
		b = b[n:]
		return true
	}
	varint := func() (uint64, bool) {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > uint64(len(b)) {
			return 0, false
		}
		b = b[n:]
		return v, v <= uint64(len(b))+1
	}
	if !skip() { // client id: in its old form also in flexible headers
		return 0, bad
	}
	switch {
	case version >= 9:
		tags, ok := varint()
		if !ok {
			return 0, bad
		}
		for range tags {
			if _, ok := varint(); !ok {
				return 0, bad
			}
			size, ok := varint()
			if !ok || size > uint64(len(b)) {
				return 0, bad
			}
			b = b[size:]
		}
		size, ok := varint() // transactional id: length plus one, 0 for null
		if !ok || size > uint64(len(b))+1 {
			return 0, bad
		}
		if size > 0 {
			b = b[size-1:]
		}
	case version >= 3:
		if !skip() {
			return 0, bad
		}
	}
	if len(b) < 2 {
		return 0, bad
	}
	return int16(binary.BigEndian.Uint16(b)), nil
}

// readFrame reads one message with its size prefix. Memory grows with what
// arrives, not with what the prefix claims.
func readFrame(r io.Reader, most int) ([]byte, error) {
	var prefix [4]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return nil, err
	}
	size := int64(int32(binary.BigEndian.Uint32(prefix[:])))
	if size < 8 || size > int64(most) {
		return nil, fmt.Errorf("%w: size %d, want 8 to %d", errRequest, size, most)
	}
	frame := append(make([]byte, 0, 4+min(size, 64<<10)), prefix[:]...)
	for left := size; left > 0; {
		step := min(left, max(int64(len(frame)), 64<<10))
		from := len(frame)
		frame = append(frame, make([]byte, step)...)
		if _, err := io.ReadFull(r, frame[from:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		left -= step
	}
	return frame, nil
}
