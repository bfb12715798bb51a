package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// bulkSize is the size from which a message takes the bulk connection.
const bulkSize = 64 << 10

// maxCallBytes bounds what the calls of one session hold at the other side, callOverhead
// what a call counts beyond its bytes; together they also bound their number (16,384).
const (
	maxCallBytes = 128 << 20
	callOverhead = 8 << 10
)

// Session is the dialing side of one pair of connections. It dies as a whole.
type Session struct {
	base       *base
	over       func(*Session, error) // told when it is dead
	identity   string
	generation uint64
	// agreed in the handshake; set before the session is seen by others
	version uint16
	boot    uint64              // of the other process, 0 if it does not say
	addr    string              // where it was reached
	opened  int64               // link clock
	calls   *semaphore.Weighted // what the calls in progress hold at the other side
	nextID  atomic.Uint64

	mu      locks.Mutex[Session] // guards what follows; nothing is called under it
	conns   [2]*conn
	pending map[uint64]*pending
	dead    error
}

// pending is one request that waits for its answer.
type pending struct {
	msg *message
	// done is called exactly once unless forget came first; it must not block.
	done func(Reply)
	// stream is set for a snapshot: credits and signs of progress go there.
	stream *outStream
}

// Reply is an answer, or why there is none.
type Reply struct {
	Status uint8
	Body   []byte
	Err    error // the session broke; ErrNotSent if the request surely did not leave
}

func newSession(b *base, identity string, generation uint64, over func(*Session, error)) *Session {
	return &Session{
		base: b, over: over, identity: identity, generation: generation, opened: b.Now(),
		calls: semaphore.NewWeighted(maxCallBytes), pending: make(map[uint64]*pending),
	}
}

func (s *Session) conn(cl Class) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns[cl]
}

// attach makes c part of the session; c is not started yet.
func (s *Session) attach(c *conn) error {
	c.receive = s.receive
	c.died = func(_ *conn, err error) { s.fail(err) }
	slot := Control
	if c.class == Bulk {
		slot = Bulk
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
func (s *Session) fail(err error) {
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
	if s.over != nil {
		s.over(s, err)
	}
	for _, p := range waiting {
		e := err
		if p.msg.drop() {
			e = notSent(err)
		}
		p.done(Reply{Err: e})
	}
}

// begin sends a request on c; done gets its answer. An error means that it was
// not sent (ErrNotSent) and that done is not called.
func (s *Session) begin(ctx context.Context, c *conn, typ, kind uint8, parts [][]byte, stream *outStream, done func(Reply)) (uint64, error) {
	id := s.nextID.Add(1)
	return id, s.beginMessage(ctx, c, id, &pending{msg: newMessage(typ, kind, id, parts...), done: done, stream: stream})
}

func (s *Session) beginMessage(ctx context.Context, c *conn, id uint64, p *pending) error {
	if p.msg.size > int64(s.base.cfg.MaxMessageBytes) {
		return notSent(fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, p.msg.size, s.base.cfg.MaxMessageBytes))
	}
	s.mu.Lock()
	if s.dead != nil {
		err := s.dead
		s.mu.Unlock()
		return notSent(err)
	}
	s.pending[id] = p
	s.mu.Unlock()
	if err := c.send(ctx, p.msg); err != nil && s.forget(id) != nil {
		return notSent(err)
	}
	return nil
}

// forget takes a request back: its done is not called any more. Nil means that it has been called
// or is being called.
func (s *Session) forget(id uint64) *pending {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pending[id]
	delete(s.pending, id)
	return p
}

// roundTrip sends a request and waits for its answer within ctx.
func (s *Session) roundTrip(ctx context.Context, c *conn, typ, kind uint8, parts [][]byte) (Reply, error) {
	locks.MayWait("asking another node")
	got := make(chan Reply, 1)
	id, err := s.begin(ctx, c, typ, kind, parts, nil, func(r Reply) { got <- r })
	if err != nil {
		return Reply{}, err
	}
	select {
	case r := <-got:
		return r, r.Err
	case <-ctx.Done():
	}
	p := s.forget(id)
	if p == nil {
		r := <-got
		return r, r.Err
	}
	if p.msg.drop() {
		return Reply{}, notSent(context.Cause(ctx))
	}
	if typ == frameCall {
		c.sendUrgentAfter(newMessage(frameCancel, 0, id))
	}
	return Reply{}, context.Cause(ctx)
}

// receive gets what the other side sends: answers, pongs, credits.
func (s *Session) receive(_ *conn, h frameHeader, body []byte) error {
	switch h.typ {
	case framePong:
	case frameAnswer:
		if p := s.forget(h.id); p != nil {
			p.done(Reply{Status: h.kind, Body: body})
		}
	case frameCredit:
		if len(body) < 4 {
			return fmt.Errorf("%w: credit of %d bytes", ErrProtocol, len(body))
		}
		if st := s.stream(h.id); st != nil {
			st.credit(int64(binary.BigEndian.Uint32(body)))
		}
	case frameProgress:
		if st := s.stream(h.id); st != nil {
			st.credit(0)
		}
	default:
		return fmt.Errorf("%w: frame type %d from the accepting side", ErrProtocol, h.typ)
	}
	return nil
}

func (s *Session) stream(id uint64) *outStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.pending[id]; p != nil {
		return p.stream
	}
	return nil
}

