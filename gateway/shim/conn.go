package shim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/trimaran-io/trimaran/gateway/internal/frames"
)

const (
	// DefaultMaxMessageBytes bounds one Kafka message, size prefix excluded. A
	// larger one could not be told from TLS or HTTP where both share a port.
	DefaultMaxMessageBytes = 0x16000000 - 1

	sizePrefix = 4
	// firstAlloc is what a size prefix alone gets; the rest comes as bytes arrive.
	firstAlloc = 64 << 10
	// keptUnsent is the largest buffer of an incomplete message that is kept for the
	// next one.
	keptUnsent = 1 << 20
)

// Errors that a Conn returns for what arrives or is written.
var (
	// ErrMessageSize: a size prefix is negative, too large, or disagrees with the
	// WebSocket message that it stands in.
	ErrMessageSize = errors.New("shim: bad Kafka message size")
	// ErrMessageType: the other side sent a text message.
	ErrMessageType = errors.New("shim: WebSocket message is not binary")
	// ErrSilent: nothing came from the other side, not even the answer to a ping,
	// for as long as Dialer.KeepAlive allows.
	ErrSilent = errors.New("shim: no sign of life from the other side")
)

// Conn is a net.Conn that carries a stream of Kafka messages over a WebSocket:
// each message, its 4-byte size included, is exactly one binary WebSocket
// message, in both directions. Use either Read and Write or ReadMessage and
// WriteMessage. All methods may be called concurrently; Reads exclude each
// other, as do Writes.
//
// One message is read ahead, so pings are answered and a goodbye is seen while
// nobody reads.
type Conn struct {
	ws     *websocket.Conn
	turns  *frames.Turns // messages are framed here; nil: gorilla does
	max    int
	memory Memory // nil: unbounded

	messages chan []byte  // from the reader goroutine
	receive  func([]byte) // in place of messages; nil: there
	waiting  func()       // see Dialer.Waiting; nil: nobody asks
	readDone chan struct{}
	readErr  error // set before readDone is closed

	life         life
	readDeadline *deadline

	// readMu is held by whoever reads, also while it waits for a message: others wait behind it. It
	// guards unread and held. readDeadline.mu may be taken under it.
	readMu sync.Mutex
	unread []byte // rest of the message that is being read
	held   int    // what that message takes of memory

	// writeMu is held by whoever writes, also while the connection takes the bytes: others wait
	// behind it. It guards unsent and writeErr. writeDeadline.mu may be taken under it.
	writeMu       sync.Mutex
	unsent        []byte // beginning of a message that is not complete yet
	begun         []byte // the message that TryMessage has begun; nil: none
	left          []byte // of its frame, to be written before anything else
	writeErr      error  // once set, it stays: a message that was begun cannot be taken back
	writeDeadline writeDeadline

	closeOnce  sync.Once
	closed     chan struct{}
	ctx        context.Context // ends when closed is
	cancel     context.CancelFunc
	cause      atomic.Pointer[error] // why this side closed, nil: because it was asked to
	goroutines sync.WaitGroup
}

var _ net.Conn = (*Conn)(nil)

// NewConn wraps an established WebSocket connection and owns it from then on.
// maxMessageBytes bounds a Kafka message in both directions, 0 means
// DefaultMaxMessageBytes.
func NewConn(ws *websocket.Conn, maxMessageBytes int) *Conn {
	return newConn(ws, nil, nil, &Dialer{MaxMessageBytes: maxMessageBytes})
}

