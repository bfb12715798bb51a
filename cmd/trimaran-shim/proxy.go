package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/trimaran-io/trimaran/gateway/shim"
)

// proxy takes client connections and gives each a session.
type proxy struct {
	settings settings
	gateways *gateways
	dialer   shim.Dialer
	logger   *slog.Logger
}

func newProxy(s settings, urls []string, config *tls.Config, logger *slog.Logger) *proxy {
	return &proxy{
		settings: s,
		gateways: newGateways(urls, logger),
		dialer: shim.Dialer{
			TLSConfig:        config,
			HandshakeTimeout: s.handshakeTimeout,
		},
		logger: logger,
	}
}

// serve takes clients until ctx ends, then lets answers that are under way
// arrive for the grace time and closes what is left.
func (p *proxy) serve(ctx context.Context, listener net.Listener) error {
	stopAccepting := context.AfterFunc(ctx, func() { listener.Close() })
	defer stopAccepting()
	hard, kill := context.WithCancel(context.Background())
	defer kill()
	var sessions sync.WaitGroup
	slots := make(chan struct{}, max(p.settings.maxConnections, 1))
	var err error
	for {
		var client net.Conn
		client, err = listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				err = nil
				break
			}
			if errors.Is(err, net.ErrClosed) {
				break
			}
			p.logger.Warn("accept", "error", err) // out of descriptors, mostly: it passes
			select {
			case <-time.After(50 * time.Millisecond):
				continue
			case <-ctx.Done():
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			p.logger.Warn("client refused: too many connections", "max", cap(slots))
			client.Close()
			continue
		}
		sessions.Add(1)
		go func() {
			defer sessions.Done()
			defer func() { <-slots }()
			if err := p.session(ctx, hard, client); err != nil {
				p.logger.Info("client connection ended", "client", client.RemoteAddr().String(), "error", err)
			}
		}()
	}
	done := make(chan struct{})
	go func() {
		sessions.Wait()
		close(done)
	}()
	grace := time.NewTimer(p.settings.grace)
	defer grace.Stop()
	select {
	case <-done:
	case <-grace.C:
		kill()
		<-done
	}
	p.logger.Info("shim stopped")
	return err
}

// maxPending bounds the requests of a client that wait for an answer.
const maxPending = 64

// session is one client connection and the gateway connection behind it. Its
// loop owns all fields; the goroutines that read and write only pass things on.
type session struct {
	proxy  *proxy
	client net.Conn
	dialer shim.Dialer
	health *gatewayHealth

	pending []*request // without an answer, in order; those not sent yet are at the end
	unsent  int        // how many of pending are not handed to the gateway connection yet
}

