package shim

import (
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// gorilla/websocket does the handshake, reads, and writes control frames. Over plain TCP messages
// are framed here: the library divides a message into frames of its buffer's size, and can only
// wait until the connection takes them. Over TLS, and on connections that somebody else has made,
// it writes messages, too.

// Of a frame's first two bytes (RFC 6455, section 5.2).
const (
	finalBinary = 0x80 | 0x2
	masked      = 0x80
)

const (
	// scratchSize is what is masked and written at once, in bytes.
	scratchSize = 128 << 10
	// mostHeader is the largest header of a frame: two bytes, eight of size, four of the mask.
	mostHeader = 2 + 8 + 4
)

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

// appendHeader appends the header of the only frame of a message.
func appendHeader(b []byte, size int, m *mask) []byte {
	b = append(b, finalBinary)
	switch {
	case size < 126:
		b = append(b, masked|byte(size))
	case size < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, masked|126), uint16(size))
	default:
		b = binary.BigEndian.AppendUint64(append(b, masked|127), uint64(size))
	}
	return append(b, m[:4]...)
}

// frameTurns lets either a message or one of gorilla's control frames go to a connection at a time.
// To gorilla it is the connection.
type frameTurns struct {
	net.Conn
	turn chan struct{} // has an element while nobody writes
	// control is the deadline that gorilla has set for its next frame, ns since 1970; 0: none. It
	// must not hit a message that is under way, and does not reach the connection before its turn.
	control  atomic.Int64
	upgraded atomic.Bool // what is written is frames
	// broken: a frame was cut short, and what follows would be taken for the rest of it.
	broken atomic.Bool
}

func newFrameTurns(c net.Conn) *frameTurns {
	t := &frameTurns{Conn: c, turn: make(chan struct{}, 1)}
	t.turn <- struct{}{}
	return t
}

// SetWriteDeadline implements net.Conn for gorilla.
func (t *frameTurns) SetWriteDeadline(at time.Time) error {
	if !t.upgraded.Load() {
		return t.Conn.SetWriteDeadline(at)
	}
	ns := int64(0)
	if !at.IsZero() {
		ns = at.UnixNano()
	}
	t.control.Store(ns)
	return nil
}

// Write implements net.Conn for gorilla: b is a control frame.
func (t *frameTurns) Write(b []byte) (int, error) {
	if !t.upgraded.Load() {
		return t.Conn.Write(b)
	}
	var deadline time.Time
	if ns := t.control.Load(); ns != 0 {
		deadline = time.Unix(0, ns)
		late := time.NewTimer(time.Until(deadline))
		defer late.Stop()
		select {
		case <-t.turn:
		case <-late.C:
			return 0, os.ErrDeadlineExceeded
		}
	} else {
		<-t.turn
	}
	defer t.end()
	if t.broken.Load() {
		return 0, net.ErrClosed
	}
	if err := t.Conn.SetWriteDeadline(deadline); err != nil {
		return 0, err
	}
	n, err := t.Conn.Write(b)
	_ = t.Conn.SetWriteDeadline(time.Time{})
	return n, err
}

func (t *frameTurns) end() { t.turn <- struct{}{} }

// CloseWrite ends the sending half, if the transport has halves.
func (t *frameTurns) CloseWrite() error {
	if half, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// message writes a message and returns when the connection has taken it, or with its error.
func (t *frameTurns) message(b []byte, closed <-chan struct{}) error {
	select {
	case <-t.turn:
	case <-closed:
		return net.ErrClosed
	}
	defer t.end()
	scratch := scratches.Get().(*[scratchSize]byte)
	defer scratches.Put(scratch)
	m := newMask()
	out := appendHeader(scratch[:0], len(b), &m)
	for len(b) > 0 {
		n := min(len(b), (scratchSize-len(out))&^3)
		m.put(scratch[len(out):], b[:n])
		if _, err := t.Conn.Write(scratch[:len(out)+n]); err != nil {
			t.broken.Store(true)
			return err
		}
		b, out = b[n:], out[:0]
	}
	return nil
}

// try begins to write a message and does not wait. It gives what the connection has not taken, in a
// memory of its own; begun reports whether it has taken anything. Who began keeps the turn until
// rest has written what is left.
func (t *frameTurns) try(b []byte) (left []byte, begun bool) {
	if mostHeader+len(b) > scratchSize {
		return nil, false
	}
	select {
	case <-t.turn:
	default:
		return nil, false
	}
	scratch := scratches.Get().(*[scratchSize]byte)
	defer scratches.Put(scratch)
	m := newMask()
	out := appendHeader(scratch[:0], len(b), &m)
	m.put(scratch[len(out):], b)
	out = scratch[:len(out)+len(b)]
	n := writeNow(t.Conn, out)
	if n == len(out) || n == 0 {
		t.end()
		return nil, n > 0
	}
	return append([]byte(nil), out[n:]...), true
}

// rest writes what try has left.
func (t *frameTurns) rest(b []byte) error {
	defer t.end()
	_, err := t.Conn.Write(b)
	if err != nil {
		t.broken.Store(true)
	}
	return err
}
