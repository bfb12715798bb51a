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
	// A request once begun must not fall behind slowestRate by more than
	// beginTimeout, at any of its bytes.
	beginTimeout = time.Minute
	slowestRate  = 128 << 10 // bytes per second
	readPiece    = 256 << 10 // the most that one read takes
	// stallTimeout is how long an answer may wait for the client to take the next
	// piece of it: as long as a consumer may be busy between two polls.
	stallTimeout = 5 * time.Minute
	writePiece   = 256 << 10
)

// transferTimeout is how long so many bytes may take.
func transferTimeout(size int) time.Duration {
	return beginTimeout + time.Duration(size)*time.Second/slowestRate
}

// framer carries requests and answers over one kind of connection.
type framer interface {
	// readFrame gives the next request without its size prefix. reserve is called
	// with the bytes that the request takes from then on, before they are taken, and
	// again when it takes more. io.EOF is the orderly end; errInterrupted follows
	// interrupt.
	readFrame(reserve func(size int) error) ([]byte, error)
	// write sends an answer with its size prefix, in parts that are one frame; more
	// says that another follows at once, so that both may travel together.
	write(frame [][]byte, more bool) error
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
	errCrowded     = errors.New("the memory for requests is used up, and does not get free")
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
func (l *readLimits) within(d time.Duration) { l.until(time.Now().Add(d)) }

func (l *readLimits) until(deadline time.Time) {
	_ = l.conn.SetReadDeadline(deadline)
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
	frame, err := kafkaproto.ReadFrame(f.arriving(f.in, int(size), reserve), f.max)
	return frame, f.err(err, errSlow)
}

// arrival is a request on its way in. What it holds of the node's memory grows
// with what has come, so that a size prefix alone keeps it from nobody.
type arrival struct {
	in      io.Reader
	limits  *readLimits
	reserve func(int) error
	size    int // as announced, without the prefix
	read    int
	held    int
	began   time.Time // less the time that reserve took
}

func (l *readLimits) arriving(in io.Reader, size int, reserve func(int) error) *arrival {
	return &arrival{in: in, limits: l, size: size, reserve: reserve, began: time.Now()}
}

// Read implements io.Reader.
func (a *arrival) Read(b []byte) (int, error) {
	b = b[:min(len(b), readPiece)]
	if a.size > smallRequest && a.held < a.size && a.read+len(b) > a.held {
		// Mostly all of it at once, so that requests of ordinary size are never stuck
		// half-way, each waiting for what the others hold.
		held, began := min(a.size, max(firstHold, 2*a.held)), time.Now()
		if err := a.reserve(held); err != nil {
			return 0, err
		}
		a.held, a.began = held, a.began.Add(time.Since(began))
	}
	a.limits.until(a.began.Add(transferTimeout(a.read)))
	n, err := a.in.Read(b)
	a.read += n
	return n, err
}

func (f *stream) write(frame [][]byte, more bool) error {
	for _, part := range frame {
		if _, err := f.out.Write(part); err != nil {
			return err
		}
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
	held   int64
}

// reserve makes it hold size bytes. The first are waited for as long as it takes;
// who holds some already is in the way of others, and waits crowdedTimeout.
func (r *reserver) reserve(size int) error {
	ctx := r.ctx
	if r.held > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, crowdedTimeout)
		defer cancel()
	}
	more := int64(size) - r.held
	if err := r.budget.acquire(ctx, more); err != nil {
		if r.ctx.Err() != nil {
			return errInterrupted
		}
		return errCrowded
	}
	r.held += more
	return nil
}

// take hands over what is held: the function gives it back and may be called
// once. It is nil for nothing.
func (r *reserver) take() func() {
	held := r.held
	if held == 0 {
		return nil
	}
	r.held = 0
	return func() { r.budget.release(held) }
}
