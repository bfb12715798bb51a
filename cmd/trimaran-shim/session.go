package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/trimaran-io/trimaran/gateway/shim"
)

const (
	// maxPending bounds the requests of a client that wait for an answer.
	maxPending = 64
	// maxLosses is how many gateways may be lost over one request before it is taken
	// for the reason.
	maxLosses = 5
	// lastAnswers is how long answers are waited for after a gateway stopped taking
	// requests.
	lastAnswers = time.Second
	// halfOpen is how long they are waited for after the client ended its half. Mostly
	// it has closed, and what it had asked may be a long poll.
	halfOpen = 3 * time.Second
	// partingGrace is how long a session that leaves a gateway waits for answers to what
	// may have changed something.
	partingGrace = 500 * time.Millisecond
)

var (
	errFateUnknown = errors.New("the gateway was lost before it answered a request that may have changed something")
	errTooOften    = errors.New("gateways were lost again and again over the same request")
	errAnswer      = errors.New("the gateway's answer fits no request")
	errMoved       = errors.New("the gateway does not serve, and another one does")
	errRefused     = errors.New("the gateway closed the connection over what the client sent")
)

// session is one client connection and the gateway connection behind it, which
// exists from the first request on. Its loop owns all fields; the goroutines that
// read, write and dial only pass things on.
//
// Invariants: queue holds every request that is not answered, in the order in
// which they came; queue[:handed] were handed to up, in that order, and of them
// only the last one may still be with the writer. An answer goes to the first of
// them that expects one. A request is sent again only if the gateway surely did
// not begin it, or if it changes nothing.
type session struct {
	proxy     *proxy
	client    *client
	advertise string

	queue  []*request
	handed int
	bytes  int // of all frames in queue

	up      *upstream
	writing *request // with up's writer
	broken  bool     // up takes no more requests
	// set once up is to be left: nothing more is handed to it, and answers are waited for so long
	parting <-chan time.Time
	late    <-chan time.Time // set once up takes no requests: until then it may still answer
	ended   error            // why up is gone; set until its writer is done
	avoid   *gateway         // the gateway that was lost last
	quick   int              // gateway connections in a row that brought nothing
	began   time.Time        // of up
	dials   chan dialed      // not nil while dialing
	hangUp  context.CancelFunc

	ending bool // nothing more is taken from the client
	// set once the client has ended its half; then it gets answers no longer
	silent <-chan time.Time
	gone   bool // the client takes no answers
	bound  bool // the client authenticated itself on up

	// See ticket.go.
	mechanism  string // that the client logs in by
	steps      int    // messages of it that are not answered yet
	ticket     string
	ticketEnds time.Time
	renew      <-chan time.Time
}

type dialed struct {
	up  *upstream
	err error
}

// run serves the client until it ends, ctx ends, or nothing is left to answer
// after stopping has ended.
func (s *session) run(stopping, ctx context.Context, requests <-chan *request, clientEnd <-chan error) error {
	defer s.release()
	defer func() {
		if !s.gone {
			_ = s.client.flush() // what was passed on arrives, whatever this ends with
		}
	}()
	stop := stopping.Done()
	for {
		if s.done() {
			return nil
		}
		if s.up == nil && s.dials == nil && s.handed < len(s.queue) {
			s.dial(ctx)
		}
		s.handOver()
		if err := s.flush(); err != nil {
			return err
		}
		var events <-chan event
		var answers <-chan []byte
		var dead, away, over <-chan struct{}
		var out chan<- *request
		var next *request
		if s.up != nil {
			events, answers = s.up.events, s.up.conn.Messages()
			if s.ended == nil {
				dead, over = s.up.dead.Done(), s.up.conn.Ended()
			}
			if s.ended == nil && s.parting == nil && !s.tied() {
				away = s.up.away
			}
			if s.mayHandOver() {
				out, next = s.up.out, s.queue[s.handed]
			}
		}
		take := requests
		if s.ending || len(s.queue) >= maxPending || s.bytes > s.client.most {
			take = nil
		}
		var err error
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-stop:
			s.ending, stop = true, nil
		case err = <-clientEnd:
			clientEnd = nil
			err = s.clientLeft(err)
		case r := <-take:
			s.queue = append(s.queue, r)
			s.bytes += len(r.frame)
		case d := <-s.dials:
			err = s.dialed(d)
		case out <- next:
			// From here on the gateway may get it whole, until the writer says otherwise.
			s.writing, s.bound = next, s.bound || next.binds()
			s.handed++
		case <-s.silent:
			s.forget()
		case <-s.renew:
			s.askTicket()
		case <-away:
			s.parting = time.After(partingGrace)
		case <-s.parting:
			err = s.lose(errMoved)
		case <-dead:
			err = s.lose(context.Cause(s.up.dead))
		case <-s.late:
			s.late = nil
			err = s.lose(os.ErrDeadlineExceeded)
		case answer := <-answers:
			err = s.answered(answer)
		case <-over:
			_, why := s.up.conn.ReadMessage()
			err = s.lose(why)
		case e := <-events:
			err = s.event(e)
		}
		if err == nil && s.mayPart() {
			err = s.lose(errMoved)
		}
		if err != nil {
			return err
		}
	}
}

