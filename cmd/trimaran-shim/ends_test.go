package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/gateway/shim"
)

// How a gateway ends connections.
const (
	withPromise = iota // it says goodbye, and that it began nothing that it did not answer
	withWord           // it says goodbye
	wordless           // it breaks one
	drained            // it does not serve any more, and answers until the shim has left
)

// ends are gateways that end connections again and again, each at a point of its own.
type ends struct {
	t      *testing.T
	kinds  []int
	latest [8]atomic.Int32 // that a client has asked
	rough  [8]atomic.Bool  // a client's connection may end: a gateway did not say what it has done

	mu       sync.Mutex // guards what follows
	rng      *rand.Rand
	did      map[int32]bool // changes that were made, by correlation id
	draining *fakeGateway
	sides    map[*side]bool
}

// side is a gateway's side of a connection, guarded by ends.mu.
type side struct {
	*gatewayConn
	g       *fakeGateway
	pending []int32
}

// A client's correlation ids have its number in the upper half. What it asks is a produce, which
// changes something, or a fetch.
func changes(id int32) bool { return id%3 == 0 }

func asks(id int32) []byte {
	if changes(id) {
		return produce(id, -1)
	}
	return asked(apiFetch, id)
}

// says is the answer to that; some are larger than what waits for others.
func says(id int32) []byte {
	if id%16 == 5 {
		return answer(id, make([]byte, smallAnswers+1)...)
	}
	return answer(id, byte(id), byte(id>>16))
}

func (e *ends) draw(n int) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.rng.IntN(n)
}

// serve answers on a connection until it or the shim ends it.
func (e *ends) serve(g *fakeGateway, c *gatewayConn) {
	defer close(c.end)
	x := &side{gatewayConn: c, g: g}
	e.mu.Lock()
	e.sides[x] = true
	e.mu.Unlock()
	for {
		_, request, err := c.ws.ReadMessage()
		if err != nil || !e.asked(x, request) {
			break
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if delete(e.sides, x); e.draining != g {
		return
	}
	for other := range e.sides {
		if other.g == g {
			return
		}
	}
	e.draining = nil
	g.says(shim.Serving)
}

// asked answers some requests, by one write, and may end the connection before, with, or behind
// them. It reports whether to go on.
func (e *ends) asked(x *side, request []byte) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	id := int32(binary.BigEndian.Uint32(request[8:]))
	if !bytes.Equal(request, asks(id)) {
		e.t.Errorf("request %x is %x", id, request)
	}
	x.pending = append(x.pending, id)
	n, client := len(x.pending), id>>16
	some := e.rng.IntN(n + 1)
	switch kind := e.kinds[e.rng.IntN(len(e.kinds))]; {
	case e.draining == x.g:
	case e.rng.IntN(8) > 0:
		if id != e.latest[client].Load() { // another one is on its way
			n = some
		}
	case kind == drained:
		if e.draining != nil {
			break
		}
		e.draining = x.g
		x.g.says(shim.NotServing)
		for other := range e.sides {
			if other != x && other.g == x.g {
				e.answer(other, len(other.pending), nil)
			}
		}
	case kind == withPromise:
		e.answer(x, some, goodbyeOf(shim.GoodbyeReason))
		return e.end(x)
	case kind == withWord:
		e.rough[client].Store(true)
		e.answer(x, some, goodbyeOf(""))
		return e.end(x)
	case kind == wordless:
		e.rough[client].Store(true)
		e.answer(x, some, nil)
		x.ws.NetConn().Close()
		return false
	}
	e.answer(x, n, nil)
	return true
}

// end reads on until the shim has left, so that the goodbye arrives.
func (e *ends) end(x *side) bool {
	x.pending = nil
	e.mu.Unlock()
	defer e.mu.Lock()
	for {
		if _, _, err := x.ws.ReadMessage(); err != nil {
			return false
		}
	}
}

// answer answers the first requests, and says something behind it.
func (e *ends) answer(x *side, n int, behind []byte) {
	var out []byte
	for _, id := range x.pending[:n] {
		out = append(out, frameOf(says(id))...)
		if !changes(id) {
			continue
		}
		if e.did[id] {
			e.t.Errorf("%x is done twice", id)
		}
		if e.did[id] = true; e.draining == x.g {
			e.rough[id>>16].Store(true) // on a machine that is so busy, partingGrace may be over
		}
	}
	x.pending = x.pending[n:]
	_, _ = x.ws.NetConn().Write(append(out, behind...)) // else the shim has left
}

// client asks so much, a few at a time, and gets each answer, or sees its connection end.
func (e *ends) client(number int32, addr string, all int32) {
	var conn net.Conn
	for sent, got := int32(0), int32(0); got < all; {
		if conn == nil {
			var err error
			if conn, err = net.Dial("tcp", addr); err != nil {
				e.t.Error(err)
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		}
		var err error
		for most := got + 1 + int32(e.draw(4)); sent < min(most, all) && err == nil; {
			sent++
			id := number<<16 | sent
			e.latest[number].Store(id)
			_, err = conn.Write(asks(id))
		}
		id := number<<16 | (got + 1)
		want := says(id)
		have := make([]byte, len(want))
		if err == nil {
			_, err = io.ReadFull(conn, have)
		}
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			e.t.Errorf("no answer to %x, and no end", id)
			return
		case err != nil:
			if !e.rough[number].Swap(false) {
				e.t.Errorf("the connection of client %d ends for nothing: %v", number, err)
				return
			}
			conn.Close()
			conn, got = nil, sent // what was asked has an unknown fate
		case !bytes.Equal(have, want):
			e.t.Errorf("the answer to %x is %x", id, have)
			return
		default:
			got++
		}
	}
}

// Whatever point gateways end connections at, each request is answered, or its client's connection
// ends; that only where a gateway did not say what it has done, and nothing is done twice.
func TestEachRequestIsAnsweredWhereverGatewaysEnd(t *testing.T) {
	for name, kinds := range map[string][]int{
		"promised": {withPromise},
		"drained":  {drained},
		"all":      {withPromise, withWord, wordless, drained},
	} {
		t.Run(name, func(t *testing.T) {
			const seed = 11
			t.Logf("seed %d", seed)
			e := &ends{
				t: t, kinds: kinds, rng: rand.New(rand.NewPCG(seed, 1)),
				did: map[int32]bool{}, sides: map[*side]bool{},
			}
			var gateways []*fakeGateway
			for range 4 {
				g := newFakeGateway(t)
				g.says(shim.Serving)
				gateways = append(gateways, g)
			}
			addr, stop := startProxy(t, gateways...)
			var serving, accepting, asking sync.WaitGroup
			over := make(chan struct{})
			for _, g := range gateways {
				accepting.Go(func() {
					for {
						select {
						case c := <-g.conns:
							serving.Go(func() { e.serve(g, c) })
						case <-over:
							return
						}
					}
				})
			}
			for number := range e.latest {
				asking.Go(func() { e.client(int32(number), addr, 120) })
			}
			asking.Wait()
			stop() // which ends all connections
			close(over)
			accepting.Wait()
			serving.Wait()
		})
	}
}
