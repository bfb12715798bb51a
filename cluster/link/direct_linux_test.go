package link

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

// connOverTCP gives a connection over TCP, which is not started, and its other end.
func connOverTCP(t *testing.T) (*conn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	here, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	there, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	b := &base{cfg: Config{MaxMessageBytes: 1 << 20}, log: slog.New(slog.DiscardHandler), start: time.Now()}
	b.ctx, b.cancel = context.WithCancelCause(t.Context())
	c := newConn(b, here, Control, nil)
	c.single = calmAfter
	c.receive = func(*conn, frameHeader, []byte) error { return nil }
	t.Cleanup(func() {
		c.close(ErrClosed)
		there.Close()
		b.tasks.wg.Wait()
	})
	_ = there.SetReadDeadline(time.Now().Add(time.Minute))
	return c, there.(*net.TCPConn)
}

func sendOne(t *testing.T, c *conn, id uint64, body []byte) {
	t.Helper()
	if err := c.send(t.Context(), newMessage(frameRequest, 0, id, body)); err != nil {
		t.Error(err)
	}
}

// Nobody writes here but who sends: the connection is not started.
func TestWhoSendsWrites(t *testing.T) {
	c, there := connOverTCP(t)
	for id := range uint64(3) {
		body := bytes.Repeat([]byte{byte(id)}, 1+40_000*int(id))
		sendOne(t, c, id, body)
		h, got, err := readFrame(there, 1<<20)
		if err != nil || h.id != id || !bytes.Equal(got, body) {
			t.Fatalf("message %d: %d bytes, %v", h.id, len(got), err)
		}
	}
}

// The writing goroutine leaves the turn to who has it, and goes on with what came meanwhile.
func TestWhoSendsHasTheTurn(t *testing.T) {
	c, there := connOverTCP(t)
	c.start()
	now := c.now
	var once sync.Once
	c.now = func(parts [][]byte) int {
		once.Do(func() {
			sendOne(t, c, 2, []byte("second"))
			// When the writing goroutine has looked a second time it is done with the first.
			for range 2 {
				for len(c.wake) > 0 {
					runtime.Gosched()
				}
				c.poke()
			}
			// And mostly with the last by then: it is the test that needs that, not who sends.
			for range 10_000 {
				runtime.Gosched()
			}
			if n := c.base.stats.bytesOut.Load(); n > 0 {
				t.Errorf("%d bytes were written by who has not the turn", n)
			}
		})
		return now(parts)
	}
	sendOne(t, c, 1, []byte("first"))
	for id := range uint64(2) {
		if h, _, err := readFrame(there, 1<<20); err != nil || h.id != id+1 {
			t.Fatalf("message %d where %d should be: %v", h.id, id+1, err)
		}
	}
}

// Where several go in one write they are gathered, until they go one by one again.
func TestManyAreGathered(t *testing.T) {
	c, there := connOverTCP(t)
	var direct int
	now := c.now
	c.now = func(parts [][]byte) int { direct++; return now(parts) }
	for id := range uint64(3) { // as if somebody else had the turn
		c.writing = id < 2
		if c.writing {
			sendOne(t, c, id, nil)
			continue
		}
		c.start()
	}
	in := bufio.NewReader(there)
	get := func(id uint64) {
		t.Helper()
		if h, _, err := readFrame(in, 1<<20); err != nil || h.id != id {
			t.Fatalf("message %d where %d should be: %v", h.id, id, err)
		}
		for { // until the writing goroutine has passed the turn on
			c.mu.Lock()
			writing := c.writing
			c.mu.Unlock()
			if !writing {
				return
			}
			runtime.Gosched()
		}
	}
	get(0)
	get(1)
	for id := range uint64(calmAfter) {
		sendOne(t, c, 10+id, nil)
		get(10 + id)
	}
	if direct > 0 {
		t.Fatalf("%d of %d messages were not gathered after a write of two", direct, calmAfter)
	}
	sendOne(t, c, 100, nil)
	if get(100); direct != 1 {
		t.Fatal("who sends does not write after many writes of one")
	}
}

// What the other side does not take keeps nobody who sends, and arrives in the end.
func TestWhoSendsDoesNotWaitForTheSocket(t *testing.T) {
	c, there := connOverTCP(t)
	c.start()
	const size, count = 100 << 10, 300
	for id := range uint64(count) {
		sendOne(t, c, id, bytes.Repeat([]byte{byte(id)}, size))
	}
	if n := c.base.stats.bytesOut.Load(); n == 0 || n >= size*count {
		t.Fatalf("%d bytes were taken by a socket that nobody reads", n)
	}
	in := bufio.NewReader(there)
	for id := range uint64(count) {
		h, body, err := readFrame(in, 1<<20)
		if err != nil || h.id != id || !bytes.Equal(body, bytes.Repeat([]byte{byte(id)}, size)) {
			t.Fatalf("message %d where %d should be: %d bytes, %v", h.id, id, len(body), err)
		}
	}
}

// Many send at once, and the socket takes little: what each sends arrives whole and in its order,
// and all room is given back.
func TestSendersAtOnceOverASmallSocket(t *testing.T) {
	c, there := connOverTCP(t)
	if err := c.nc.(*net.TCPConn).SetWriteBuffer(32 << 10); err != nil {
		t.Fatal(err)
	}
	c.start()
	const senders, each = 8, 60
	var wg sync.WaitGroup
	for s := range uint64(senders) {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(s, 1))
			for n := range uint64(each) {
				size := 1 << random.IntN(18) // some are more than who sends may write
				body := bytes.Repeat([]byte{byte(s)}, size)
				sendOne(t, c, s<<32|n, binary.BigEndian.AppendUint64(body, s<<32|n))
				if n%16 == 0 {
					c.sendUrgent(newMessage(framePing, 0, n))
				}
			}
		})
	}
	next, in := [senders]uint64{}, bufio.NewReader(there)
	for left := senders * each; left > 0; {
		h, body, err := readFrame(in, 1<<20)
		if err != nil {
			t.Fatalf("%d messages have not come: %v", left, err)
		}
		if h.typ == framePing {
			continue
		}
		s, n := h.id>>32, h.id&(1<<32-1)
		if at := len(body) - 8; s >= senders || n != next[s] || binary.BigEndian.Uint64(body[at:]) != h.id ||
			!bytes.Equal(body[:at], bytes.Repeat([]byte{byte(s)}, at)) {
			t.Fatalf("message %d of sender %d where %d should be", n, s, next[s%senders])
		}
		next[s]++
		left--
	}
	wg.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.room.Acquire(ctx, maxQueued); err != nil {
		t.Errorf("room is not given back: %v", err)
	}
}
