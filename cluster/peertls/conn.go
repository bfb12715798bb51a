package peertls

import (
	"bufio"
	"crypto/tls"
	"net"

	"github.com/trimaran-io/trimaran/internal/locks"
)

const (
	// gatherSize is how much of small parts goes to TLS at once, in bytes; a record has at most
	// 16 KiB.
	gatherSize = 64 << 10
	// largePart is the size from which copying costs more than a record that is not full, in bytes.
	largePart = 16 << 10
	// rawSize is what is read or written by one system call, in bytes, or about that.
	rawSize = 64 << 10
)

// conn is a TLS connection that makes one system call of many records. crypto/tls makes one, or
// more, of each, and knows no writev.
type conn struct {
	*tls.Conn
	raw *rawConn

	// mu is held while something is written, for the connection's sake: its own mutexes say nothing
	// of what is held back. rawConn.mu is taken under it.
	mu     locks.Slow[conn]
	gather []byte
}

// newConn needs a tls.Conn over raw.
func newConn(nc net.Conn) *conn {
	return &conn{raw: &rawConn{Conn: nc, in: bufio.NewReaderSize(nc, rawSize)}}
}

// Write sends b in records of 16 KiB, and makes one system call of several.
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.WriteParts(net.Buffers{b})
	return int(n), err
}

// WriteParts sends the parts one after another as if they were one, and says how many bytes of
// them were taken. They are not changed and not kept.
func (c *conn) WriteParts(parts net.Buffers) (n int64, err error) {
	locks.MayWait("writing to a node")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw.hold()
	for _, p := range parts {
		if len(c.gather)+len(p) > gatherSize || len(p) >= largePart {
			if err = c.flushGathered(&n); err != nil {
				break
			}
		}
		if len(p) >= largePart {
			var m int
			m, err = c.Conn.Write(p)
			if n += int64(m); err != nil {
				break
			}
			continue
		}
		c.gather = append(c.gather, p...)
	}
	if err == nil {
		err = c.flushGathered(&n)
	}
	c.gather = c.gather[:0]
	if rerr := c.raw.release(); err == nil {
		err = rerr
	}
	return n, err
}

// flushGathered is called with mu held.
func (c *conn) flushGathered(n *int64) error {
	if len(c.gather) == 0 {
		return nil
	}
	m, err := c.Conn.Write(c.gather)
	*n += int64(m)
	c.gather = c.gather[:0]
	return err
}

// Close ends the connection at once. TLS's own sign of an end is not sent: it would wait for the
// other side, and frames tell themselves whether they are whole.
func (c *conn) Close() error { return c.raw.Conn.Close() }

// rawConn is what TLS reads from and writes to.
type rawConn struct {
	net.Conn
	in *bufio.Reader

	// mu is held while something is written. Nothing is taken under it.
	mu   locks.Slow[rawConn]
	held bool
	out  []byte // held back until release, or until there is enough of it
	err  error  // of a write that nobody was told of
}

func (r *rawConn) Read(p []byte) (int, error) { return r.in.Read(p) }

// Write is called by crypto/tls, also on the goroutine that reads.
func (r *rawConn) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.held {
		return r.Conn.Write(p)
	}
	r.out = append(r.out, p...)
	if len(r.out) >= rawSize {
		r.flush()
	}
	return len(p), r.err
}

// hold keeps what is written back until release.
func (r *rawConn) hold() {
	r.mu.Lock()
	r.held = true
	r.mu.Unlock()
}

func (r *rawConn) release() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = false
	r.flush()
	return r.err
}

// flush is called with mu held.
func (r *rawConn) flush() {
	if len(r.out) > 0 && r.err == nil {
		_, r.err = r.Conn.Write(r.out)
	}
	r.out = r.out[:0]
}
