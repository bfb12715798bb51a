package shim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

const (
	// DefaultMaxMessageBytes bounds one Kafka message, size prefix excluded. A
	// larger one could not be told from TLS or HTTP where both share a port.
	DefaultMaxMessageBytes = 0x16000000 - 1

	sizePrefix = 4
	closeGrace = time.Second
	pingEvery  = 2 * time.Second
	pongWithin = 6 * time.Second // some bytes must arrive within this while a read waits
)

// Errors that a Conn returns for what arrives or is written.
var (
	// ErrMessageSize: a size prefix is negative, too large, or disagrees with the
	// WebSocket message that it stands in.
	ErrMessageSize = errors.New("shim: bad Kafka message size")
	// ErrMessageType: the other side sent a text message.
	ErrMessageType = errors.New("shim: WebSocket message is not binary")
)

// Conn is a net.Conn that carries a stream of Kafka messages over a WebSocket:
// each message, its 4-byte size included, is exactly one binary WebSocket
// message, in both directions. Use either Read and Write or ReadMessage and
// WriteMessage. All methods may be called concurrently; Reads exclude each
// other, as do Writes.
type Conn struct {
	ws  *websocket.Conn
	max int

	messages chan []byte // from the reader goroutine
	readDone chan struct{}
	readErr  error // set before readDone is closed
	deadline *deadline

	readMu sync.Mutex
	unread []byte // rest of the message that is being read

	writeMu  sync.Mutex
	unsent   []byte // beginning of a message that is not complete yet
	writeErr error

	closeOnce sync.Once
	closed    chan struct{}
}

var _ net.Conn = (*Conn)(nil)

// NewConn wraps an established WebSocket connection and owns it from then on.
// maxMessageBytes bounds a Kafka message in both directions, 0 means
// DefaultMaxMessageBytes.
func NewConn(ws *websocket.Conn, maxMessageBytes int) *Conn {
	if maxMessageBytes <= 0 || maxMessageBytes > DefaultMaxMessageBytes {
		maxMessageBytes = DefaultMaxMessageBytes
	}
	c := &Conn{
		ws: ws, max: maxMessageBytes,
		messages: make(chan []byte),
		readDone: make(chan struct{}),
		deadline: newDeadline(),
		closed:   make(chan struct{}),
	}
	ws.SetReadLimit(int64(maxMessageBytes) + sizePrefix)
	alive := func() { _ = ws.SetReadDeadline(time.Now().Add(pongWithin)) }
	alive()
	ws.SetPongHandler(func(string) error { alive(); return nil })
	answer := ws.PingHandler()
	ws.SetPingHandler(func(data string) error { alive(); return answer(data) })
	go c.receive(alive)
	go c.ping()
	return c
}

// receive is the only reader of the WebSocket. gorilla's read errors, timeouts
// among them, are for ever, so deadlines of Read are kept here and not there.
func (c *Conn) receive(alive func()) {
	defer close(c.readDone)
	for {
		message, err := c.next()
		if err != nil {
			c.readErr = readError(err)
			select {
			case <-c.closed: // by this side: that is why the read failed
				c.readErr = net.ErrClosed
			default:
				c.abort(err)
			}
			return
		}
		alive()
		select {
		case c.messages <- message:
		case <-c.closed:
			c.readErr = net.ErrClosed
			return
		}
		alive()
	}
}

func (c *Conn) next() ([]byte, error) {
	kind, r, err := c.ws.NextReader()
	if err != nil {
		return nil, err
	}
	if kind != websocket.BinaryMessage {
		return nil, ErrMessageType
	}
	// It grows with what arrives, and the read limit bounds it. A large message on
	// a slow path keeps a pong back, so its pieces are signs of life, too.
	message, err := io.ReadAll(aliveReader{r, c.ws})
	if err != nil {
		return nil, err
	}
	if len(message) < sizePrefix || int64(binary.BigEndian.Uint32(message)) != int64(len(message)-sizePrefix) {
		return nil, fmt.Errorf("%w: the prefix disagrees with a WebSocket message of %d bytes", ErrMessageSize, len(message))
	}
	return message, nil
}

// aliveReader moves the read deadline on with every piece.
type aliveReader struct {
	io.Reader
	ws *websocket.Conn
}

func (r aliveReader) Read(p []byte) (int, error) {
	_ = r.ws.SetReadDeadline(time.Now().Add(pongWithin))
	return r.Reader.Read(p)
}

// abort tells the other side why this one ends.
func (c *Conn) abort(err error) {
	code := websocket.CloseNormalClosure
	switch {
	case errors.Is(err, ErrMessageType):
		code = websocket.CloseUnsupportedData
	case errors.Is(err, ErrMessageSize):
		code = websocket.CloseProtocolError
	case errors.Is(err, websocket.ErrReadLimit):
		code = websocket.CloseMessageTooBig
	}
	_ = c.closeWith(code)
}

// readError makes an orderly goodbye the end of the stream.
func readError(err error) error {
	if websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway) {
		return io.EOF
	}
	return err
}

func (c *Conn) ping() {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := c.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(closeGrace)); err != nil && !isTimeout(err) {
				return
			}
		case <-c.closed:
			return
		case <-c.readDone:
			return
		}
	}
}

