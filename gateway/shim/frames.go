package shim

import (
	"crypto/subtle"
	"encoding/binary"
	"math/rand/v2"
	"sync"

	"github.com/trimaran-io/trimaran/gateway/internal/frames"
)

// gorilla/websocket does the handshake, reads, and writes control frames. Over plain TCP messages
// are framed here: the library divides a message into frames of its buffer's size, and can only
// wait until the connection takes them. Over TLS, and on connections that somebody else has made,
// it writes messages, too.

// scratchSize is what is masked and written at once, in bytes.
const scratchSize = 128 << 10

// scratches are for frames while they are masked and written.
var scratches = sync.Pool{New: func() any { return new([scratchSize]byte) }}

// mask is a frame's masking key, again and again.
type mask [512]byte

// newMask draws a key that the other side, and who sends through it, cannot foresee (RFC 6455,
// section 5.3).
func newMask() (m mask) {
	binary.LittleEndian.PutUint32(m[:], rand.Uint32())
	for n := 4; n < len(m); n *= 2 {
		copy(m[n:], m[:n])
	}
	return m
}

// put masks src, which stands at a multiple of 4 bytes in the message, into dst.
func (m *mask) put(dst, src []byte) {
	for len(src) > 0 {
		n := subtle.XORBytes(dst, src[:min(len(src), len(m))], m[:])
		dst, src = dst[n:], src[n:]
	}
}

// sendMasked writes a message and returns when the connection has taken it, or with its error.
func sendMasked(t *frames.Turns, b []byte, closed <-chan struct{}) error {
	return t.Send(closed, func() error {
		scratch := scratches.Get().(*[scratchSize]byte)
		defer scratches.Put(scratch)
		m := newMask()
		out := frames.AppendHeader(scratch[:0], len(b), m[:4])
		for len(b) > 0 {
			n := min(len(b), (scratchSize-len(out))&^3)
			m.put(scratch[len(out):], b[:n])
			if _, err := t.Conn.Write(scratch[:len(out)+n]); err != nil {
				return err
			}
			b, out = b[n:], out[:0]
		}
		return nil
	})
}

// tryMasked writes messages, as many as one call takes, and does not wait. So many were sent whole;
// left is what the connection has not taken of the next one, in a memory of its own, or nil if it
// has taken nothing of it. With something left the turn is kept until finishMasked has written it.
func tryMasked(t *frames.Turns, messages [][]byte) (sent int, left []byte) {
	if len(messages) == 0 || frames.MostHeader+len(messages[0]) > scratchSize || !t.TryBegin() {
		return 0, nil
	}
	scratch := scratches.Get().(*[scratchSize]byte)
	defer scratches.Put(scratch)
	out := scratch[:0]
	for _, b := range messages {
		if len(out)+frames.MostHeader+len(b) > scratchSize {
			break
		}
		m := newMask()
		out = frames.AppendHeader(out, len(b), m[:4])
		m.put(scratch[len(out):], b)
		out = out[:len(out)+len(b)]
	}
	n, end := writeNow(t.Conn, out), 0
	for _, b := range messages {
		begin := end
		if end += frames.HeaderSize(len(b), true) + len(b); end <= n {
			sent++
			continue
		}
		if begin < n {
			return sent, append([]byte(nil), out[n:end]...)
		}
		break
	}
	t.Cancel()
	return sent, nil
}

// finishMasked writes what tryMasked has left.
func finishMasked(t *frames.Turns, left []byte) error {
	return t.Finish(func() error {
		_, err := t.Conn.Write(left)
		return err
	})
}