// Failure turns an answer that is not StatusOK into an error.
func (r Reply) Failure() error {
	switch r.Status {
	case StatusOK:
		return nil
	case StatusRefused:
		if len(r.Body) == 0 {
			return notSent(refusal(reasonOther, nil))
		}
		return notSent(refusal(r.Body[0], r.Body[1:]))
	default:
		const most = 1024
		return fmt.Errorf("%w: %s", ErrRemote, r.Body[:min(len(r.Body), most)])
	}
}

// Boot is the other process's random number, 0 if it does not say.
func (s *Session) Boot() uint64 { return s.boot }

// TakesBeacons says whether the other side takes beacons.
func (s *Session) TakesBeacons() bool { return s.version >= versionBeacons }

// Close ends the session: both connections are closed and everyone who waits is told err.
func (s *Session) Close(err error) { s.fail(err) }

// Ended says whether the session is over.
func (s *Session) Ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead != nil
}

// Has says whether the session has a connection of that class.
func (s *Session) Has(cl Class) bool { return s.conn(cl) != nil }

// Begin sends a request, for whoever serves them at the other side (Link.Serve), on the session's
// connection of that class. done gets the answer, on the reading goroutine: it must not block. An
// error means that it was not sent (ErrNotSent) and that done is not called.
func (s *Session) Begin(ctx context.Context, cl Class, kind uint8, parts [][]byte, done func(Reply)) error {
	c := s.conn(cl)
	if c == nil {
		return notSent(ErrBroken)
	}
	_, err := s.begin(ctx, c, frameRequest, kind, parts, nil, done)
	return err
}

// BeginHeld is Begin for who calls Config.Outbox soon: what was begun may wait for that. Without an
// Outbox it is Begin.
func (s *Session) BeginHeld(ctx context.Context, cl Class, kind uint8, parts [][]byte, done func(Reply)) error {
	c := s.conn(cl)
	if c == nil {
		return notSent(ErrBroken)
	}
	id := s.nextID.Add(1)
	p := &pending{msg: newMessage(frameRequest, kind, id, parts...), done: done}
	p.msg.held = true
	return s.beginMessage(ctx, c, id, p)
}

// Request sends a request to that node, for whoever serves them there, and waits for its answer.
func (l *Link) Request(ctx context.Context, identity string, kind uint8, parts [][]byte) (Reply, error) {
	s, c, err := l.Peer(identity).obtain(ctx, ClassFor(Size(parts)))
	if err != nil {
		return Reply{}, err
	}
	return s.roundTrip(ctx, c, frameRequest, kind, parts)
}

// ClassFor says which connection a message of so many bytes takes.
func ClassFor(size int) Class {
	if size > bulkSize {
		return Bulk
	}
	return Control
}

// Unread says how many beacons and the like the other side has not taken yet; false if there is no
// connection for them.
func (s *Session) Unread() (int, bool) {
	c := s.conn(Control)
	if c == nil {
		return 0, false
	}
	return c.urgentQueued(), true
}

// Beacon sends a beacon. Nobody answers it, and whether it arrives is for the other side to say.
func (s *Session) Beacon(seq uint64, body []byte) {
	if c := s.conn(Control); c != nil {
		c.sendUrgent(newMessage(frameBeacon, 0, seq, body))
	}
}