func isTimeout(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) && netErr.Timeout()
}

// ReadMessage gives the next Kafka message, its size prefix included. After an
// orderly end of the other side the error is io.EOF.
func (c *Conn) ReadMessage() ([]byte, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	return c.readMessage()
}

func (c *Conn) readMessage() ([]byte, error) {
	expired := c.deadline.wait()
	select {
	case <-expired:
		return nil, os.ErrDeadlineExceeded
	default:
	}
	select {
	case message := <-c.messages:
		return message, nil
	case <-expired:
		return nil, os.ErrDeadlineExceeded
	case <-c.closed:
		<-c.readDone // the reader knows why
		return nil, c.readErr
	case <-c.readDone:
		return nil, c.readErr
	}
}

// Read implements net.Conn: the messages as one stream of bytes.
func (c *Conn) Read(p []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	for len(c.unread) == 0 {
		if len(p) == 0 {
			return 0, nil
		}
		message, err := c.readMessage()
		if err != nil {
			return 0, err
		}
		c.unread = message
	}
	n := copy(p, c.unread)
	c.unread = c.unread[n:]
	return n, nil
}

// WriteMessage sends one whole Kafka message, its size prefix included. If it
// fails, the other side has not got the message whole.
func (c *Conn) WriteMessage(message []byte) error {
	size, err := c.messageSize(message)
	if err != nil {
		return err
	}
	if size == 0 || size != len(message) {
		return fmt.Errorf("%w: the prefix disagrees with %d bytes", ErrMessageSize, len(message))
	}
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	return c.send(message)
}

// messageSize gives the size of the message that b begins with, prefix
// included; 0 if the prefix is not complete.
func (c *Conn) messageSize(b []byte) (int, error) {
	if len(b) < sizePrefix {
		return 0, nil
	}
	size := binary.BigEndian.Uint32(b)
	if size > uint32(c.max) {
		return 0, fmt.Errorf("%w: %d, at most %d", ErrMessageSize, int32(size), c.max)
	}
	return int(size) + sizePrefix, nil
}

func (c *Conn) send(message []byte) error {
	if c.writeErr != nil {
		return c.writeErr
	}
	if err := c.ws.WriteMessage(websocket.BinaryMessage, message); err != nil {
		c.writeErr = err // a message that was begun cannot be taken back
		return err
	}
	return nil
}

// Write implements net.Conn: it takes the stream of messages in any pieces and
// sends each message when it is complete. Bytes of an incomplete message are
// kept, so memory grows with what was written and not with what a size claims.
func (c *Conn) Write(p []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
	}
	if c.writeErr != nil {
		return 0, c.writeErr
	}
	written := 0
	for len(p) > 0 {
		if len(c.unsent) == 0 {
			size, err := c.messageSize(p)
			if err != nil {
				return written, c.refuse(err)
			}
			if size > 0 && size <= len(p) { // whole: no copy
				if err := c.send(p[:size]); err != nil {
					return written, err
				}
				written, p = written+size, p[size:]
				continue
			}
		}
		need := sizePrefix
		if size, _ := c.messageSize(c.unsent); size > 0 {
			need = size
		}
		n := min(need-len(c.unsent), len(p))
		c.unsent = append(c.unsent, p[:n]...)
		written, p = written+n, p[n:]
		size, err := c.messageSize(c.unsent)
		if err != nil {
			return written, c.refuse(err)
		}
		if size > 0 && len(c.unsent) == size {
			if err := c.send(c.unsent); err != nil {
				return written, err
			}
			c.unsent = c.unsent[:0]
			if cap(c.unsent) > 1<<20 {
				c.unsent = nil
			}
		}
	}
	return written, nil
}

// refuse ends writing: behind a bad size there is no next message to find.
func (c *Conn) refuse(err error) error {
	c.writeErr = err
	return err
}

// Close says goodbye, ends the connection and waits until its goroutines have
// ended. It may be called more than once.
func (c *Conn) Close() error {
	err := c.closeWith(websocket.CloseNormalClosure)
	<-c.readDone
	return err
}

func (c *Conn) closeWith(code int) (err error) {
	c.closeOnce.Do(func() {
		_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(closeGrace))
		close(c.closed)
		err = c.ws.Close()
	})
	return err
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.ws.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.ws.RemoteAddr() }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn. A Read that timed out may be repeated.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.deadline.set(t)
	return nil
}

// SetWriteDeadline implements net.Conn. A message whose Write timed out cannot
// be finished: every later Write fails.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.ws.SetWriteDeadline(t) }

// deadline is a deadline that can be waited for and changed meanwhile.
type deadline struct {
	mu      sync.Mutex
	timer   *time.Timer
	expired chan struct{}
}

func newDeadline() *deadline { return &deadline{expired: make(chan struct{})} }

// wait gives a channel that is closed when the deadline passes.
func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.expired
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.expired // the timer is closing it
	}
	d.timer = nil
	select {
	case <-d.expired:
		d.expired = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	expired := d.expired
	if left := time.Until(t); left > 0 {
		d.timer = time.AfterFunc(left, func() { close(expired) })
		return
	}
	close(expired)
}
