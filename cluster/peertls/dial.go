package peertls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// DialFunc opens a connection to an address.
type DialFunc func(ctx context.Context, addr string) (net.Conn, error)

// Dialer gives connections that are secured as the mode says. dial opens those that they go over;
// nil is TCP.
func (g *Guard) Dialer(dial DialFunc) DialFunc {
	if dial == nil {
		var d net.Dialer
		dial = func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
	}
	if g.mode == Accept {
		return dial
	}
	return func(ctx context.Context, addr string) (net.Conn, error) {
		nc, err := dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		c := newConn(nc)
		c.Conn = tls.Client(c.raw, g.config(x509.ExtKeyUsageServerAuth))
		err = c.Conn.HandshakeContext(ctx)
		if err == nil {
			return &dialed{conn: c, guard: g}, nil
		}
		_ = nc.Close()
		if g.mode == Require || !knowsNoTLS(err) || ctx.Err() != nil {
			return nil, fmt.Errorf("TLS: %w", err)
		}
		if g.logLimit.Allow() {
			g.log.Warn("a node does not know TLS, and is spoken to in plaintext", "addr", addr, "error", err)
		}
		return dial(ctx, addr)
	}
}

// knowsNoTLS says whether a handshake failed as it does with a node that does not know TLS: it
// ends the connection without a word, or answers in another language. One that knows TLS sends an
// alert.
func knowsNoTLS(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.As(err, &tls.RecordHeaderError{})
}

// dialed is a TLS connection that this side opened.
type dialed struct {
	*conn
	guard *Guard
}

// Prove gives an error unless the other side has shown that it may have that identity.
func (d *dialed) Prove(identity string) error {
	return d.guard.prove(d.Conn.ConnectionState().PeerCertificates[0], identity)
}

// Settled gives the connection as it is used from now on.
func (d *dialed) Settled() net.Conn { return d.conn }
