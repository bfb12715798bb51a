package listen

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// gorilla/websocket does the handshake, reads, and writes control frames. Answers are framed here:
// the library copies a message into a buffer of its own and does not take one in parts. A server's
// frames are not masked (RFC 6455, section 5.1), so a header in front of the parts is all.

// Of a frame's first two bytes (RFC 6455, section 5.2).
const (
	finalFrame  = 0x80
	opcodeMask  = 0x0f
	binaryFrame = 0x2
	closeFrame  = 0x8
)

// appendFrameHeader appends the header of the only frame of a binary message.
func appendFrameHeader(b []byte, size int) []byte {
	b = append(b, finalFrame|binaryFrame)
	switch {
	case size < 126:
		return append(b, byte(size))
	case size < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, 126), uint16(size))
	}
	return binary.BigEndian.AppendUint64(append(b, 127), uint64(size))
}

// frameTurns lets either an answer or one of gorilla's control frames go to a connection at a time.
// To gorilla it is the connection.
type frameTurns struct {
	net.Conn
	turn chan struct{} // has an element while nobody writes
	// control is the deadline that gorilla has set for its next frame, ns since 1970; 0: none. It
	// must not hit an answer that is under way, and does not reach the connection before its turn.
	control  atomic.Int64
	goodbye  atomic.Bool // a close frame was sent: nothing may follow it
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
	defer func() { t.turn <- struct{}{} }()
	if t.broken.Load() {
		return 0, net.ErrClosed
	}
	if len(b) > 0 && b[0]&opcodeMask == closeFrame {
		t.goodbye.Store(true)
	}
	if err := t.Conn.SetWriteDeadline(deadline); err != nil {
		return 0, err
	}
	return t.Conn.Write(b)
}

// CloseWrite ends the sending half, if the transport has halves.
func (t *frameTurns) CloseWrite() error {
	if half, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// answer has write send what is no control frame, in its turn.
func (t *frameTurns) answer(write func() error) error {
	<-t.turn
	defer func() { t.turn <- struct{}{} }()
	if t.goodbye.Load() || t.broken.Load() {
		return syscall.EPIPE // as over TCP when the other side has closed
	}
	err := write()
	if err != nil {
		t.broken.Store(true)
	}
	return err
}