// mayHandOver reports whether the next request can go to the gateway.
func (s *session) mayHandOver() bool {
	return s.up != nil && s.writing == nil && !s.broken && s.parting == nil && s.handed < len(s.queue)
}

// handOver sends what the gateway's connection takes at once. What it does not take is for the
// writer, which waits.
func (s *session) handOver() {
	for s.mayHandOver() && s.ended == nil {
		next := s.queue[s.handed]
		switch s.up.conn.TryMessage(next.frame) {
		case shim.NotSent:
			return
		case shim.HalfSent:
			s.writing = next
			s.up.out <- next // the writer has nothing else to do
		case shim.Sent:
		}
		s.bound = s.bound || next.binds()
		s.handed++
		if s.writing == nil && !next.answered {
			s.remove(s.handed - 1) // nobody waits for it
		}
	}
}

// flush sends small answers that wait for others, unless more are there already.
func (s *session) flush() error {
	if !s.client.unsent() {
		return nil
	}
	for tries := 0; s.up != nil; {
		select {
		case answer := <-s.up.conn.Messages():
			if err := s.answered(answer); err != nil {
				return err
			}
			continue
		default:
		}
		if tries++; tries > 1 {
			break
		}
		runtime.Gosched() // the connection's reader may have the next one already
	}
	return s.toClient(s.client.flush())
}

// toClient gives the error of writing to the client its meaning.
func (s *session) toClient(err error) error {
	switch {
	case err == nil:
		return nil
	case s.silent != nil:
		s.forget() // it had closed
		return nil
	}
	return fmt.Errorf("client: %w", err)
}

// mayPart reports whether a session that is to leave its gateway waits for nothing there that it
// could not ask again.
func (s *session) mayPart() bool {
	if s.parting == nil || s.up == nil || s.ended != nil || s.writing != nil {
		return false
	}
	return !slices.ContainsFunc(s.queue[:s.handed], func(r *request) bool { return r.answered && !r.own && !repeatable[r.key] })
}

// done reports whether there is nothing left to do for a session that takes no
// more requests.
func (s *session) done() bool {
	if !s.ending {
		return false
	}
	if s.gone {
		return s.handed == len(s.queue) && s.writing == nil
	}
	return len(s.queue) == 0 && s.writing == nil
}

// release ends what the session still has.
func (s *session) release() {
	if s.dials != nil {
		s.hangUp()
		if d := <-s.dials; d.up != nil {
			d.up.close()
		}
	}
	if s.up != nil {
		s.up.close()
	}
	for _, r := range s.queue {
		s.proxy.requestMemory.Release(len(r.frame))
	}
}

// dial looks for a gateway while the client waits.
func (s *session) dial(ctx context.Context) {
	dials := make(chan dialed, 1)
	ctx, s.hangUp = context.WithTimeout(ctx, s.proxy.settings.dialTimeout)
	dialer := s.proxy.dialer
	dialer.Advertise, dialer.Header = s.advertise, s.header()
	avoid, quick := s.avoid, s.quick
	s.dials = dials
	go func() {
		pause(ctx, backoff(quick-1)) // the first move is at once
		up, err := s.proxy.gateways.dial(ctx, dialer, avoid)
		dials <- dialed{up, err}
	}()
}

func (s *session) dialed(d dialed) error {
	s.hangUp()
	s.dials = nil
	if d.err != nil {
		return d.err
	}
	s.up, s.began, s.broken, s.parting = d.up, time.Now(), false, nil
	if s.bound { // the ticket has let it in
		s.askTicket()
	}
	return nil
}

// clientLeft: nothing more comes from the client. It may have closed, or only ended
// its half and wait for answers, which cannot be told apart. In the middle of a request, or
// of TLS, it has gone; what it sent before is handed over all the same.
func (s *session) clientLeft(err error) error {
	gone := errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.ErrUnexpectedEOF)
	if !errors.Is(err, io.EOF) && !gone {
		return fmt.Errorf("client: %w", err)
	}
	s.ending = true
	s.leave(func(r *request) bool { return r.transactional })
	if s.silent = time.After(halfOpen); gone {
		s.forget()
	}
	return nil
}

