package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/trimaran-io/trimaran/gateway/shim"
	"github.com/trimaran-io/trimaran/internal/locks"
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
// exists from the first request on. Its loop reacts to whatever happens to either. What
// happens all the time goes by without it: the goroutine that reads from the client hands a request
// over, and the one that reads from the gateway passes an answer on, each in one go. A hand-over
// between goroutines often is one between threads.
//
// Invariants: queue holds every request that is not answered, in the order in
// which they came; queue[:handed] were handed to up, in that order, and of them
// only the last ones, writing, may still be written. An answer goes to the first of
// them that expects one. A request is sent again only if the gateway surely did
// not begin it, or if it changes nothing.
//
// Who passes an answer on has answering first, then mu.
type session struct {
	proxy     *proxy
	client    *client
	advertise string
	// answering has an element while nobody writes to the client.
	answering chan struct{}
	wake      chan struct{} // an element: the loop has something to look at
	room      chan struct{} // an element: the client's reader may try again

	// mu guards what follows. Nobody waits while holding it.
	mu locks.Mutex[session]

	queue  []*request
	handed int
	bytes  int  // of all frames in queue
	full   bool // the client's reader waits for room

	up   *upstream
	from *answers // of up
	// who writes these to up knows, and nobody else may write; in the order of queue
	writing []*request
	frames  [][]byte // of these, while they are tried
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
	gone   bool  // the client takes no answers
	bound  bool  // the client authenticated itself on up
	failed error // why the loop has to end the session

	// See ticket.go.
	mechanism  string // that the client logs in by
	steps      int    // messages of it that are not answered yet
	ticket     string
	ticketEnds time.Time
	renew      <-chan time.Time
}

func newSession(p *proxy, c *client, advertise string) *session {
	s := &session{
		proxy: p, client: c, advertise: advertise,
		answering: make(chan struct{}, 1), wake: make(chan struct{}, 1), room: make(chan struct{}, 1),
	}
	s.answering <- struct{}{}
	return s
}

type dialed struct {
	up   *upstream
	from *answers
	err  error
}

// answers is what one gateway connection brings. Its methods are called by the connection's reader.
type answers struct {
	session *session
	begin   chan struct{} // closed when the session has the connection, or will not
	left    chan struct{} // closed when the session has left the connection
	// kept: an answer was passed on that may still wait for others. Who passed it on has it sent
	// before it waits for anything or ends, also if the session has left the connection meanwhile.
	kept bool
}

func newAnswers(s *session) *answers {
	return &answers{session: s, begin: make(chan struct{}), left: make(chan struct{})}
}

// run serves the client until it ends, ctx ends, or nothing is left to answer
// after stopping has ended. release must follow when nothing more is taken.
func (s *session) run(stopping, ctx context.Context, clientEnd <-chan error) error {
	stop := stopping.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.ending, s.broken = true, true }() // nothing more is taken or handed over
	for {
		if s.failed != nil {
			return s.failed
		}
		if s.done() {
			return nil
		}
		if s.up == nil && s.dials == nil && s.handed < len(s.queue) {
			s.dial(ctx)
		}
		if err := s.handOver(); err != nil {
			return err
		}
		var events <-chan event
		var dead, away, over <-chan struct{}
		if s.up != nil {
			events = s.up.events
			if s.ended == nil {
				dead, over = s.up.dead.Done(), s.up.conn.Ended()
			}
			if s.ended == nil && s.parting == nil && !s.tied() {
				away = s.up.away
			}
		}
		up, dials, silent, renew, parting, late := s.up, s.dials, s.silent, s.renew, s.parting, s.late
		// Meanwhile others may have had the gateway connection left.
		lose := func(cause error) error {
			if up != s.up || s.ended != nil {
				return nil
			}
			return s.lose(cause)
		}
		var happened func() error
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			happened = func() error { return context.Cause(ctx) }
		case <-stop:
			stop = nil
			happened = func() error { s.ending = true; return nil }
		case err := <-clientEnd:
			clientEnd = nil
			happened = func() error { return s.clientLeft(err) }
		case <-s.wake:
			happened = func() error { return nil }
		case d := <-dials:
			happened = func() error { return s.dialed(d) }
		case <-silent:
			happened = func() error { s.forget(); return nil }
		case <-renew:
			happened = func() error { s.askTicket(); return nil }
		case <-away:
			happened = func() error {
				// Meanwhile the client may have begun to log in there.
				if up == s.up && s.ended == nil && !s.tied() {
					s.parting = time.After(partingGrace)
				}
				return nil
			}
		case <-parting:
			happened = func() error {
				if up == s.up && s.ended == nil && s.writesToClient() {
					s.parting = time.After(partingGrace)
					return nil
				}
				return lose(errMoved)
			}
		case <-dead:
			happened = func() error { return lose(context.Cause(up.dead)) }
		case <-late:
			happened = func() error {
				if up == s.up && s.ended == nil && s.writesToClient() {
					s.late = time.After(lastAnswers)
					return nil
				}
				return lose(os.ErrDeadlineExceeded)
			}
		case <-over:
			_, why := up.conn.ReadMessage()
			happened = func() error { return lose(why) }
		case e := <-events:
			happened = func() error { return s.event(e) }
		}
		s.mu.Lock()
		err := happened()
		if err == nil && s.mayPart() {
			err = s.lose(errMoved)
		}
		if err != nil {
			return err
		}
	}
}

