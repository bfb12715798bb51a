package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/trimaran-io/trimaran/gateway/order"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// maxPending bounds the requests of one connection that are read and not yet
// answered. Clients have 5 in flight by default.
const maxPending = 128

// A connection is not read while its requests that are worked on take more than maxHeld
// bytes, decoded, or its answers that are not sent yet more than maxUnsent. So it has what
// it was in the middle of and one more, whatever the number of its requests: an answer may
// be a thousand times as long as its request, and who asks need not take it.
const (
	maxHeld   = 64 << 20
	maxUnsent = 1 << 20
)

// session is one connection that speaks Kafka. Its reader takes a request, puts
// a pending answer into a queue and lets the handler begin; its writer sends the
// answer at the head when it is there. The queue is the order of answers, and
// when it is full the reader reads no more, which the client feels in its socket.
//
// Invariant: every reply that is in the queue is completed, whatever happens to
// its handler; otherwise the writer would wait for ever.
type session struct {
	server *Server
	framer framer
	peer   net.Addr
	broker address // the one broker, as this connection came to it
	named  bool    // a shim says that it is the broker

	replies chan *reply
	lines   order.Lines // produces in order
	order   order.Order // what a request sees of those before it
	turns   order.Turns // what is asked about consumer groups in order
	// fetchSent is closed when the answer of the last fetch that was read is sent.
	// Only the reader uses it.
	fetchSent chan struct{}

	held, unsent atomic.Int64
	// eased has an element when one of them has become less since the reader looked.
	eased chan struct{}

	// open ends when nobody can get an answer any more: the connection broke.
	open   context.Context
	broken context.CancelFunc
	// patient ends when nothing more is read, too: then what waits for records
	// answers with what is there.
	patient  context.Context
	hurry    context.CancelFunc
	draining atomic.Bool

	mu  sync.Mutex
	why error // why the session ends; the first reason counts
}

// reply is the answer to one request, now or later.
type reply struct {
	done  chan struct{} // closed when the rest is set
	frame [][]byte      // in parts, with its size prefix; nil: no answer is sent
	close error         // the connection ends in place of this answer
	sent  []func()      // called when the frame is sent or given up
}

func (r *reply) isDone() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

func (s *Server) serveSession(c *conn, kind string, f framer, broker address) {
	n := &session{server: s, framer: f, peer: c.RemoteAddr(), broker: broker, named: c.named, replies: make(chan *reply, maxPending), eased: make(chan struct{}, 1)}
	n.open, n.broken = context.WithCancel(s.ctx)
	n.patient, n.hurry = context.WithCancel(n.open)
	defer n.broken()
	defer n.hurry()
	n.lines.Init(&s.lines)
	stays := s.become(c, kind, n.drain)
	// After that: either this sees that the node is cut off, or sendAway sees the session.
	if elsewhere, _, _ := s.serving.now(); elsewhere && !c.told {
		s.metrics.refused("not serving")
		stays = false
	}
	if !stays {
		n.drain()
	}
	n.run()
}

// drain ends the session in good order: nothing more is read, what was read is
// answered.
func (n *session) drain() {
	n.draining.Store(true)
	n.hurry()
	n.framer.interrupt()
}

func (n *session) run() {
	written := make(chan bool, 1)
	n.server.wg.Go(func() { written <- n.writeLoop() })
	n.ends(n.readLoop())
	n.hurry()
	close(n.replies)
	complete := <-written
	n.broken()
	why := n.reason()
	if complete && errors.Is(why, errServerLeaves) {
		why = errAllAnswered
	}
	n.framer.close(why)
	if why != nil && !errors.Is(why, errServerLeaves) && !errors.Is(why, syscall.ECONNRESET) && !errors.Is(why, syscall.EPIPE) {
		n.server.refusals.log("connection closed", why, "peer", n.peer)
	}
}

// ends notes why the session ends.
func (n *session) ends(why error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.why == nil {
		n.why = why
	}
}

func (n *session) reason() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.why
}

// readLoop reads requests until the connection ends, or what comes over it cannot
// be followed any further.
func (n *session) readLoop() (why error) {
	defer func() {
		// The queue may hold answers that are still to come, so this is no more
		// than the end of reading.
		if v := recover(); v != nil {
			why = n.panicked(v)
		}
	}()
	hold := reserver{budget: n.server.requestBytes, ctx: n.patient}
	for !n.draining.Load() {
		if !n.unburdened() {
			return errServerLeaves
		}
		frame, err := n.framer.readFrame(hold.reserve)
		if err != nil {
			if free := hold.take(); free != nil {
				free()
			}
			switch {
			case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
				return nil
			case errors.Is(err, errInterrupted):
				return errServerLeaves
			case !errors.Is(err, kafkaproto.ErrFrameSize) && !errors.Is(err, errText):
				n.broken() // nobody reads answers
			}
			return err
		}
		n.server.metrics.networkIn(len(frame) + 4)
		r := &request{session: n, reply: &reply{done: make(chan struct{})}, size: len(frame), free: hold.take(), held: int64(len(frame))}
		n.held.Add(r.held)
		n.replies <- r.reply
		if err := r.serve(frame); err != nil {
			return nil // the reply says it, in its turn
		}
	}
	return errServerLeaves
}

// unburdened waits until there is room for another request, or false: until nothing more
// is to be read.
func (n *session) unburdened() bool {
	for n.held.Load() > maxHeld || n.unsent.Load() > maxUnsent {
		select {
		case <-n.eased:
		case <-n.patient.Done():
			return false
		}
	}
	return true
}

// ease tells the reader to look again.
func (n *session) ease() {
	select {
	case n.eased <- struct{}{}:
	default:
	}
}

// writeLoop sends answers in the order of requests until the queue is closed. It
// reports whether every request has got what it is owed.
func (n *session) writeLoop() bool {
	ended := false
	end := func(why error) {
		ended = true
		n.ends(why)
		n.broken()
		n.drain() // the reader, if it still reads
	}
	for {
		r, more := n.next(&ended, end)
		if !more {
			return !ended
		}
		switch {
		case ended:
		case r.close != nil:
			if err := n.framer.flush(); err != nil {
				end(err)
			}
			end(r.close)
		case r.frame != nil:
			if err := n.framer.write(r.frame, len(n.replies) > 0); err != nil {
				end(fmt.Errorf("write: %w", err))
			} else {
				n.server.metrics.networkOut(sizeOf(r.frame))
			}
		}
		n.unsent.Add(-int64(sizeOf(r.frame)))
		n.ease()
		for _, f := range r.sent {
			f()
		}
	}
}

// sizeOf is the size of a frame in parts.
func sizeOf(frame [][]byte) (size int) {
	for _, part := range frame {
		size += len(part)
	}
	return size
}

// next gives the next answer when it is complete. Before it waits, it sends what
// is kept back.
func (n *session) next(ended *bool, end func(error)) (*reply, bool) {
	flush := func() {
		if !*ended {
			if err := n.framer.flush(); err != nil {
				end(fmt.Errorf("write: %w", err))
			}
		}
	}
	var r *reply
	var ok bool
	select {
	case r, ok = <-n.replies:
	default:
		flush()
		r, ok = <-n.replies
	}
	if !ok {
		flush()
		return nil, false
	}
	if !r.isDone() {
		flush()
		<-r.done
	}
	return r, true
}

// panicked makes a panic the end of this connection.
func (n *session) panicked(v any) error {
	n.server.log.Error("a request's handler panicked; its connection is closed", "panic", v, "peer", n.peer, "stack", string(debug.Stack()))
	return errPanic
}

var errPanic = errors.New("internal error")