// upstream is one connection to a gateway.
type upstream struct {
	conn   *shim.Conn
	out    chan *request
	events chan event
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// event is what comes from a gateway connection: an answer, a request that was
// handed over, or the end of one direction.
type event struct {
	answer   []byte
	sent     *request
	readErr  error
	writeErr error
}

// session runs until the client or ctx ends. stopping ends it in an orderly way.
func (p *proxy) session(stopping, ctx context.Context, client net.Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &session{proxy: p, client: client, dialer: p.dialer}
	s.dialer.Advertise = p.settings.advertise
	if s.dialer.Advertise == "" {
		s.dialer.Advertise = client.LocalAddr().String()
	}
	requests := make(chan *request)
	clientEnd := make(chan error, 1)
	present, gone := context.WithCancel(ctx)
	defer gone()
	var reader sync.WaitGroup
	reader.Add(1)
	go func() {
		defer reader.Done()
		clientEnd <- readClient(ctx, client, p.settings.maxRequestBytes, requests)
		gone()
	}()
	defer reader.Wait()
	defer client.Close()
	// A client that takes nothing must not keep its session from ending.
	closing := context.AfterFunc(ctx, func() { client.Close() })
	defer closing()
	for {
		dialCtx, dialCancel := context.WithTimeout(present, p.settings.dialTimeout)
		conn, health, err := p.gateways.dial(dialCtx, s.dialer)
		dialCancel()
		if err != nil {
			if present.Err() != nil {
				return nil // the client did not wait for it
			}
			return err
		}
		began := time.Now()
		s.health = health
		up := newUpstream(conn)
		again, err := s.run(stopping, ctx, up, requests, clientEnd)
		up.close()
		if !again {
			return err
		}
		if !isGoodbye(err) || time.Since(began) < shortLived {
			p.gateways.failed(health, err)
		}
		p.logger.Debug("moving to another gateway", "client", client.RemoteAddr().String(), "from", health.url, "repeated", len(s.pending), "reason", err)
	}
}

// shortLived is a gateway connection that ended too soon to be tried again at once.
const shortLived = time.Second

// isGoodbye tells a planned end of a gateway connection from a loss.
func isGoodbye(err error) bool { return errors.Is(err, io.EOF) }

// readClient takes messages off the client's connection.
func readClient(ctx context.Context, client net.Conn, most int, to chan<- *request) error {
	for {
		frame, err := readFrame(client, most)
		if err != nil {
			return err
		}
		r, err := parseRequest(frame)
		if err != nil {
			return err
		}
		select {
		case to <- r:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func newUpstream(conn *shim.Conn) *upstream {
	up := &upstream{conn: conn, out: make(chan *request), events: make(chan event)}
	up.ctx, up.cancel = context.WithCancel(context.Background())
	up.done.Add(2)
	go func() {
		defer up.done.Done()
		for {
			answer, err := conn.ReadMessage()
			if err != nil {
				up.tell(event{readErr: err})
				return
			}
			if !up.tell(event{answer: answer}) {
				return
			}
		}
	}()
	go func() {
		defer up.done.Done()
		for {
			select {
			case r := <-up.out:
				if err := conn.WriteMessage(r.frame); err != nil {
					up.tell(event{writeErr: err})
					return
				}
				if !up.tell(event{sent: r}) {
					return
				}
			case <-up.ctx.Done():
				return
			}
		}
	}()
	return up
}

func (up *upstream) tell(e event) bool {
	select {
	case up.events <- e:
		return true
	case <-up.ctx.Done():
		return false
	}
}

func (up *upstream) close() {
	up.cancel()
	up.conn.Close()
	up.done.Wait()
}

var errFateUnknown = errors.New("the gateway was lost before it answered a request that may have changed something")

// lastAnswers is how long answers are waited for after a gateway stopped taking
// requests.
const lastAnswers = 2 * time.Second

// run carries messages over one gateway connection. again says that the gateway
// is gone and nothing keeps the session from going on with another one; then
// pending holds what is to be sent there.
func (s *session) run(stopping, ctx context.Context, up *upstream, requests <-chan *request, clientEnd <-chan error) (again bool, err error) {
	for _, r := range s.pending {
		r.sent = false
	}
	s.unsent = len(s.pending)
	writing := false // one request is with the writer
	writable := true
	ending := false // nothing more is taken from the client
	stop := stopping.Done()
	for {
		if ending && len(s.pending) == 0 && !writing {
			return false, nil
		}
		var out chan<- *request
		var next *request
		if s.unsent > 0 && !writing && writable {
			out, next = up.out, s.pending[len(s.pending)-s.unsent]
		}
		var take <-chan *request
		if !ending && writable && len(s.pending) < maxPending {
			take = requests
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-stop:
			ending, stop = true, nil
		case err := <-clientEnd:
			if errors.Is(err, io.EOF) {
				err = nil
			}
			if err != nil {
				return false, fmt.Errorf("client: %w", err)
			}
			// It may have sent produces without acknowledgement just before.
			for _, r := range s.pending[len(s.pending)-s.unsent:] {
				if r.answered {
					return false, nil
				}
			}
			if s.unsent == 0 && !writing {
				return false, nil
			}
			ending, clientEnd = true, nil
			s.forgetAnswered()
		case r := <-take:
			s.pending = append(s.pending, r)
			s.unsent++
		case out <- next:
			// From here on the gateway may get it whole, until the writer says otherwise.
			next.sent, writing = true, true
			s.unsent--
		case e := <-up.events:
			switch {
			case e.sent != nil:
				writing = false
				if !e.sent.answered {
					s.remove(e.sent)
				}
			case e.answer != nil:
				if err := s.deliver(e.answer); err != nil {
					return false, err
				}
			case e.writeErr != nil:
				// The request that failed was not handed over whole. What came before it
				// may still be answered.
				writing, writable = false, false
				if i := len(s.pending) - s.unsent - 1; i >= 0 {
					s.pending[i].sent = false
					s.unsent++
				}
				_ = up.conn.SetReadDeadline(time.Now().Add(lastAnswers))
			case e.readErr != nil:
				return s.lost(e.readErr)
			}
		}
	}
}

// lost decides what becomes of the session when its gateway is gone.
func (s *session) lost(cause error) (again bool, err error) {
	kept := s.pending[:0]
	for _, r := range s.pending {
		if !r.answered && r.sent {
			continue // nobody waits for it, and it may have arrived
		}
		if !r.safe() {
			return false, fmt.Errorf("%w: %w", errFateUnknown, cause)
		}
		kept = append(kept, r)
	}
	s.pending = kept
	return true, cause
}

// deliver passes an answer on. Answers come in the order of requests.
func (s *session) deliver(answer []byte) error {
	for i, r := range s.pending[:len(s.pending)-s.unsent] {
		if !r.answered {
			continue
		}
		if len(answer) < 8 || int32(be32(answer[4:])) != r.correlation {
			return errors.New("the gateway answered out of order")
		}
		s.pending = append(s.pending[:i], s.pending[i+1:]...)
		_, err := s.client.Write(answer)
		return err
	}
	return errors.New("the gateway answered what nobody asked")
}

func (s *session) remove(r *request) {
	for i := range s.pending {
		if s.pending[i] == r {
			s.pending = append(s.pending[:i], s.pending[i+1:]...)
			return
		}
	}
}

// forgetAnswered drops what only a client that is gone was waiting for.
func (s *session) forgetAnswered() {
	kept := s.pending[:0]
	for _, r := range s.pending {
		if !r.answered {
			kept = append(kept, r)
		}
	}
	s.pending = kept
	s.unsent = min(s.unsent, len(kept))
}

func be32(b []byte) uint32 {
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}