// newConn makes one as a dialer wants it. What is nil is not below it: messages take turns with
// gorilla's frames, and below is what gorilla reads from.
func newConn(ws *websocket.Conn, turns *frames.Turns, below *told, d *Dialer) *Conn {
	maxMessageBytes := d.MaxMessageBytes
	if maxMessageBytes <= 0 || maxMessageBytes > DefaultMaxMessageBytes {
		maxMessageBytes = DefaultMaxMessageBytes
	}
	transport := ws.NetConn()
	if turns != nil {
		transport = turns.Conn
	}
	c := &Conn{
		ws: ws, turns: turns, max: maxMessageBytes, memory: d.Memory,
		messages:      make(chan []byte),
		receive:       d.Receive,
		waiting:       d.Waiting,
		readDone:      make(chan struct{}),
		readDeadline:  newDeadline(),
		writeDeadline: writeDeadline{conn: transport},
		closed:        make(chan struct{}),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	ws.SetReadLimit(int64(maxMessageBytes) + sizePrefix)
	c.goroutines.Add(2)
	if below != nil && c.waiting != nil {
		below.rest = c.rest
	}
	c.live(d.KeepAlive, d.Serving)
	go c.reads()
	return c
}

// ReadMessage gives the next Kafka message, its size prefix included. After an
// orderly end of the other side errors.Is(err, io.EOF) holds; when it sent a
// close frame, errors.As finds a *websocket.CloseError that says more.
func (c *Conn) ReadMessage() ([]byte, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	return c.readMessage()
}

func (c *Conn) readMessage() ([]byte, error) {
	expired := c.readDeadline.wait()
	select {
	case <-c.closed:
		<-c.readDone // the reader knows why
		return nil, c.readErr
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
		<-c.readDone
		return nil, c.readErr
	case <-c.readDone:
		return nil, c.readErr
	}
}

// Read implements net.Conn: the messages as one stream of bytes. A message of
// any size may be read in pieces.
func (c *Conn) Read(p []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	if len(c.unread) == 0 {
		message, err := c.readMessage()
		if errors.Is(err, io.EOF) {
			return 0, io.EOF // as it is: io.ReadAll and others compare
		}
		if err != nil {
			return 0, err
		}
		c.unread, c.held = message, len(message)
	}
	n := copy(p, c.unread)
	if c.unread = c.unread[n:]; len(c.unread) == 0 {
		c.unread = nil // do not keep what was read
		c.release(c.held)
		c.held = 0
	}
	return n, nil
}

// reads is the only reader of the WebSocket. gorilla's read errors, timeouts
// among them, are for ever, so deadlines of Read are kept here and not there.
// After Close it reads on and throws away, until the other side says goodbye.
func (c *Conn) reads() {
	defer c.goroutines.Done()
	for {
		message, err := c.next()
		if err != nil {
			c.rest() // a goodbye may have come together with the last message
			c.ended(err)
			return
		}
		c.life.reading.Store(false)
		c.passOn(message)
		c.life.heard.Store(true)
		c.life.reading.Store(true)
	}
}

// rest tells who wants to know that no message is to be had now.
func (c *Conn) rest() {
	if c.waiting == nil {
		return
	}
	c.life.reading.Store(false)
	c.waiting()
	c.life.reading.Store(true)
}

// passOn gives a message to who takes it, unless this side has closed.
func (c *Conn) passOn(message []byte) {
	if c.receive != nil {
		select {
		case <-c.closed:
			c.release(len(message))
		default:
			c.receive(message)
		}
		c.recycle(message)
		return
	}
	select {
	case c.messages <- message:
	case <-c.closed:
		c.release(len(message))
	}
}

// ended notes why there is nothing more to read and closes this side.
func (c *Conn) ended(err error) {
	c.readErr = err
	code := websocket.CloseNormalClosure
	var theirs *websocket.CloseError
	switch {
	case errors.As(err, &theirs):
		switch theirs.Code {
		case websocket.CloseAbnormalClosure: // gorilla's word for a connection that broke
		case websocket.CloseNoStatusReceived, websocket.CloseNormalClosure, websocket.CloseGoingAway:
			c.readErr = fmt.Errorf("%w: %w", io.EOF, err)
		}
		code = theirs.Code // RFC 6455, section 5.5.1: the answer usually echoes it
	case errors.Is(err, ErrMessageType):
		code = websocket.CloseUnsupportedData
	case errors.Is(err, errTooLarge), errors.Is(err, websocket.ErrReadLimit):
		code = websocket.CloseMessageTooBig
		c.readErr = fmt.Errorf("%w: %w", ErrMessageSize, err)
	case errors.Is(err, ErrMessageSize):
		code = websocket.CloseProtocolError
	}
	select {
	case <-c.closed: // by this side: that is why the read failed
		c.readErr = net.ErrClosed
		if cause := c.cause.Load(); cause != nil {
			c.readErr = *cause
		}
	default:
	}
	close(c.readDone)
	_ = c.closeWith(code)
}

var errTooLarge = fmt.Errorf("%w: too large", ErrMessageSize)

// acquire waits until a message of that size may be read. While it does, this
// side is the one that is silent.
func (c *Conn) acquire(n int) error {
	if c.memory == nil {
		return nil
	}
	c.life.reading.Store(false)
	defer c.life.reading.Store(true)
	if err := c.memory.Acquire(c.ctx, n); err != nil {
		return fmt.Errorf("shim: memory for a message of %d bytes: %w", n, err)
	}
	return nil
}

func (c *Conn) release(n int) {
	if c.memory != nil && n > 0 {
		c.memory.Release(n)
	}
}

// next reads one message. Its memory grows with what arrives.
func (c *Conn) next() (whole []byte, err error) {
	kind, r, err := c.ws.NextReader()
	if err != nil {
		return nil, err
	}
	c.life.heard.Store(true)
	if kind != websocket.BinaryMessage {
		return nil, ErrMessageType
	}
	message := make([]byte, sizePrefix)
	if _, err := io.ReadFull(r, message); err != nil {
		return nil, c.cut(err)
	}
	end, err := c.messageSize(message)
	if err != nil {
		return nil, err
	}
	if err := c.acquire(end); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.release(end)
		}
	}()
	for len(message) < end {
		from := len(message)
		to := min(end, max(firstAlloc, 4*from))
		larger := append(c.buffer(to), message...)[:to]
		c.recycle(message)
		message = larger
		for from < to {
			n, err := r.Read(message[from:to])
			if err != nil {
				return nil, c.cut(err)
			}
			from += n
			// A large message on a slow path keeps a pong back, so its pieces are signs of
			// life, too.
			c.life.heard.Store(true)
		}
	}
	var more [1]byte
	if n, err := io.ReadFull(r, more[:]); n > 0 {
		return nil, fmt.Errorf("%w: the WebSocket message goes on behind the size in its prefix", ErrMessageSize)
	} else if err != io.EOF {
		return nil, err
	}
	return message, nil
}

