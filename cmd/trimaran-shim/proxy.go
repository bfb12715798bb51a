package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/trimaran-io/trimaran/gateway/shim"
)

// proxy takes client connections and gives each a session.
type proxy struct {
	settings      settings
	gateways      *gateways
	dialer        shim.Dialer // of sessions
	clientTLS     *tls.Config // nil: clients do not use TLS
	requestMemory *budget
	answerMemory  *budget
	metrics       *metrics
	logger        *slog.Logger
	background    sync.WaitGroup // gateway connections that are being closed
}

// newProxy makes one that does not serve yet. eachTLS gives what a connection to a gateway takes.
func newProxy(s settings, eachTLS func() *tls.Config, logger *slog.Logger) *proxy {
	dialer := shim.Dialer{HandshakeTimeout: s.handshakeTimeout}
	p := &proxy{
		settings:      s,
		gateways:      newGateways(s.gateways, dialer, eachTLS, s.gatewayTimeout, logger),
		dialer:        dialer,
		requestMemory: newBudget(s.maxMemoryBytes),
		answerMemory:  newBudget(s.maxMemoryBytes),
		logger:        logger,
	}
	p.dialer.Serving = func(bool) {} // the watcher hears it
	p.metrics = newMetrics(p)
	return p
}

// serve takes clients until ctx ends, then lets answers that are under way
// arrive for the grace time and closes what is left.
func (p *proxy) serve(ctx context.Context, listener net.Listener) error {
	stopAccepting := context.AfterFunc(ctx, func() { listener.Close() })
	defer stopAccepting()
	hard, kill := context.WithCancel(context.Background())
	var watchers sync.WaitGroup
	watchers.Go(func() { p.gateways.watch(hard) })
	var sessions sync.WaitGroup
	err := p.accept(ctx, listener, func(conn net.Conn) {
		p.metrics.clients.Inc()
		p.metrics.accepted.Inc()
		sessions.Go(func() {
			defer p.metrics.clients.Dec()
			p.session(ctx, hard, conn)
		})
	})
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
		p.logger.Warn("shim stops with answers under way", "grace", p.settings.grace.String())
	}
	kill()
	<-done
	p.background.Wait()
	watchers.Wait()
	p.logger.Info("shim stopped")
	return err
}

// accept takes connections until ctx ends (nil) or the listener fails.
func (p *proxy) accept(ctx context.Context, listener net.Listener, serve func(net.Conn)) error {
	slots := make(chan struct{}, p.settings.maxConnections)
	var refusals, failures int
	var told time.Time
	for {
		conn, err := listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // out of descriptors, mostly: it passes
			failures++
			p.logger.Warn("accept failed", "error", err)
			pause(ctx, backoff(failures))
			continue
		}
		failures = 0
		select {
		case slots <- struct{}{}:
			serve(slot{conn, sync.OnceFunc(func() { <-slots })})
		default:
			conn.Close()
			p.metrics.refused.Inc()
			if refusals++; time.Since(told) > time.Second { // many come when there are too many
				p.logger.Warn("clients refused: too many connections", "max", cap(slots), "refused", refusals)
				refusals, told = 0, time.Now()
			}
		}
	}
}

// slot is a connection that counts among those at a time until it is closed.
type slot struct {
	net.Conn
	free func()
}

func (s slot) Close() error {
	defer s.free()
	return s.Conn.Close()
}

func (s slot) CloseWrite() error {
	if conn, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return conn.CloseWrite()
	}
	return errors.ErrUnsupported
}

// session serves one client.
func (p *proxy) session(stopping, hard context.Context, conn net.Conn) {
	secure, err := p.secure(hard, conn)
	if err != nil {
		conn.Close()
		p.logger.Info("client connection ended in the TLS handshake", "client", conn.RemoteAddr().String(), "error", err)
		return
	}
	c := newClient(secure, p.settings.maxRequestBytes, p.requestMemory)
	c.secure = p.clientTLS != nil
	s := newSession(p, c, cmp.Or(p.settings.advertise, advertised(conn.LocalAddr())))
	ctx, cancel := context.WithCancel(hard)
	defer cancel()
	// A client that takes nothing must not keep its session from ending.
	defer context.AfterFunc(hard, func() { c.Close() })()
	clientEnd := make(chan error, 1)
	var reader sync.WaitGroup
	reader.Go(func() { clientEnd <- p.readClient(ctx, s) })
	err = s.run(stopping, ctx, clientEnd)
	cancel()
	c.interrupt()
	reader.Wait()
	if s.release() {
		c.Close()
	} else {
		c.letGo(hard)
	}
	level := slog.LevelInfo
	if err == nil || hard.Err() != nil || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		level = slog.LevelDebug
	}
	p.logger.Log(context.Background(), level, "client connection ended", "client", conn.RemoteAddr().String(), "error", err)
}

// secure makes the TLS connection that clients have to use where it is configured.
func (p *proxy) secure(ctx context.Context, conn net.Conn) (net.Conn, error) {
	if p.clientTLS == nil {
		return conn, nil
	}
	ctx, cancel := context.WithTimeout(ctx, tlsTimeout)
	defer cancel()
	t := tls.Server(conn, p.clientTLS)
	return t, t.HandshakeContext(ctx)
}

// tlsTimeout is how long a client may take for the TLS handshake.
const tlsTimeout = 10 * time.Second

// plainAddress is an address and port of TCP without a zone, which means something on this machine
// only; "" for any other.
func plainAddress(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return ""
	}
	at := tcp.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port()).String()
}

// readClient takes requests off the client's connection.
func (p *proxy) readClient(ctx context.Context, s *session) error {
	s.client.waiting = s.waiting
	defer s.waiting() // what was taken before is handed over, whatever is wrong with the next one
	for {
		r, err := s.client.readRequest(ctx)
		if err != nil {
			return err
		}
		p.metrics.requests.Inc()
		if err := s.take(ctx, r, s.client.another()); err != nil {
			p.requestMemory.Release(len(r.frame))
			return err
		}
	}
}

// advertised is the address that a client connected to, as Metadata can name it.
func advertised(local net.Addr) string {
	host, port, err := net.SplitHostPort(local.String())
	if err != nil {
		return ""
	}
	host, _, _ = strings.Cut(host, "%") // a zone means something on this machine only
	return net.JoinHostPort(host, port)
}
