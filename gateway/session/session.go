package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync/atomic"
	"syscall"

	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// MaxPending bounds the requests of one connection that are read and not yet
// answered. Clients have 5 in flight by default.
const MaxPending = 128

// A connection is not read while its requests that are worked on take more than MaxHeld
// bytes, decoded, or its answers that are not sent yet more than MaxUnsent. So it has what
// it was in the middle of and one more, whatever the number of its requests: an answer may
// be a thousand times as long as its request, and who asks need not take it.
const (
	MaxHeld   = 64 << 20
	MaxUnsent = 1 << 20
)

// Config is what the sessions of a process have in common.
type Config struct {
	// Context ends when answers need not be sent any more.
	Context context.Context
	// Go runs f beside, and has whoever stops the process wait for it.
	Go func(f func())
	// Requests bounds the memory of larger requests.
	Requests *Budget
	Logger   *slog.Logger
	// Refused logs what a hostile or broken client did, not more often than one can cause.
	Refused func(kind string, why error, attrs ...any)
	// Read and Written are told of bytes that came from clients and went to them.
	Read, Written func(bytes int)
}

// Handler works on the requests of one connection.
type Handler interface {
	// Handle begins to work on the request in frame, which has no size prefix. It runs in the
	// connection's reader, so it puts in order what must be and lets the rest run beside. The
	// reply must be completed once, now or later, whatever happens. An error says that the
	// connection ends at this request; the reply has it then, in its turn.
	Handle(reply *Reply, frame []byte) error
}

// Session is one connection that speaks Kafka. Its reader takes a request, puts
// a pending answer into a queue and lets the handler begin; its writer sends the
// answer at the head when it is there. The queue is the order of answers, and
// when it is full the reader reads no more, which the client feels in its socket.
//
// Invariant: every reply that is in the queue is completed, whatever happens to
// its handler; otherwise the writer would wait for ever.
type Session struct {
	cfg     *Config
	framer  Framer
	handler Handler
	peer    net.Addr

	replies chan *Reply

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
	// awaited ends with open, and when the client has closed its side.
	awaited context.Context
	left    context.CancelFunc

	mu  locks.Mutex[Session] // guards why; nothing is taken and nobody waits under it
	why error                // why the session ends; the first reason counts
}

// New makes a session of a connection. It does not change cfg.
func New(cfg *Config, framer Framer, handler Handler, peer net.Addr) *Session {
	n := &Session{
		cfg: cfg, framer: framer, handler: handler, peer: peer,
		replies: make(chan *Reply, MaxPending), eased: make(chan struct{}, 1),
	}
	n.open, n.broken = context.WithCancel(cfg.Context)
	n.patient, n.hurry = context.WithCancel(n.open)
	n.awaited, n.left = context.WithCancel(n.open)
	return n
}

// Drain ends the session in good order: nothing more is read, what was read is
// answered. It does not wait.
func (n *Session) Drain() {
	n.draining.Store(true)
	n.hurry()
	n.framer.Interrupt()
}

// Run serves the connection until it ends, and closes it.
func (n *Session) Run() {
	defer n.broken()
	defer n.hurry()
	written := make(chan bool, 1)
	n.cfg.Go(func() { written <- n.writeLoop() })
	n.ends(n.readLoop())
	n.hurry()
	close(n.replies)
	complete := <-written
	n.broken()
	why := n.reason()
	if complete && errors.Is(why, ErrServerLeaves) {
		why = ErrAllAnswered
	}
	n.framer.Close(why)
	if why != nil && !errors.Is(why, ErrServerLeaves) && !errors.Is(why, syscall.ECONNRESET) && !errors.Is(why, syscall.EPIPE) {
		n.cfg.Refused("connection closed", why, "peer", n.peer)
	}
}

// ends notes why the session ends.
func (n *Session) ends(why error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.why == nil {
		n.why = why
	}
}

func (n *Session) reason() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.why
}

// readLoop reads requests until the connection ends, or what comes over it cannot
// be followed any further.
func (n *Session) readLoop() (why error) {
	defer func() {
		// The queue may hold answers that are still to come, so this is no more
		// than the end of reading.
		if v := recover(); v != nil {
			why = n.panicked(v)
		}
	}()
	hold := reserver{budget: n.cfg.Requests, ctx: n.patient}
	for !n.draining.Load() {
		if !n.unburdened() {
			return ErrServerLeaves
		}
		frame, err := n.framer.ReadFrame(hold.reserve)
		if err != nil {
			if free := hold.take(); free != nil {
				free()
			}
			switch {
			case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
				n.left()
				return nil
			case errors.Is(err, ErrInterrupted):
				return ErrServerLeaves
			case !errors.Is(err, kafkaproto.ErrFrameSize) && !errors.Is(err, ErrText):
				n.broken() // nobody reads answers
			}
			return err
		}
		n.cfg.Read(len(frame) + 4)
		r := &Reply{session: n, done: make(chan struct{}), size: len(frame), free: hold.take(), held: int64(len(frame))}
		n.held.Add(r.held)
		n.replies <- r
		if err := n.handler.Handle(r, frame); errors.Is(err, ErrLogin) {
			return err // after its answer
		} else if err != nil {
			return nil // the reply says it, in its turn
		}
	}
	return ErrServerLeaves
}

// unburdened waits until there is room for another request, or false: until nothing more
// is to be read.
func (n *Session) unburdened() bool {
	for n.held.Load() > MaxHeld || n.unsent.Load() > MaxUnsent {
		select {
		case <-n.eased:
		case <-n.patient.Done():
			return false
		}
	}
	return true
}

// ease tells the reader to look again.
func (n *Session) ease() {
	select {
	case n.eased <- struct{}{}:
	default:
	}
}

// writeLoop sends answers in the order of requests until the queue is closed. It
// reports whether every request has got what it is owed.
func (n *Session) writeLoop() bool {
	ended := false
	end := func(why error) {
		ended = true
		n.ends(why)
		n.broken()
		n.Drain() // the reader, if it still reads
	}
	for {
		r, more := n.next(&ended, end)
		if !more {
			return !ended
		}
		switch {
		case ended:
		case r.close != nil:
			if err := n.framer.Flush(); err != nil {
				end(err)
			}
			end(r.close)
		case r.frame != nil:
			if err := n.framer.Write(r.frame, len(n.replies) > 0); err != nil {
				end(fmt.Errorf("write: %w", err))
			} else {
				n.cfg.Written(sizeOf(r.frame))
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
func (n *Session) next(ended *bool, end func(error)) (*Reply, bool) {
	flush := func() {
		if !*ended {
			if err := n.framer.Flush(); err != nil {
				end(fmt.Errorf("write: %w", err))
			}
		}
	}
	var r *Reply
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
func (n *Session) panicked(v any) error {
	n.cfg.Logger.Error("a request's handler panicked; its connection is closed", "panic", v, "peer", n.peer, "stack", string(debug.Stack()))
	return errPanic
}

var errPanic = errors.New("internal error")