// cut tells a message that is shorter than its prefix says from a connection
// that broke inside it.
func (c *Conn) cut(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: the WebSocket message is shorter than the size in its prefix", ErrMessageSize)
	}
	return err
}

// messageSize gives the size of the message that b begins with, prefix
// included; 0 if the prefix is not complete.
func (c *Conn) messageSize(b []byte) (int, error) {
	if len(b) < sizePrefix {
		return 0, nil
	}
	size := int32(binary.BigEndian.Uint32(b))
	if size < 0 {
		return 0, fmt.Errorf("%w: %d", ErrMessageSize, size)
	}
	if int64(size) > int64(c.max) {
		return 0, fmt.Errorf("%w: %d, at most %d", errTooLarge, size, c.max)
	}
	return int(size) + sizePrefix, nil
}

// WriteMessage sends one whole Kafka message, its size prefix included. If it
// fails, the other side has not got the message whole, and never will.
func (c *Conn) WriteMessage(message []byte) error {
	size, err := c.messageSize(message)
	if err != nil {
		return err
	}
	if size != len(message) || size == 0 {
		return fmt.Errorf("%w: the prefix disagrees with %d bytes", ErrMessageSize, len(message))
	}
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if err := c.writable(); err != nil {
		return err
	}
	return c.send(message)
}

// Write implements net.Conn: it takes the stream of messages in any pieces and
// sends each message when it is complete. Bytes of an incomplete message are
// kept, so memory grows with what was written and not with what a size claims.
// A negative or too large size is refused with ErrMessageSize; behind it there
// is no next message to find, so every later Write fails, too.
func (c *Conn) Write(p []byte) (written int, err error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	for {
		if err := c.writable(); err != nil {
			return written, err
		}
		if len(p) == 0 {
			return written, nil
		}
		n, err := c.writeSome(p)
		written, p = written+n, p[n:]
		if err != nil {
			return written, err
		}
	}
}

// writable says why nothing can be sent. What it refuses was not begun.
func (c *Conn) writable() error {
	select {
	case <-c.closed:
		if c.writeErr == nil {
			return net.ErrClosed
		}
	default:
	}
	if c.writeErr != nil {
		return c.writeErr
	}
	if c.writeDeadline.expired() {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// writeSome takes the next message off p, or as much of one as there is.
func (c *Conn) writeSome(p []byte) (int, error) {
	if len(c.unsent) == 0 {
		size, err := c.messageSize(p)
		if err != nil {
			c.writeErr = err
			return 0, err
		}
		if size > 0 && size <= len(p) { // whole: no copy
			if err := c.send(p[:size]); err != nil {
				return 0, err
			}
			return size, nil
		}
	}
	need := sizePrefix
	if size, _ := c.messageSize(c.unsent); size > 0 {
		need = size
	}
	n := min(need-len(c.unsent), len(p))
	c.unsent = append(c.unsent, p[:n]...)
	size, err := c.messageSize(c.unsent)
	if err != nil {
		c.writeErr = err
		return n, err
	}
	if size == 0 || len(c.unsent) < size {
		return n, nil
	}
	err = c.send(c.unsent)
	if c.unsent = c.unsent[:0]; cap(c.unsent) > keptUnsent {
		c.unsent = nil
	}
	return n, err
}

// send writes one WebSocket message. The caller holds writeMu.
func (c *Conn) send(message []byte) (err error) {
	c.writeDeadline.begin()
	switch {
	case c.turns == nil:
		err = c.ws.WriteMessage(websocket.BinaryMessage, message)
	case c.begun == nil:
		err = sendMasked(c.turns, message, c.closed)
	case &c.begun[0] == &message[0]:
		err = finishMasked(c.turns, c.left)
		c.begun, c.left = nil, nil
	default:
		err = errBegun
	}
	late := c.writeDeadline.end()
	if err == nil {
		return nil
	}
	if late {
		err = os.ErrDeadlineExceeded
	}
	c.writeErr = err
	return err
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.ws.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.ws.RemoteAddr() }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	c.readDeadline.set(t)
	c.writeDeadline.set(t)
	return nil
}

// SetReadDeadline implements net.Conn. A Read that timed out may be repeated.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.readDeadline.set(t)
	return nil
}

// SetWriteDeadline implements net.Conn. It bounds Writes that are under way, too.
// A message that was begun when its Write timed out cannot be finished: every
// later Write fails. A deadline that passed before a message was begun spoils
// nothing.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.writeDeadline.set(t)
	return nil
}
