package listen

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/trimaran-io/trimaran/gateway/internal/frames"
)

// How long a connection may take to show what it is.
const (
	// firstByteTimeout: clients that open connections ahead of need are not cut
	// off at once.
	firstByteTimeout = time.Minute
	handshakeTimeout = 10 * time.Second
)

// Kinds of connections, as metrics name them.
const (
	KindTCP       = "tcp"
	KindTLS       = "tls"
	KindWebSocket = "websocket"
	KindHTTP      = "http"
)

// peeked is a connection whose first bytes can be looked at.
type peeked struct {
	net.Conn
	in *bufio.Reader
}

func peek(c net.Conn) *peeked { return &peeked{c, bufio.NewReaderSize(c, 4<<10)} }

func (p *peeked) Read(b []byte) (int, error) { return p.in.Read(b) }

func (p *peeked) CloseWrite() error {
	if half, ok := p.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// first gives the first byte without taking it.
func (p *peeked) first() (byte, error) {
	if err := p.SetReadDeadline(time.Now().Add(firstByteTimeout)); err != nil {
		return 0, err
	}
	b, err := p.in.Peek(1)
	if err != nil {
		return 0, err
	}
	return b[0], p.SetReadDeadline(time.Time{})
}

// The three things that a first byte can announce. A Kafka request begins with
// its size, whose first byte is below 0x16 for every size that is allowed.
func opensTLS(b byte) bool  { return b == 0x16 } // handshake record
func opensHTTP(b byte) bool { return 'A' <= b && b <= 'Z' || 'a' <= b && b <= 'z' }

var (
	errNoTLS     = errors.New("a TLS handshake, and no certificate is configured")
	errTLSInTLS  = errors.New("a TLS handshake inside TLS")
	errPlaintext = errors.New("plaintext from beyond loopback, and TLS is configured")
)

// handle finds out what a connection is and serves it. It returns when the
// connection is closed or handed to the HTTP server.
func (s *Server) handle(c *conn) {
	in := peek(c)
	first, err := in.first()
	if err != nil {
		s.gone(c, "before the first byte", err)
		return
	}
	var state *tls.ConnectionState
	switch {
	case opensTLS(first) && s.tls == nil:
		s.refuse(c, "tls", errNoTLS)
		return
	case opensTLS(first):
		if in, state, err = s.handshake(in); err == nil {
			first, err = in.first()
		}
		switch {
		case err != nil:
			s.gone(c, "in the TLS handshake", err)
			return
		case opensTLS(first):
			s.refuse(c, "tls", errTLSInTLS)
			return
		}
	case s.tls != nil && !isLoopback(c.RemoteAddr()) && principalOf(c) == nil:
		s.refuse(c, "plaintext", errPlaintext)
		return
	}
	if opensHTTP(first) {
		s.serveHTTP(&webConn{Turns: frames.NewTurns(in), conn: c, state: state})
		return
	}
	kind := KindTCP
	if state != nil {
		kind = KindTLS
	}
	facts, err := s.facts(c, state)
	if err != nil {
		s.refuse(c, "certificate", err)
		return
	}
	s.serveSession(c, kind, newStream(in, s.cfg.MaxRequestBytes), s.ofConnection(c.LocalAddr(), state), facts)
}

// handshake makes the TLS connection inside.
func (s *Server) handshake(outer *peeked) (*peeked, *tls.ConnectionState, error) {
	ctx, cancel := context.WithTimeout(s.leaving, handshakeTimeout)
	defer cancel()
	t := tls.Server(outer, s.tls)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, nil, err
	}
	state := t.ConnectionState()
	return peek(t), &state, nil
}

// refuse closes a connection that may not be served and says why.
func (s *Server) refuse(c *conn, metric string, why error) {
	s.cfg.Metrics.Refused(metric)
	s.cfg.Refusals.Log("connection refused", why, "peer", c.RemoteAddr())
	c.Close()
}

// gone closes a connection that ended before it was anything. One that was only
// opened and closed, as health checks do, is no event.
func (s *Server) gone(c *conn, when string, err error) {
	c.Close()
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || s.leaving.Err() != nil {
		return
	}
	s.cfg.Refusals.Log("connection ended "+when, fmt.Errorf("%s: %w", when, err), "peer", c.RemoteAddr())
}

// closeGently closes a connection in a way that what was sent arrives: closing a TCP
// connection that still has unread input resets it, and the reset can overtake
// the last answer.
func closeGently(c net.Conn) {
	defer c.Close()
	half, ok := c.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	if c.SetReadDeadline(time.Now().Add(time.Second)) == nil {
		_, _ = io.CopyN(io.Discard, c, 4<<20)
	}
}
