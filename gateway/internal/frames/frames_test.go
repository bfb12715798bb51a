package frames

import (
	"bytes"
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// taker is a connection that takes at most so many bytes of a write, and then fails.
type taker struct {
	net.Conn
	room int
	got  []byte
}

func (c *taker) Write(b []byte) (int, error) {
	n := min(len(b), c.room)
	c.room -= n
	if c.got = append(c.got, b[:n]...); n < len(b) {
		return n, os.ErrDeadlineExceeded
	}
	return n, nil
}

func (c *taker) SetWriteDeadline(time.Time) error { return nil }

func turns(room int) (*Turns, *taker) {
	c := &taker{room: room}
	t := NewTurns(c)
	t.Upgraded()
	return t, c
}

var ping = []byte{0x89, 0}

func TestHeaders(t *testing.T) {
	t.Parallel()
	mask := []byte{1, 2, 3, 4}
	for _, c := range []struct {
		size int
		mask []byte
		want []byte
	}{
		{125, nil, []byte{0x82, 125}},
		{126, nil, []byte{0x82, 126, 0, 126}},
		{65535, mask, []byte{0x82, 0xfe, 0xff, 0xff, 1, 2, 3, 4}},
		{65536, mask, []byte{0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4}},
		{5, mask, []byte{0x82, 0x85, 1, 2, 3, 4}},
	} {
		if got := AppendHeader(nil, c.size, c.mask); !bytes.Equal(got, c.want) || len(got) > MostHeader || len(got) != HeaderSize(c.size, c.mask != nil) {
			t.Errorf("%d bytes: % x, want % x", c.size, got, c.want)
		}
	}
}

// A control frame waits until the message is whole, and not longer than its deadline.
func TestAControlFrameWaitsForTheMessage(t *testing.T) {
	t.Parallel()
	turns, conn := turns(100)
	if !turns.TryBegin() || turns.TryBegin() {
		t.Fatal("one has the turn, and one only")
	}
	_ = turns.SetWriteDeadline(time.Now().Add(time.Millisecond))
	if _, err := turns.Write(ping); !errors.Is(err, os.ErrDeadlineExceeded) || len(conn.got) > 0 {
		t.Fatalf("% x is sent in the middle of a message, %v", conn.got, err)
	}
	if err := turns.Finish(func() error { _, err := conn.Write([]byte("rest")); return err }); err != nil {
		t.Fatal(err)
	}
	_ = turns.SetWriteDeadline(time.Time{})
	if _, err := turns.Write(ping); err != nil || !bytes.Equal(conn.got, append([]byte("rest"), ping...)) {
		t.Errorf("%q, %v", conn.got, err)
	}
}

// Nothing follows what was cut short, message or control frame, nor a close frame.
func TestNothingFollowsTheLastFrame(t *testing.T) {
	t.Parallel()
	message := func(conn *taker) func() error {
		return func() error { _, err := conn.Write([]byte("message")); return err }
	}
	for _, c := range []struct {
		name string
		room int
		end  func(*Turns, *taker)
	}{
		{"half a message", 3, func(x *Turns, conn *taker) { _ = x.Send(nil, message(conn)) }},
		{"half a ping", 1, func(x *Turns, _ *taker) { _, _ = x.Write(ping) }},
		{"a close frame", 4, func(x *Turns, _ *taker) { _, _ = x.Write([]byte{0x88, 2, 3, 0xe8}) }},
	} {
		turns, conn := turns(c.room)
		c.end(turns, conn)
		if conn.room = 100; len(conn.got) != c.room {
			t.Fatalf("%s: %d bytes were sent", c.name, len(conn.got))
		}
		if err := turns.Send(nil, message(conn)); !errors.Is(err, ErrOver) {
			t.Errorf("%s: a message is sent, %v", c.name, err)
		}
		if turns.TryBegin() {
			t.Errorf("%s: a message is begun", c.name)
		}
		if len(conn.got) != c.room {
			t.Errorf("%s: %q follows", c.name, conn.got)
		}
	}
}

// A ping that got no turn or no room at all spoils nothing.
func TestAFrameThatWasNotBegunSpoilsNothing(t *testing.T) {
	t.Parallel()
	turns, conn := turns(0)
	if _, err := turns.Write(ping); err == nil {
		t.Fatal("there was no room")
	}
	conn.room = 100
	if err := turns.Send(nil, func() error { _, err := conn.Write([]byte("message")); return err }); err != nil {
		t.Error(err)
	}
	closed := make(chan struct{})
	close(closed)
	turns.TryBegin()
	if err := turns.Send(closed, nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("who has closed waits for a turn: %v", err)
	}
}
