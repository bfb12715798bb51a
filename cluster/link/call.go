package link

import (
	"context"
	"errors"
	"fmt"

	"github.com/trimaran-io/trimaran/internal/locks"
)

var errNoHandler = errors.New("this node takes no requests")

// Call asks the node with that identity and waits for its handler's answer, within ctx. The parts
// of the payload are sent one after another; they must not be changed any more, not even after Call
// has returned. If errors.Is(err, ErrNotSent) the handler surely never saw the request; any other
// error means unknown fate. A ctx without deadline waits as long as the session lives.
func (l *Link) Call(ctx context.Context, identity string, kind uint8, payload ...[]byte) ([]byte, error) {
	l.stats.calls.Add(1)
	resp, err := l.call(ctx, identity, kind, payload)
	if err != nil {
		l.stats.callsFailed.Add(1)
		return nil, fmt.Errorf("peer: call to %s: %w", identity, err)
	}
	return resp, nil
}

func (l *Link) call(ctx context.Context, identity string, kind uint8, payload [][]byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, notSent(context.Cause(ctx))
	}
	size := Size(payload)
	s, c, err := l.Peer(identity).obtain(ctx, ClassFor(size))
	if err != nil {
		return nil, err
	}
	return s.call(ctx, c, kind, payload, size)
}

func (s *Session) call(ctx context.Context, c *conn, kind uint8, payload [][]byte, size int) ([]byte, error) {
	cost := min(int64(size)+callOverhead, maxCallBytes)
	if !s.calls.TryAcquire(cost) {
		if err := s.waitForCalls(ctx, c, cost); err != nil {
			return nil, notSent(err)
		}
	}
	defer s.calls.Release(cost)
	r, err := s.roundTrip(ctx, c, frameCall, kind, payload)
	if err != nil {
		return nil, err
	}
	if err := r.Failure(); err != nil {
		return nil, err
	}
	return r.Body, nil
}

// waitForCalls waits for the share of one more call, which the end of the session ends as well.
func (s *Session) waitForCalls(ctx context.Context, c *conn, cost int64) error {
	locks.MayWait("room for a call")
	wait, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.ctx, func() { cancel(context.Cause(c.ctx)) })()
	if err := s.calls.Acquire(wait, cost); err != nil {
		return context.Cause(wait)
	}
	return nil
}

// CallAddr asks whoever listens at addr, over a connection of its own that is closed afterwards,
// and also gives the identity that answered. It is for the few requests that are made before
// identities are known: forming and joining. Errors are as with Call; from is "" if the handshake
// failed.
func (l *Link) CallAddr(ctx context.Context, addr string, kind uint8, payload ...[]byte) (from string, resp []byte, err error) {
	l.stats.calls.Add(1)
	from, resp, err = l.callAddr(ctx, addr, kind, payload)
	if err != nil {
		l.stats.callsFailed.Add(1)
		return from, nil, fmt.Errorf("peer: call to address %s: %w", addr, err)
	}
	return from, resp, nil
}

func (l *Link) callAddr(ctx context.Context, addr string, kind uint8, payload [][]byte) (string, []byte, error) {
	locks.MayWait("asking an address")
	if l.ctx.Err() != nil {
		return "", nil, notSent(ErrClosed)
	}
	dctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(l.ctx, func() { cancel(ErrClosed) })()
	generation := l.generation.Add(1)
	nc, a, err := l.dialHello(dctx, addr, hello{class: single, generation: generation})
	if err != nil {
		return "", nil, notSent(err)
	}
	identity := a.identity
	c := newConn(l.base, nc, single, nil)
	c.dialed = true
	s := newSession(l.base, identity, generation, nil)
	if err := s.attach(c); err != nil {
		return identity, nil, notSent(err)
	}
	if !l.Go(c.start) {
		c.close(ErrClosed)
		return identity, nil, notSent(ErrClosed)
	}
	defer c.close(ErrClosed)
	resp, err := s.call(ctx, c, kind, payload, Size(payload))
	return identity, resp, err
}

// Size is how many bytes the parts have together.
func Size(parts [][]byte) int {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	return n
}

// startCall runs the handler for one request in its own goroutine, or refuses.
func (in *Inbound) startCall(c *conn, h frameHeader, body []byte) error {
	l := in.base
	switch {
	case l.stopping.Load():
		return in.refuse(c, h.id, ErrStopping)
	case l.cfg.Handler == nil:
		return in.refuse(c, h.id, errNoHandler)
	}
	cost := int64(len(body)) + callOverhead
	ctx, cancel := context.WithCancel(in.ctx)
	in.mu.Lock()
	_, twice := in.calls[h.id]
	// Twice what the caller allows itself: it releases its share a moment before this side does.
	busy := in.load > 0 && in.load+cost > 2*maxCallBytes
	if !twice && !busy {
		in.calls[h.id] = cancel
		in.load += cost
	}
	in.mu.Unlock()
	if twice {
		cancel()
		return fmt.Errorf("%w: request id %d used twice", ErrProtocol, h.id)
	}
	if busy {
		cancel()
		return in.refuse(c, h.id, ErrBusy)
	}
	l.stats.callsServed.Add(1)
	l.stats.handlers.Add(1)
	l.tasks.wg.Go(func() {
		defer func() {
			cancel()
			l.stats.handlers.Add(-1)
			in.mu.Lock()
			delete(in.calls, h.id)
			in.load -= cost
			in.mu.Unlock()
		}()
		if ctx.Err() != nil {
			return // given up, or the session is over, before it began
		}
		resp := l.cfg.Handler(ctx, in.identity, h.kind, body)
		if ctx.Err() == nil {
			in.answer(c, h.id, StatusOK, resp)
		}
	})
	return nil
}
