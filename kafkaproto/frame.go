package kafkaproto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// FrameLimit is the first size that no frame may have, whatever is configured:
// its leading byte 0x16 opens a TLS record, and the letters of an HTTP method
// are above. A listener that tells the three apart by the first byte relies on it.
const FrameLimit = 0x16000000

// minFrame is the shortest request: key, version and correlation id.
const minFrame = 8

// frameStep is what a size prefix alone can make ReadFrame allocate, OrdinaryFrame what it can once
// so much has come: producers send up to 1 MiB at once by default (max.request.size), and a request
// that is copied from one memory to a larger one again and again costs as much as what else is done
// with it.
const (
	frameStep     = 64 << 10
	OrdinaryFrame = 1<<20 + 64<<10
)

// CheckFrameSize reports whether size, as read from a size prefix, can be that
// of a request with at most max bytes. The error is ErrFrameSize.
func CheckFrameSize(size int32, max int) error {
	if size < minFrame || int64(size) > int64(min(max, FrameLimit-1)) {
		return fmt.Errorf("%w: %d bytes, allowed are %d to %d", ErrFrameSize, size, minFrame, min(max, FrameLimit-1))
	}
	return nil
}

// ReadFrame reads one size-prefixed request of at most limit bytes, whatever its API, as Kafka
// takes them (socket.request.max.bytes), and returns it without the prefix, in memory of its own.
// Memory grows with the bytes that arrive: a prefix alone costs no more than 64 KiB, 64 KiB no more
// than OrdinaryFrame, and then it doubles. The error is io.EOF when r ended before the first byte,
// io.ErrUnexpectedEOF when it ended inside a frame, ErrFrameSize for a size that cannot be, else
// r's own.
func ReadFrame(r io.Reader, limit int) ([]byte, error) {
	var start [4 + minFrame]byte
	if _, err := io.ReadFull(r, start[:4]); err != nil {
		return nil, err
	}
	size := int32(binary.BigEndian.Uint32(start[:4]))
	if err := CheckFrameSize(size, limit); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(r, start[4:]); err != nil {
		return nil, cutFrame(err)
	}
	frame := make([]byte, minFrame, min(int(size), frameStep))
	copy(frame, start[4:])
	for len(frame) < int(size) {
		if len(frame) == cap(frame) {
			grown := make([]byte, len(frame), min(int(size), max(OrdinaryFrame, 2*cap(frame))))
			copy(grown, frame)
			frame = grown
		}
		have := len(frame)
		frame = frame[:cap(frame)]
		if n, err := io.ReadFull(r, frame[have:]); err != nil {
			return nil, fmt.Errorf("frame of %d bytes ended after %d: %w", size, have+n, cutFrame(err))
		}
	}
	return frame, nil
}

// FrameOf gives the request that message holds, without its size prefix and
// aliasing message, where a transport with messages of its own (WebSocket) puts
// exactly one request with its prefix in each. The bounds are those of
// ReadFrame; a prefix that disagrees with the message's length is ErrFrameSize.
func FrameOf(message []byte, max int) ([]byte, error) {
	if len(message) < 4+minFrame {
		return nil, fmt.Errorf("%w: message of %d bytes", ErrFrameSize, len(message))
	}
	size := int32(binary.BigEndian.Uint32(message))
	if err := CheckFrameSize(size, max); err != nil {
		return nil, err
	}
	if int64(size) != int64(len(message)-4) {
		return nil, fmt.Errorf("%w: prefix says %d bytes, the message has %d", ErrFrameSize, size, len(message)-4)
	}
	return message[4:], nil
}

// cutFrame makes the end of a stream inside a frame an unexpected one.
func cutFrame(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