// look has the loop look at what has changed.
func (s *session) look() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// fail has the loop end the session.
func (s *session) fail(err error) {
	if err != nil && s.failed == nil {
		s.failed = err
		s.look()
	}
}

// take queues a request of the client's and hands it over if that can be done at once, unless more
// says that another follows, or pass. It waits until there is room; the error is ctx's, and the
// request was not taken.
func (s *session) take(ctx context.Context, r *request, more bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.ending || len(s.queue) >= maxPending || s.bytes > s.client.most {
		s.fail(s.handOver()) // what waits for more
		s.full = true
		s.mu.Unlock()
		var err error
		select {
		case <-s.room:
		case <-ctx.Done():
			err = ctx.Err()
		}
		if s.mu.Lock(); err != nil {
			return err
		}
	}
	s.queue = append(s.queue, r)
	s.bytes += len(r.frame)
	if !more {
		s.pass()
	}
	return nil
}

// pass hands over what was taken. The caller holds mu.
func (s *session) pass() {
	s.fail(s.handOver())
	if s.up == nil {
		s.look()
	}
}

// waiting is called by the client's reader before it waits for memory, or ends: what was taken with
// more to follow does not wait with it.
func (s *session) waiting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pass()
}

// mayHandOver reports whether the next request can go to the gateway.
func (s *session) mayHandOver() bool {
	return s.up != nil && s.ended == nil && len(s.writing) == 0 && !s.broken && s.parting == nil && s.handed < len(s.queue)
}

// handOver sends what the gateway's connection takes at once, several requests in one write. What
// it does not take is for the writer, which waits. mu is free meanwhile: an answer may come before
// this knows that the request was sent.
func (s *session) handOver() error {
	for s.mayHandOver() {
		// From here on the gateway may get them whole, until it is known that it did not.
		s.begin()
		up := s.up
		s.mu.Unlock()
		sent, tried := up.conn.TryMessages(s.frames)
		s.mu.Lock()
		clear(s.frames)
		if left := s.sent(sent, tried == shim.HalfSent || sent == 0); left != nil {
			up.out <- left // does not wait: the writer has nothing else to do
			return nil
		}
		if s.ended != nil {
			return s.settle()
		}
		if s.ending || s.parting != nil {
			s.look()
		}
	}
	return nil
}

// begin notes which requests go to the gateway next: all there are, but one that binds the client
// to it goes alone.
func (s *session) begin() {
	s.writing, s.frames = s.writing[:0], s.frames[:0]
	for _, r := range s.queue[s.handed:] {
		if r.binds() && len(s.writing) > 0 {
			break
		}
		s.writing, s.frames = append(s.writing, r), append(s.frames, r.frame)
		s.handed++
		if r.binds() {
			s.bound = true
			break
		}
	}
}

// sent notes that the gateway got the first n of those that are written, and nothing of others, but
// for the next one if the writer is to go on with it: then that is what this gives.
func (s *session) sent(n int, goOn bool) (left *request) {
	tried := s.writing
	back := tried[n:]
	if goOn {
		left, back = back[0], back[1:]
	}
	for range back {
		// They are the last of queue[:handed], unless a gateway has answered what it has not got.
		if s.handed > 0 && slices.Contains(back, s.queue[s.handed-1]) {
			s.handed--
		}
	}
	s.writing = nil
	for _, r := range tried[:n] {
		if i := s.handedAt(r); i >= 0 && !r.answered {
			s.remove(i) // nobody waits for it
		}
	}
	clear(tried)
	s.writing = tried[:0]
	if left != nil {
		s.writing = append(s.writing, left)
	}
	return left
}

// writesToClient reports whether somebody does. When that takes long it is the client that is slow,
// and not the gateway: other answers may be there already, behind that one.
func (s *session) writesToClient() bool { return len(s.answering) == 0 }

// flush sends small answers that wait for others.
func (s *session) flush() {
	<-s.answering
	defer func() { s.answering <- struct{}{} }()
	if !s.client.unsent() {
		return
	}
	if err := s.client.flush(); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.fail(s.toClient(err))
	}
}

// toClient gives the error of writing to the client its meaning.
func (s *session) toClient(err error) error {
	switch {
	case err == nil:
		return nil
	case s.silent != nil:
		s.forget() // it had closed
		s.look()
		return nil
	}
	return fmt.Errorf("client: %w", err)
}

// mayPart reports whether a session that is to leave its gateway waits for nothing there that it
// could not ask again.
func (s *session) mayPart() bool {
	if s.parting == nil || s.up == nil || s.ended != nil || len(s.writing) > 0 {
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
		return s.handed == len(s.queue) && len(s.writing) == 0
	}
	return len(s.queue) == 0 && len(s.writing) == 0
}

