package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

const (
	// A request once begun must not fall behind slowestRate by more than
	// beginTimeout: a client that sends a byte now and then would hold memory.
	beginTimeout = time.Minute
	slowestRate  = 128 << 10 // bytes per second
	// stallTimeout is how long an answer may wait for the client to take the next
	// piece of it.
	stallTimeout = 5 * time.Minute
	piece        = 256 << 10 // at most so much is read or written under one deadline
	// farewell is how long a client that is let go may take to read what it was sent.
	farewell = 500 * time.Millisecond
	// partingWords is how long a client whose login failed has to read that before its connection
	// ends. Some take an end that comes together with an answer for all that came, and try again
	// for seconds.
	partingWords = 200 * time.Millisecond
	// smallAnswers is the size of answers that are sent together, in all.
	smallAnswers = 4 << 10
	// readAhead is what one read brings at most of small requests.
	readAhead = 32 << 10
)

// client is the connection of a Kafka client. One goroutine reads, another
// writes.
type client struct {
	net.Conn
	in          *bufio.Reader
	out         *bufio.Writer // small answers, until flush
	most        int           // bytes of a request without its prefix
	memory      *budget
	interrupted atomic.Bool
	secure      bool   // TLS
	tokens      int    // messages of a SASL mechanism's that come next, without a header
	denied      bool   // it was told that its login failed; the session sets it
	waiting     func() // called before a request waits for memory
}

func newClient(conn net.Conn, most int, memory *budget) *client {
	return &client{Conn: conn, in: bufio.NewReaderSize(conn, readAhead), out: bufio.NewWriterSize(stalling{conn}, smallAnswers), most: most, memory: memory, waiting: func() {}}
}

// readRequest gives the next request, whose frame counts in memory until it is
// released. io.EOF is the end between two requests.
func (c *client) readRequest(ctx context.Context) (*request, error) {
	c.needing(1, time.Time{})
	if _, err := c.in.Peek(1); err != nil {
		return nil, err
	}
	begun := time.Now()
	c.needing(4, begun.Add(beginTimeout))
	var prefix [4]byte
	if _, err := io.ReadFull(c.in, prefix[:]); err != nil {
		return nil, cutOff(err)
	}
	size := int32(binary.BigEndian.Uint32(prefix[:]))
	if other := speaks(prefix[0]); other != "" && (size < minRequest || int64(size) > int64(c.most)) {
		return nil, fmt.Errorf("%w: it speaks %s, and Kafka is spoken here", errRequest, other)
	}
	least := int32(minRequest)
	if c.tokens > 0 {
		least = 0
	}
	if size < least || int64(size) > int64(c.most) {
		return nil, fmt.Errorf("%w: size %d, want %d to %d", errRequest, size, least, c.most)
	}
	frame, err := c.readFrame(ctx, begun, prefix, 4+int(size))
	if err != nil {
		return nil, err
	}
	if c.tokens > 0 {
		c.tokens--
		return &request{frame: frame, key: apiSaslAuthenticate, answered: true, raw: true}, nil
	}
	r, err := parseRequest(frame)
	if err != nil {
		c.memory.Release(len(frame))
		return nil, err
	}
	// After version 0 of the handshake the mechanism's messages follow as they are.
	if r.key == apiSaslHandshake && r.version == 0 {
		c.tokens = messages[r.mechanism]
	}
	return r, nil
}

// readFrame reads a message of so many bytes, prefix included. What it holds of
// memory grows with what arrives, not with what the prefix claims.
func (c *client) readFrame(ctx context.Context, begun time.Time, prefix [4]byte, end int) (frame []byte, err error) {
	held := min(end, 64<<10)
	if !c.memory.TryAcquire(held) {
		c.waiting()
		if err := c.memory.Acquire(ctx, held); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			c.memory.Release(held)
		}
	}()
	frame = append(newBuffer(held), prefix[:]...)
	for {
		for len(frame) < held {
			from := len(frame)
			to := min(held, from+piece)
			c.needing(to-from, begun.Add(beginTimeout+time.Duration(from)*time.Second/slowestRate))
			if _, err := io.ReadFull(c.in, frame[from:to]); err != nil {
				return nil, cutOff(err)
			}
			frame = frame[:to]
		}
		if len(frame) == end {
			return frame, nil
		}
		// The old part and the new whole are there together for a moment; the budget
		// counts what stays.
		grown := min(end, 4*held)
		if err := c.memory.grow(ctx, held, grown); err != nil {
			return nil, err
		}
		held = grown
		frame = append(newBuffer(grown), frame...)
	}
}

// another reports whether the next request was read whole already, so that it follows at once unless
// it has to wait for memory.
func (c *client) another() bool {
	have := c.in.Buffered()
	if have < 4 {
		return false
	}
	prefix, err := c.in.Peek(4)
	return err == nil && int64(binary.BigEndian.Uint32(prefix)) <= int64(have-4)
}

// speaks recognizes by its first byte what is no Kafka request; "" is what may be one.
func speaks(first byte) string {
	switch {
	case first == 0x16:
		return "TLS"
	case 'A' <= first && first <= 'Z' || 'a' <= first && first <= 'z':
		return "HTTP or text"
	}
	return ""
}

func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// needing sets the deadline for so many bytes, unless they have been read already.
func (c *client) needing(n int, deadline time.Time) {
	if c.in.Buffered() < n {
		c.within(deadline)
	}
}

// within sets the deadline of reading. Either this sees the interruption or the
// interruption comes later and moves the deadline.
func (c *client) within(deadline time.Time) {
	_ = c.SetReadDeadline(deadline)
	if c.interrupted.Load() {
		_ = c.SetReadDeadline(time.Unix(1, 0))
	}
}

// interrupt ends readRequest, now and for ever.
func (c *client) interrupt() {
	c.interrupted.Store(true)
	_ = c.SetReadDeadline(time.Unix(1, 0))
}

// answer writes an answer whole, or keeps it until flush if it is small.
func (c *client) answer(frame []byte) error {
	_, err := c.out.Write(frame)
	if err == nil && len(frame) >= smallAnswers {
		err = c.flush() // what is behind the last full buffer
	}
	return err
}

// unsent reports whether answers wait for flush.
func (c *client) unsent() bool { return c.out.Buffered() > 0 }

// flush sends what answer has kept.
func (c *client) flush() error { return c.out.Flush() }

// stalling writes in pieces, each of which the client has to take in time.
type stalling struct{ net.Conn }

func (c stalling) Write(b []byte) (written int, err error) {
	for written < len(b) && err == nil {
		if err := c.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil {
			return written, err
		}
		var n int
		n, err = c.Conn.Write(b[written:min(len(b), written+piece)])
		written += n
	}
	return written, err
}

// letGo closes the connection so that what was written arrives: bytes that nobody
// read would make the close a reset, which may overtake it. Nobody else may read
// any more.
func (c *client) letGo(ctx context.Context) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if c.denied {
		_ = c.SetReadDeadline(time.Now().Add(partingWords))
		_, _ = io.Copy(io.Discard, c.Conn) // until it leaves by itself
	}
	if conn, ok := c.Conn.(interface{ CloseWrite() error }); !ok || conn.CloseWrite() != nil {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(farewell))
	_, _ = io.Copy(io.Discard, c.Conn)
}
