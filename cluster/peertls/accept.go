package peertls

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
)

const (
	// tlsHandshake is the first byte of a TLS connection, the type of its first record. The hello
	// of a connection without begins with 'T'.
	tlsHandshake = 0x16
	// maxBefore bounds what is read of a stranger before it has said who it is, in bytes: a
	// handshake with a chain of certificates, and a hello.
	maxBefore = 64 << 10
)

// Listener gives connections whose first byte tells what they are. Accept does not wait for it.
func (g *Guard) Listener(l net.Listener) net.Listener { return &listener{l, g} }

type listener struct {
	net.Listener
	guard *Guard
}

func (l *listener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &accepted{Conn: nc, guard: l.guard}, nil
}

// accepted is a connection of which nothing is known before the first Read. Until it is Settled it
// is for one goroutine at a time, but for Close and deadlines.
type accepted struct {
	net.Conn
	guard *Guard
	begun bool
	now   net.Conn // what is spoken over, valid once begun
	tls   *tls.Conn
	count *bounded
	err   error
}

// Read takes bytes of inside the TLS connection, or of the plain one.
func (a *accepted) Read(p []byte) (int, error) {
	if err := a.begin(); err != nil {
		return 0, err
	}
	return a.now.Read(p)
}

// Write sends inside the TLS connection, or over the plain one.
func (a *accepted) Write(p []byte) (int, error) {
	if err := a.begin(); err != nil {
		return 0, err
	}
	return a.now.Write(p)
}

func (a *accepted) begin() error {
	if a.begun {
		return a.err
	}
	a.begun = true
	a.count = &bounded{Conn: a.Conn, left: maxBefore}
	var first [1]byte
	if _, a.err = io.ReadFull(a.count, first[:]); a.err != nil {
		return a.err
	}
	a.count.back = first[:]
	if first[0] != tlsHandshake {
		if a.now = a.count; a.guard.mode == Require {
			a.err = ErrPlaintext
		}
		return a.err
	}
	c := newConn(a.count)
	c.Conn = tls.Server(c.raw, a.guard.config(x509.ExtKeyUsageClientAuth))
	a.now, a.tls = c, c.Conn
	if a.err = a.tls.Handshake(); a.err != nil {
		a.err = fmt.Errorf("TLS: %w", a.err)
	}
	return a.err
}

// Prove gives an error unless the other side has shown that it may have that identity. Over a plain
// connection it may have any.
func (a *accepted) Prove(identity string) error {
	if a.err != nil || a.tls == nil {
		return a.err
	}
	return a.guard.prove(a.tls.ConnectionState().PeerCertificates[0], identity)
}

// Settled gives the connection as it is used from now on, when the hello has been read: the plain
// one itself, or one without the bound on what is read.
func (a *accepted) Settled() net.Conn {
	if a.tls == nil {
		return a.Conn
	}
	a.count.left = -1
	return a.now
}

// bounded is a connection of which so many bytes can be read.
type bounded struct {
	net.Conn
	back []byte // read already, and to be read again
	left int    // bytes; negative: no bound
}

func (b *bounded) Read(p []byte) (int, error) {
	if len(b.back) > 0 {
		n := copy(p, b.back)
		b.back = b.back[n:]
		return n, nil
	}
	if b.left == 0 {
		return 0, ErrTooMuch
	}
	if b.left > 0 && len(p) > b.left {
		p = p[:b.left]
	}
	n, err := b.Conn.Read(p)
	if b.left > 0 {
		b.left -= n
	}
	return n, err
}
