// Package frames lets two write WebSocket frames to one connection: who frames Kafka's messages,
// and gorilla/websocket, which does the handshake, reads, and writes control frames. The library
// divides messages into frames of its buffer's size, copies them, and can only wait until the
// connection takes them.
//
// You are here: below both ends of the WebSocket listener, gateway/listen and gateway/shim. The
// package knows where a frame begins, and nothing of Kafka. Clients compile it into their programs:
// it imports the standard library only.
package frames

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// Of a frame's first two bytes (RFC 6455, section 5.2).
const (
	finalBinary = 0x80 | 0x2
	opcodeMask  = 0x0f
	closeFrame  = 0x8
	masked      = 0x80
)

// MostHeader is the largest header of a frame in bytes: two, eight of size, four of the mask.
const MostHeader = 2 + 8 + 4

// AppendHeader appends the header of the only frame of a binary message of size bytes. Of its two
// ends the client masks what it sends, and gives the four bytes of the mask; a server has none.
func AppendHeader(b []byte, size int, mask []byte) []byte {
	bit := byte(0)
	if len(mask) > 0 {
		bit = masked
	}
	b = append(b, finalBinary)
	switch {
	case size < 126:
		b = append(b, bit|byte(size))
	case size < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, bit|126), uint16(size))
	default:
		b = binary.BigEndian.AppendUint64(append(b, bit|127), uint64(size))
	}
	return append(b, mask...)
}

// HeaderSize is the size of the header that AppendHeader makes, in bytes.
func HeaderSize(size int, mask bool) int {
	n := 2
	switch {
	case size >= 1<<16:
		n += 8
	case size >= 126:
		n += 2
	}
	if mask {
		n += 4
	}
	return n
}

// ErrOver: nothing may follow what was sent, a close frame or a part of a frame.
var ErrOver = errors.New("no frame can follow on this connection")

// Turns lets either a message or one of gorilla's control frames go to a connection at a time. To
// gorilla it is the connection.
type Turns struct {
	net.Conn
	turn chan struct{} // has an element while nobody writes
	// control is the deadline that gorilla has set for its next frame, ns since 1970; 0: none. It
	// must not hit a message that is under way, and does not reach the connection before its turn.
	control  atomic.Int64
	goodbye  atomic.Bool // a close frame was sent: nothing may follow it
	upgraded atomic.Bool // what is written is frames
	// broken: a frame was cut short, and what follows would be taken for the rest of it.
	broken atomic.Bool
}

// NewTurns makes turns for a connection that begins with a handshake.
func NewTurns(c net.Conn) *Turns {
	t := &Turns{Conn: c, turn: make(chan struct{}, 1)}
	t.turn <- struct{}{}
	return t
}

// Upgraded says that the handshake is over.
func (t *Turns) Upgraded() { t.upgraded.Store(true) }

// SetWriteDeadline implements net.Conn for gorilla.
func (t *Turns) SetWriteDeadline(at time.Time) error {
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
func (t *Turns) Write(b []byte) (n int, err error) {
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
	if n, err = t.Conn.Write(b); n > 0 && n < len(b) {
		t.broken.Store(true)
	}
	_ = t.Conn.SetWriteDeadline(time.Time{})
	return n, err
}

// CloseWrite ends the sending half, if the transport has halves.
func (t *Turns) CloseWrite() error {
	if half, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Send waits for its turn, and has write send what is no control frame: whole frames, or with an
// error. It gives that error, net.ErrClosed once closed is, or ErrOver.
func (t *Turns) Send(closed <-chan struct{}, write func() error) error {
	select {
	case <-t.turn:
	case <-closed:
		return net.ErrClosed
	}
	return t.Finish(write)
}

// TryBegin takes the turn for what is no control frame if that can be done at once. Cancel or
// Finish gives it back.
func (t *Turns) TryBegin() bool {
	select {
	case <-t.turn:
	default:
		return false
	}
	if t.over() {
		t.Cancel()
		return false
	}
	return true
}

// Cancel gives back a turn in which whole frames, or nothing, were sent.
func (t *Turns) Cancel() { t.turn <- struct{}{} }

// Finish has write send what is left of the frame of this turn, and gives the turn back.
func (t *Turns) Finish(write func() error) error {
	defer t.Cancel()
	if t.over() {
		return ErrOver
	}
	err := write()
	if err != nil {
		t.broken.Store(true)
	}
	return err
}

func (t *Turns) over() bool { return t.goodbye.Load() || t.broken.Load() }
