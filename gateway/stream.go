package gateway

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/trimaran-io/trimaran/kafkaproto"
)

// How long a connection may be silent or slow.
const (
	// idleTimeout is Kafka's connections.max.idle.ms.
	idleTimeout = 10 * time.Minute
	// A request once begun must be there within beginTimeout and the time that its
	// size takes at slowestRate.
	beginTimeout = time.Minute
	slowestRate  = 128 << 10 // bytes per second
	// stallTimeout is how long an answer may wait for the client to take the next
	// piece of it: as long as a consumer may be busy between two polls.
	stallTimeout = 5 * time.Minute
	writePiece   = 256 << 10
)

func requestTimeout(size int) time.Duration {
	return beginTimeout + time.Duration(size)*time.Second/slowestRate
}

// framer carries requests and answers over one kind of connection.
type framer interface {
	// readFrame gives the next request without its size prefix. reserve is called
	// with its size before memory is taken for it. io.EOF is the orderly end;
	// errInterrupted follows interrupt.
	readFrame(reserve func(size int) error) ([]byte, error)
	// write sends an answer with its size prefix; more says that another follows
	// at once, so that both may travel together.
	write(frame []byte, more bool) error
	// flush sends what write may have kept.
	flush() error
	// interrupt ends readFrame, now and for ever.
	interrupt()
	// close says why, where the transport has words for it, and closes the
	// connection so that what was written arrives.
	close(why error)
	// abort closes the connection at once, whoever is using it.
	abort()
}

var (
	// errInterrupted: the server asked for the end.
	errInterrupted = errors.New("interrupted")
	errIdle        = errors.New("idle for too long")
	errSlow        = errors.New("a request came too slowly")
)

// readLimits sets read deadlines that an interruption cannot be lost between.
type readLimits struct {
	conn        net.Conn
	interrupted atomic.Bool
}

func (l *readLimits) interrupt() {
	l.interrupted.Store(true)
	_ = l.conn.SetReadDeadline(time.Unix(1, 0))
}

// within sets the deadline. Either this sees the interruption or the interruption
// comes later and moves the deadline.
func (l *readLimits) within(d time.Duration) {
	_ = l.conn.SetReadDeadline(time.Now().Add(d))
	if l.interrupted.Load() {
		_ = l.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// err gives a deadline's error its meaning.
func (l *readLimits) err(err, late error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		if l.interrupted.Load() {
			return errInterrupted
		}
		return late
	}
	return err
}

// stream is a framer over TCP or TLS.
type stream struct {
	readLimits
	in  *bufio.Reader
	out *bufio.Writer
	max int
}

func newStream(c *peeked, max int) *stream {
	return &stream{
		readLimits: readLimits{conn: c},
		in:         c.in, out: bufio.NewWriterSize(pieces{c}, 4<<10), max: max,
	}
}

func (f *stream) readFrame(reserve func(int) error) ([]byte, error) {
	f.within(idleTimeout)
	if _, err := f.in.Peek(1); err != nil {
		return nil, f.err(err, errIdle)
	}
	f.within(beginTimeout)
	prefix, err := f.in.Peek(4)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, f.err(err, errSlow)
	}
	size := int32(binary.BigEndian.Uint32(prefix))
	if err := kafkaproto.CheckFrameSize(size, f.max); err != nil {
		return nil, err
	}
	if err := reserve(int(size)); err != nil {
		return nil, err
	}
	f.within(requestTimeout(int(size)))
	frame, err := kafkaproto.ReadFrame(f.in, f.max)
	return frame, f.err(err, errSlow)
}

func (f *stream) write(frame []byte, more bool) error {
	if _, err := f.out.Write(frame); err != nil {
		return err
	}
	if more {
		return nil
	}
	return f.out.Flush()
}

func (f *stream) flush() error { return f.out.Flush() }
func (f *stream) close(error)  { linger(f.conn) }
func (f *stream) abort()       { f.conn.Close() }

// pieces writes in pieces, each of which the other side has to take in time.
type pieces struct{ net.Conn }

func (p pieces) Write(b []byte) (int, error) {
	written := 0
	for {
		piece := b[written:min(len(b), written+writePiece)]
		if err := p.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil {
			return written, err
		}
		n, err := p.Conn.Write(piece)
		written += n
		if err != nil || written == len(b) {
			return written, err
		}
	}
}

// reserver counts requests against the node's budget.
type reserver struct {
	budget *budget
	ctx    context.Context
	free   func() // nil: nothing is held
}

func (r *reserver) reserve(size int) error {
	if size <= smallRequest {
		return nil
	}
	free, err := r.budget.acquire(r.ctx, int64(size))
	if err != nil {
		return errInterrupted
	}
	r.free = free
	return nil
}

// take hands over what is held.
func (r *reserver) take() func() {
	free := r.free
	r.free = nil
	return free
}
