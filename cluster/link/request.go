package link

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Request is a request of another node that is no call: whoever serves them (Link.Serve) takes it
// on the reading goroutine, and answers or refuses it once, on any.
type Request struct {
	// Kind and Body are the other side's. The body is the server's to keep.
	Kind uint8
	Body []byte

	in     *Inbound
	c      *conn
	id     uint64
	stream *inStream // nil: no stream follows
	held   int64
}

// startRequest hands a request to whoever serves them, or refuses it.
func (in *Inbound) startRequest(c *conn, h frameHeader, body []byte) error {
	if in.base.requests == nil {
		return in.refuse(c, h.id, ErrNoMember)
	}
	return in.base.requests(&Request{Kind: h.kind, Body: body, in: in, c: c, id: h.id})
}

// From names the node that asks.
func (r *Request) From() string { return r.in.identity }

// Context ends with the session: nobody is left then to hear the answer.
func (r *Request) Context() context.Context { return r.in.ctx }

// Hold counts the request's bytes among those that wait here for the node that asks, until Release,
// and says whether they are at most that many. One request alone may be larger.
func (r *Request) Hold(most int64) bool {
	n := int64(len(r.Body))
	if r.in.held.Add(n) > max(most, n) {
		r.in.held.Add(-n)
		return false
	}
	r.held = n
	return true
}

// Release ends Hold.
func (r *Request) Release() { r.in.held.Add(-r.held) }

// Expect prepares for size bytes of a stream, whose first may come as soon as the reading goroutine
// goes on. An error means that the session is over, or should be.
func (r *Request) Expect(size int64) error {
	st := newInStream(r.in, r.c, r.id, size)
	r.in.mu.Lock()
	defer r.in.mu.Unlock()
	if r.in.closed || r.in.streams[r.id] != nil {
		return fmt.Errorf("%w: a stream after the end, or twice", ErrProtocol)
	}
	r.in.streams[r.id] = st
	r.stream = st
	return nil
}

// Data reads the stream; nil if none was expected.
func (r *Request) Data() io.Reader {
	if r.stream == nil {
		return nil
	}
	return r.stream
}

// EndStream makes reading fail from now on, and drops what still comes. It does nothing where no
// stream was expected.
func (r *Request) EndStream() {
	if r.stream == nil {
		return
	}
	r.in.mu.Lock()
	delete(r.in.streams, r.id)
	r.in.mu.Unlock()
	r.stream.fail(errors.New("the transfer is over"))
}

// Progress tells the other side that the request is still being worked on.
func (r *Request) Progress() {
	_ = r.in.urgent(r.c, newMessage(frameProgress, 0, r.id))
}

// Refuse answers that the request was surely not worked on. It does not wait; an error means that
// the other side does not read, and that its session should end.
func (r *Request) Refuse(err error) error { return r.in.refuse(r.c, r.id, err) }

// Answer answers that the request was worked on, failed if ok is false. It waits for room, at most
// as long as the session lives.
func (r *Request) Answer(ok bool, parts ...[]byte) {
	status := StatusOK
	if !ok {
		status = StatusError
	}
	r.in.answer(r.c, r.id, status, parts...)
}
