package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// bulkSize is the size from which a message takes the bulk connection.
const bulkSize = 64 << 10

// maxCallBytes bounds what the calls of one session hold at the other side, callOverhead
// what a call counts beyond its bytes; together they also bound their number (16,384).
const (
	maxCallBytes = 128 << 20
	callOverhead = 8 << 10
)

// session is the dialing side of one pair of connections. It dies as a whole.
type session struct {
	link       *Link
	peer       *peerState // nil for a single call to an address
	identity   string
	generation uint64
	version    uint16              // agreed in the handshake; set before the session is seen by others
	boot       uint64              // of the other process, 0 if it does not say
	said       said                // what the other side was told of groups here; the pulse goroutine owns it
	behind     bool                // said may be wrong; the pulse goroutine owns it
	opened     int64               // link clock
	calls      *semaphore.Weighted // what the calls in progress hold at the other side
	nextID     atomic.Uint64

	mu      sync.Mutex // guards what follows
	conns   [2]*conn
	pending map[uint64]*pending
	dead    error
}

// pending is one request that waits for its answer.
type pending struct {
	msg *message
	// done is called exactly once unless forget came first; it must not block.
	done func(reply)
	// stream is set for a snapshot: credits and signs of progress go there.
	stream *outStream
}

// reply is an answer, or why there is none.
type reply struct {
	status uint8
	body   []byte
	err    error // the session broke; ErrNotSent if the request surely did not leave
}

func newSession(l *Link, p *peerState, identity string, generation uint64) *session {
	return &session{
		link: l, peer: p, identity: identity, generation: generation, opened: l.now(),
		calls: semaphore.NewWeighted(maxCallBytes), pending: make(map[uint64]*pending),
	}
}

func (s *session) conn(cl class) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns[cl]
}

// attach makes c part of the session; c is not started yet.
func (s *session) attach(c *conn) error {
	c.receive = s.receive
	c.died = func(_ *conn, err error) { s.fail(err) }
	slot := classControl
	if c.class == classBulk {
		slot = classBulk
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead != nil {
		c.died = nil
		return s.dead
	}
	s.conns[slot] = c
	return nil
}

// fail ends the session: both connections are closed and everyone who waits is told.
func (s *session) fail(err error) {
	s.mu.Lock()
	if s.dead != nil {
		s.mu.Unlock()
		return
	}
	if !errors.Is(err, ErrClosed) && !errors.Is(err, ErrBroken) {
		err = fmt.Errorf("%w: %w", ErrBroken, err)
	}
	s.dead = err
	waiting := s.pending
	s.pending = nil
	conns := s.conns
	s.mu.Unlock()
	for _, c := range conns {
		if c != nil {
			c.close(err)
		}
	}
	if s.peer != nil {
		s.peer.lost(s, err)
	}
	for _, p := range waiting {
		e := err
		if p.msg.drop() {
			e = notSent(err)
		}
		p.done(reply{err: e})
	}
}

// begin sends a request on c; done gets its answer. An error means that it was
// not sent (ErrNotSent) and that done is not called.
func (s *session) begin(ctx context.Context, c *conn, typ, kind uint8, parts [][]byte, stream *outStream, done func(reply)) (uint64, error) {
	id := s.nextID.Add(1)
	p := &pending{msg: newMessage(typ, kind, id, parts...), done: done, stream: stream}
	if p.msg.size > int64(s.link.cfg.MaxMessageBytes) {
		return 0, notSent(fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, p.msg.size, s.link.cfg.MaxMessageBytes))
	}
	s.mu.Lock()
	if s.dead != nil {
		err := s.dead
		s.mu.Unlock()
		return 0, notSent(err)
	}
	s.pending[id] = p
	s.mu.Unlock()
	if err := c.send(ctx, p.msg); err != nil && s.forget(id) != nil {
		return 0, notSent(err)
	}
	return id, nil
}

// forget takes a request back: its done is not called any more. Nil means that it has been called or is being called.
func (s *session) forget(id uint64) *pending {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pending[id]
	delete(s.pending, id)
	return p
}

// roundTrip sends a request and waits for its answer within ctx.
func (s *session) roundTrip(ctx context.Context, c *conn, typ, kind uint8, parts [][]byte) (reply, error) {
	got := make(chan reply, 1)
	id, err := s.begin(ctx, c, typ, kind, parts, nil, func(r reply) { got <- r })
	if err != nil {
		return reply{}, err
	}
	select {
	case r := <-got:
		return r, r.err
	case <-ctx.Done():
	}
	p := s.forget(id)
	if p == nil {
		r := <-got
		return r, r.err
	}
	if p.msg.drop() {
		return reply{}, notSent(context.Cause(ctx))
	}
	if typ == frameCall {
		c.sendUrgentAfter(newMessage(frameCancel, 0, id))
	}
	return reply{}, context.Cause(ctx)
}

// receive gets what the other side sends: answers, pongs, credits.
func (s *session) receive(_ *conn, h frameHeader, body []byte) error {
	switch h.typ {
	case framePong:
	case frameAnswer:
		if p := s.forget(h.id); p != nil {
			p.done(reply{status: h.kind, body: body})
		}
	case frameCredit:
		if len(body) < 4 {
			return fmt.Errorf("%w: credit of %d bytes", errProto, len(body))
		}
		if st := s.stream(h.id); st != nil {
			st.credit(int64(binary.BigEndian.Uint32(body)))
		}
	case frameProgress:
		if st := s.stream(h.id); st != nil {
			st.credit(0)
		}
	default:
		return fmt.Errorf("%w: frame type %d from the accepting side", errProto, h.typ)
	}
	return nil
}

func (s *session) stream(id uint64) *outStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.pending[id]; p != nil {
		return p.stream
	}
	return nil
}

// failure turns an answer that is not statusOK into an error.
func (r reply) failure() error {
	switch r.status {
	case statusOK:
		return nil
	case statusRefused:
		if len(r.body) == 0 {
			return notSent(refusal(reasonOther, nil))
		}
		return notSent(refusal(r.body[0], r.body[1:]))
	default:
		const most = 1024
		return fmt.Errorf("%w: %s", errRemote, r.body[:min(len(r.body), most)])
	}
}

// errRemote: the request was worked on and failed there.
var errRemote = errors.New("the other node failed")
