package listen

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/trimaran-io/trimaran/gateway/session"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// How long a connection may be silent or slow.
const (
	// IdleTimeout is Kafka's connections.max.idle.ms.
	IdleTimeout = 10 * time.Minute
	// A request once begun must not fall behind slowestRate by more than
	// BeginTimeout, at any of its bytes.
	BeginTimeout = time.Minute
	slowestRate  = 128 << 10 // bytes per second
	readPiece    = 256 << 10 // the most that one read takes
	// stallTimeout is how long an answer may wait for the client to take the next
	// piece of it: as long as a consumer may be busy between two polls.
	stallTimeout = 5 * time.Minute
	writePiece   = 256 << 10
	// firstHold is what a larger request takes of the budget when it is announced,
	// if it says that it has as much. After that it is what came, at most doubled.
	firstHold = kafkaproto.OrdinaryFrame
)

// transferTimeout is how long so many bytes may take.
func transferTimeout(size int) time.Duration {
	return BeginTimeout + time.Duration(size)*time.Second/slowestRate
}

// readLimits sets read deadlines that an interruption cannot be lost between.
type readLimits struct {
	conn        net.Conn
	interrupted atomic.Bool
	bound
}

// Interrupt implements session.Framer.
func (l *readLimits) Interrupt() {
	l.interrupted.Store(true)
	_ = l.conn.SetReadDeadline(time.Unix(1, 0))
}

// Gone implements session.Framer.
func (l *readLimits) Gone() bool { return halfClosed(l.conn) }

// within sets the deadline. Either this sees the interruption or the interruption
// comes later and moves the deadline.
func (l *readLimits) within(d time.Duration) { l.until(time.Now().Add(d)) }

func (l *readLimits) until(deadline time.Time) {
	_ = l.conn.SetReadDeadline(l.atMost(deadline))
	if l.interrupted.Load() {
		_ = l.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// err gives a deadline's error its meaning.
func (l *readLimits) err(err, late error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		if l.interrupted.Load() {
			return session.ErrInterrupted
		}
		return late
	}
	return err
}

// stream is a session.Framer over TCP or TLS.
type stream struct {
	readLimits
	output
	in  *bufio.Reader
	max int
}

func newStream(c *peeked, max int) *stream {
	return &stream{
		readLimits: readLimits{conn: c}, output: newOutput(c), in: c.in, max: max,
	}
}

func (f *stream) ReadFrame(reserve func(int) error) ([]byte, error) {
	f.within(IdleTimeout)
	if _, err := f.in.Peek(1); err != nil {
		return nil, f.err(err, session.ErrIdle)
	}
	f.within(BeginTimeout)
	prefix, err := f.in.Peek(4)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, f.err(err, session.ErrSlow)
	}
	size := int32(binary.BigEndian.Uint32(prefix))
	if err := f.check(size, f.max); err != nil {
		return nil, err
	}
	if f.raw {
		_, _ = f.in.Discard(4)
		frame, err := readToken(f.arriving(f.in, int(size), reserve), int(size))
		return frame, f.err(err, session.ErrSlow)
	}
	frame, err := kafkaproto.ReadFrame(f.arriving(f.in, int(size), reserve), f.max)
	return frame, f.err(err, session.ErrSlow)
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
	if a.size > session.SmallRequest && a.held < a.size && a.read+len(b) > a.held {
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

func (f *stream) Write(frame [][]byte, more bool) error { return f.write(more, frame...) }

func (f *stream) Flush() error { return f.flush() }

// partingWords is how long a client whose login failed has to read that before the connection ends.
// Some take an end that comes together with an answer for all that came, and try again for seconds.
const partingWords = 200 * time.Millisecond

func (f *stream) Close(why error) {
	c := f.readLimits.conn
	if errors.Is(why, session.ErrLogin) && c.SetReadDeadline(time.Now().Add(partingWords)) == nil {
		_, _ = io.CopyN(io.Discard, c, 64<<10) // until it leaves by itself
	}
	closeGently(c)
}