// release ends what the session still has. Nothing is taken from the client any more.
func (s *session) release() (gone bool) {
	s.mu.Lock()
	gone, dials, up := s.gone, s.dials, s.up
	s.mu.Unlock()
	if !gone {
		s.flush() // what was passed on arrives, whatever this ends with
	}
	if dials != nil {
		s.hangUp()
		d := <-dials
		if close(d.from.begin); d.up != nil {
			d.up.close()
		}
	}
	if up != nil {
		up.close() // no answer comes any more
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.queue {
		s.proxy.requestMemory.Release(len(r.frame))
	}
	s.queue, s.handed, s.from = nil, 0, nil
	return s.gone
}

// dial looks for a gateway while the client waits.
func (s *session) dial(ctx context.Context) {
	dials := make(chan dialed, 1)
	ctx, s.hangUp = context.WithTimeout(ctx, s.proxy.settings.dialTimeout)
	dialer := s.proxy.dialer
	dialer.Advertise, dialer.Header = s.advertise, s.header()
	avoid, quick := s.avoid, s.quick
	from := newAnswers(s)
	dialer.Receive, dialer.Waiting, dialer.Memory = from.take, from.waiting, from
	s.dials = dials
	go func() {
		pause(ctx, backoff(quick-1)) // the first move is at once
		up, err := s.proxy.gateways.dial(ctx, dialer, avoid)
		dials <- dialed{up, from, err}
	}()
}

func (s *session) dialed(d dialed) error {
	s.hangUp()
	s.dials = nil
	close(d.from.begin)
	if d.err != nil {
		return d.err
	}
	s.up, s.from, s.began, s.broken, s.parting = d.up, d.from, time.Now(), false, nil
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
	if s.full {
		s.full = false
		select {
		case s.room <- struct{}{}:
		default:
		}
	}
	s.bytes -= len(r.frame)
	s.proxy.requestMemory.Release(len(r.frame))
}

// remove takes a request that was handed over out of the queue, and is not sent again.
func (s *session) remove(i int) {
	r := s.queue[i]
	if s.drop(r); !slices.Contains(s.writing, r) {
		giveBack(r.frame)
		r.frame = nil
	}
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
	s.writing = s.writing[:0]
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

// take passes an answer on, which counts in memory until then.
func (from *answers) take(answer []byte) {
	s := from.session
	defer s.proxy.answerMemory.Release(len(answer))
	<-from.begin
	select {
	case <-s.answering:
	case <-from.left: // a client that takes nothing does not keep an answer of each gateway it had
		return
	}
	defer func() { s.answering <- struct{}{} }()
	if !s.answered(from, answer) {
		return
	}
	if err := s.client.answer(answer); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.fail(s.toClient(err))
	}
	from.kept = s.client.unsent()
}

// waiting sends what was kept for more to come with it.
func (from *answers) waiting() {
	if from.kept {
		from.kept = false
		from.session.flush()
	}
}

// Acquire takes memory for the next answer.
func (from *answers) Acquire(ctx context.Context, n int) error {
	memory := from.session.proxy.answerMemory
	if memory.TryAcquire(n) {
		return nil
	}
	from.waiting()
	return memory.Acquire(ctx, n)
}

// Release implements shim.Memory.
func (from *answers) Release(n int) { from.session.proxy.answerMemory.Release(n) }

// answered finds the request that an answer is to, and reports whether the client is to get it.
// Answers come in the order of requests.
func (s *session) answered(from *answers, answer []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if from != s.from {
		return false // it has been left
	}
	i := slices.IndexFunc(s.queue[:s.handed], func(r *request) bool { return r.answered })
	if i < 0 || !s.queue[i].raw && (len(answer) < 8 || int32(binary.BigEndian.Uint32(answer[4:])) != s.queue[i].correlation) {
		s.fail(errAnswer)
		return false
	}
	r := s.queue[i]
	s.remove(i)
	s.quick = 0
	if s.ending || s.parting != nil || r.own || r.binds() {
		s.look()
	}
	if r.own {
		s.takeTicket(answer)
		return false
	}
	s.heard(r, answer)
	s.proxy.metrics.answers.Inc()
	return !s.gone
}

// lose notes that the gateway is gone. If a request is with the writer, what
// becomes of the session is decided when it is known whether it went out whole.
func (s *session) lose(cause error) error {
	s.ended = cause
	if len(s.writing) == 0 {
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
	close(s.from.left)
	s.ended, s.up, s.from, s.avoid, s.parting, s.late = nil, nil, nil, up.gateway, nil, nil
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
		begun := i < s.handed && what != promised // for all that is known
		// What is the shim's own is asked anew, elsewhere; for the other see clientLeft.
		if r.own || r.transactional && s.silent != nil && !begun {
			s.drop(r)
			continue
		}
		if i < s.handed {
			if !r.answered || s.gone {
				s.drop(r) // nobody waits for it, and it may have arrived
				continue
			}
			if begun && !repeatable[r.key] && unknown == nil {
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