// forget: nobody takes answers any more. The client may have closed right after a
// produce that expects none, so what changes something is still handed over, and
// what only reads is not.
func (s *session) forget() {
	s.gone = true
	s.leave(func(r *request) bool { return repeatable[r.key] || r.own })
}

// leave drops those requests that were not handed over.
func (s *session) leave(which func(*request) bool) {
	kept := s.queue[:s.handed]
	for _, r := range s.queue[s.handed:] {
		if which(r) {
			s.drop(r)
		} else {
			kept = append(kept, r)
		}
	}
	s.queue = kept
}

// drop gives back what a request held; the caller takes it out of the queue.
func (s *session) drop(r *request) {
	s.bytes -= len(r.frame)
	s.proxy.requestMemory.Release(len(r.frame))
}

// remove takes a request that was handed over out of the queue.
func (s *session) remove(i int) {
	s.drop(s.queue[i])
	s.queue = append(s.queue[:i], s.queue[i+1:]...)
	s.handed--
}

// handedAt finds a request that was handed over and has no answer; -1 if it has.
func (s *session) handedAt(r *request) int {
	for i := range s.handed {
		if s.queue[i] == r {
			return i
		}
	}
	return -1
}

func (s *session) event(e event) error {
	s.writing = nil
	i := s.handedAt(e.wrote)
	switch {
	case e.writeErr != nil:
		// It was not handed over whole. What came before it may still be answered.
		if i >= 0 {
			s.handed--
		}
		s.broken = true
		s.late = time.After(lastAnswers)
	case i >= 0 && !e.wrote.answered:
		s.remove(i) // nobody waits for it
	}
	if s.ended != nil {
		return s.settle()
	}
	return nil
}

// answered takes an answer, which counts in memory until it is passed on.
func (s *session) answered(answer []byte) error {
	defer s.proxy.answerMemory.Release(len(answer))
	return s.deliver(answer)
}

// deliver passes an answer on. Answers come in the order of requests.
func (s *session) deliver(answer []byte) error {
	for i, r := range s.queue[:s.handed] {
		if !r.answered {
			continue
		}
		if !r.raw && (len(answer) < 8 || int32(binary.BigEndian.Uint32(answer[4:])) != r.correlation) {
			return errAnswer
		}
		s.remove(i)
		s.quick = 0
		if r.own {
			s.takeTicket(answer)
			return nil
		}
		s.heard(r, answer)
		s.proxy.metrics.answers.Inc()
		if s.gone {
			return nil
		}
		return s.toClient(s.client.answer(answer))
	}
	return errAnswer
}

// lose notes that the gateway is gone. If a request is with the writer, what
// becomes of the session is decided when it is known whether it went out whole.
func (s *session) lose(cause error) error {
	s.ended = cause
	if s.writing == nil {
		return s.settle()
	}
	s.broken = true
	go s.up.conn.Close() // for the writer; close waits for it
	return nil
}

// settle decides what becomes of the session when its gateway is gone and the
// writer is done.
func (s *session) settle() error {
	cause, up := s.ended, s.up
	s.ended, s.up, s.avoid, s.parting, s.late = nil, nil, up.gateway, nil, nil
	s.proxy.background.Go(up.close)
	what := verdictOf(cause)
	if what == lost || what == goodbye || what == promised {
		up.gateway.doubt(up.age)
	}
	if s.quick++; time.Since(s.began) >= shortLived {
		s.quick = 1
	}
	switch {
	case what == refused:
		return fmt.Errorf("%w: %w", errRefused, cause)
	case s.tied():
		return fmt.Errorf("the client authenticated itself at a gateway that is gone: %w", cause)
	}
	kept := s.queue[:0]
	var unknown *request
	for i, r := range s.queue {
		if r.own { // it is asked anew, elsewhere
			s.drop(r)
			continue
		}
		if i < s.handed {
			if !r.answered || s.gone {
				s.drop(r) // nobody waits for it, and it may have arrived
				continue
			}
			if what != promised && !repeatable[r.key] && unknown == nil {
				unknown = r
			}
			if len(kept) == 0 && what == lost {
				r.losses++
			}
		}
		kept = append(kept, r)
	}
	clear(s.queue[len(kept):])
	again := min(s.handed, len(kept))
	s.queue, s.handed = kept, 0
	switch {
	case unknown != nil:
		s.proxy.metrics.unknown.Inc()
		return fmt.Errorf("%w (API key %d): %w", errFateUnknown, unknown.key, cause)
	case len(kept) > 0 && kept[0].losses >= maxLosses:
		return fmt.Errorf("%w (API key %d): %w", errTooOften, kept[0].key, cause)
	}
	s.proxy.metrics.moves.Inc()
	s.proxy.logger.Debug("moving to another gateway", "client", s.client.RemoteAddr().String(), "from", up.gateway.name, "pending", again, "reason", cause)
	return nil
}
