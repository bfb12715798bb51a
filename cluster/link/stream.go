package link

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// A stream travels as the request and then chunks, on the bulk connection. The sender
// may be streamWindow ahead of what the other side has read, which gives credit as it reads:
// so a slow disk there holds up this stream and nothing else.
const (
	streamWindow = 4 << 20
	streamChunk  = 256 << 10
)

// outStream is the sending side's view of one stream.
type outStream struct {
	mu     locks.Mutex[outStream] // guards window; nothing is called under it
	window int64                  // bytes that may be sent before more credit comes
	wake   chan struct{}          // capacity 1: credit, or a sign of progress
}

func (s *outStream) credit(n int64) {
	s.mu.Lock()
	s.window += n
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *outStream) take(n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.window < n {
		return false
	}
	s.window -= n
	return true
}

// Stream sends a request of size bytes of data that follow it, for whoever serves requests at the
// other side, and waits for the answer. There is no limit to how long it takes as long as the other
// side says that it goes on; silence about it for Config.Timeout ends it.
func (l *Link) Stream(ctx context.Context, identity string, kind uint8, parts [][]byte, size int64, data io.Reader) (Reply, error) {
	locks.MayWait("a stream to another node")
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	patience := time.AfterFunc(l.cfg.Timeout, func() { cancel(ErrTimeout) })
	defer patience.Stop()
	s, c, err := l.Peer(identity).obtain(ctx, Bulk)
	if err != nil {
		return Reply{}, err
	}
	st := &outStream{window: streamWindow, wake: make(chan struct{}, 1)}
	got := make(chan Reply, 1)
	rid, err := s.begin(ctx, c, frameRequest, kind, parts, st, func(r Reply) { got <- r })
	if err != nil {
		return Reply{}, err
	}
	defer s.forget(rid)
	// wait returns at the next sign of progress; answered is true when r is the answer.
	wait := func() (r Reply, answered bool, err error) {
		select {
		case r = <-got:
			return r, true, r.Err
		case <-st.wake:
			patience.Reset(l.cfg.Timeout)
			return r, false, nil
		case <-ctx.Done():
			return r, false, context.Cause(ctx)
		}
	}
	for left := size; left > 0; {
		chunk := make([]byte, min(left, streamChunk))
		if _, err := io.ReadFull(data, chunk); err != nil {
			// An empty chunk tells the other side that there will be no more.
			_ = c.send(ctx, newMessage(frameChunk, 0, rid))
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return Reply{}, fmt.Errorf("reading the stream's source: %w", err)
		}
		for !st.take(int64(len(chunk))) {
			if r, answered, err := wait(); err != nil {
				_ = c.trySend(newMessage(frameChunk, 0, rid))
				return Reply{}, err
			} else if answered {
				return r, nil
			}
		}
		if err := c.send(ctx, newMessage(frameChunk, 0, rid, chunk)); err != nil {
			return Reply{}, err
		}
		left -= int64(len(chunk))
	}
	for {
		if r, answered, err := wait(); err != nil || answered {
			return r, err
		}
	}
}

// inStream is the receiving side of a stream: an io.Reader for who serves the request.
type inStream struct {
	in    *Inbound
	c     *conn
	id    uint64
	ready chan struct{} // capacity 1: something changed

	mu       locks.Mutex[inStream] // guards what follows; nothing is called under it
	chunks   [][]byte
	coming   int64 // bytes not received yet
	buffered int64 // received and not read; at most streamWindow
	owed     int64 // read and not credited yet
	err      error
}

func newInStream(in *Inbound, c *conn, id uint64, size int64) *inStream {
	return &inStream{in: in, c: c, id: id, coming: size, ready: make(chan struct{}, 1)}
}

// feed takes one chunk, on the reading goroutine. An error ends the connection.
func (s *inStream) feed(b []byte) error {
	s.mu.Lock()
	n := int64(len(b))
	var bad error
	switch {
	case s.err != nil:
	case n == 0:
		s.err = fmt.Errorf("%w: the sender gave it up", errStreamOver)
	case n > s.coming || s.buffered+n > streamWindow:
		bad = fmt.Errorf("%w: more of a stream than announced or allowed", ErrProtocol)
	default:
		s.chunks = append(s.chunks, b)
		s.coming -= n
		s.buffered += n
	}
	s.mu.Unlock()
	s.poke()
	return bad
}

// fail makes every further Read return err.
func (s *inStream) fail(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.chunks, s.buffered = nil, 0
	s.mu.Unlock()
	s.poke()
}

func (s *inStream) poke() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// Read waits for the next bytes, at most for Config.Timeout: who reads may have others waiting.
func (s *inStream) Read(p []byte) (int, error) {
	locks.MayWait("a stream from another node")
	var timer *time.Timer
	for {
		n, credit, err := s.next(p)
		if credit > 0 {
			var b [4]byte
			binary.BigEndian.PutUint32(b[:], uint32(credit))
			s.c.sendUrgent(newMessage(frameCredit, 0, s.id, b[:]))
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
		if timer == nil {
			timer = time.NewTimer(s.in.base.cfg.Timeout)
			defer timer.Stop()
		}
		select {
		case <-s.ready:
		case <-timer.C:
			s.fail(fmt.Errorf("%w: the sender of the stream is silent", ErrTimeout))
		}
	}
}

func (s *inStream) next(p []byte) (n int, credit int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n < len(p) && len(s.chunks) > 0 {
		m := copy(p[n:], s.chunks[0])
		n += m
		if s.chunks[0] = s.chunks[0][m:]; len(s.chunks[0]) == 0 {
			s.chunks[0] = nil
			s.chunks = s.chunks[1:]
		}
	}
	s.buffered -= int64(n)
	s.owed += int64(n)
	if s.owed >= streamWindow/4 && s.coming > 0 {
		credit, s.owed = s.owed, 0
	}
	switch {
	case n > 0:
	case s.err != nil:
		err = s.err
	case s.coming == 0:
		err = io.EOF
	}
	return n, credit, err
}
