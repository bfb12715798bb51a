package main

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// relay stands between clients and the shim, as it is, bytes and all, and counts the connections
// that the shim ended before its client did.
type relay struct {
	listener net.Listener
	to       atomic.Pointer[string]
	taken    atomic.Int64
	broken   atomic.Int64
}

func newRelay() (*relay, error) {
	port, err := harness.FreePort()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", harness.Loopback(port))
	if err != nil {
		return nil, err
	}
	r := &relay{listener: l}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go r.carry(conn)
		}
	}()
	return r, nil
}

func (r *relay) addr() string { return r.listener.Addr().String() }

// lead says where connections go from now on.
func (r *relay) lead(to string) { r.to.Store(&to) }

func (r *relay) close() { r.listener.Close() }

func (r *relay) carry(client net.Conn) {
	defer client.Close()
	to := r.to.Load()
	if to == nil {
		return
	}
	server, err := net.Dial("tcp", *to)
	if err != nil {
		r.broken.Add(1)
		return
	}
	defer server.Close()
	r.taken.Add(1)
	var first sync.Once
	end := make(chan struct{})
	over := func(broken bool) {
		first.Do(func() {
			if broken {
				r.broken.Add(1)
			}
			close(end)
		})
	}
	go func() {
		_, err := io.Copy(struct{ io.Writer }{server}, struct{ io.Reader }{client})
		// An error of writing is that the shim is gone.
		over(err != nil && !isRead(err))
	}()
	go func() {
		_, err := io.Copy(struct{ io.Writer }{client}, struct{ io.Reader }{server})
		over(err == nil || isRead(err))
	}()
	<-end
	// What the shim sends and its end are one to clients that look a moment later; kafka-python 3
	// then forgets what was sent. Here they do not come closer together than they were.
	<-time.After(50 * time.Millisecond)
}

// isRead tells an error of reading from one of writing.
func isRead(err error) bool {
	op, ok := err.(*net.OpError)
	return ok && op.Op == "read"
}
