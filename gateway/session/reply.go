package session

import (
	"context"
	"net"
)

// Reply is the answer to one request, now or later. Until it is completed, who works on the request
// owns it; then the session does.
type Reply struct {
	session *Session
	size    int    // of the request, in bytes
	free    func() // gives the request's bytes back to the budget; nil: not counted
	held    int64  // bytes that the request counts for at its session

	done  chan struct{} // closed when the rest is set
	frame [][]byte      // in parts, with its size prefix; nil: no answer is sent
	close error         // the connection ends in place of this answer
	sent  []func()      // called when the frame is sent or given up
}

// Open is a context that ends when nobody can get an answer any more: the connection broke.
func (r *Reply) Open() context.Context { return r.session.open }

// Patient is a context that ends with Open, and when nothing more is read from the connection: then
// what waits for records answers with what is there.
func (r *Reply) Patient() context.Context { return r.session.patient }

// Awaited is a context that ends with Open, and when the client has closed its side of the
// connection: there are clients that do so and wait for answers, but none that waits for one about
// a transaction.
func (r *Reply) Awaited() context.Context {
	if r.session.framer.Gone() {
		r.session.left()
	}
	return r.session.awaited
}

// Peer is where the connection comes from.
func (r *Reply) Peer() net.Addr { return r.session.peer }

// Size is the request's size in bytes, without its size prefix.
func (r *Reply) Size() int { return r.size }

// Done is closed when the reply is complete.
func (r *Reply) Done() <-chan struct{} { return r.done }

func (r *Reply) isDone() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// WhenSent has f called when the answer is sent or given up. It must be called before the reply is
// completed.
func (r *Reply) WhenSent(f func()) { r.sent = append(r.sent, f) }

// Complete gives the answer: a frame in parts, with its size prefix, or nil for a request that gets
// none. With an error the connection is closed in place of an answer. It must be called once.
func (r *Reply) Complete(frame [][]byte, why error) {
	r.frame, r.close = frame, why
	if r.free != nil {
		r.free()
	}
	r.session.unsent.Add(int64(sizeOf(r.frame)))
	r.session.held.Add(-r.held)
	r.session.ease()
	close(r.done)
}

// Charge counts bytes that the request takes beside its frame, before they are taken. The error is
// ErrCrowded: the memory for requests is used up, and does not get free.
func (r *Reply) Charge(bytes int64) error {
	r.held += bytes
	r.session.held.Add(bytes)
	if bytes <= SmallRequest {
		return nil
	}
	budget := r.session.cfg.Requests
	bytes = min(bytes, budget.all-int64(r.size))
	ctx, cancel := context.WithTimeout(r.session.open, crowdedTimeout)
	defer cancel()
	if err := budget.Acquire(ctx, bytes); err != nil {
		return ErrCrowded
	}
	frame := r.free
	r.free = func() {
		budget.Release(bytes)
		if frame != nil {
			frame()
		}
	}
	return nil
}

// KeepFrame makes the caller responsible for the request's bytes in the budget: work
// may go on after the answer. The function, which may be nil, gives them back.
func (r *Reply) KeepFrame() func() {
	free := r.free
	r.free = nil
	return free
}

// Panicked logs a panic of who works on the request, and gives the error that the connection is to
// end with.
func (r *Reply) Panicked(v any) error { return r.session.panicked(v) }
