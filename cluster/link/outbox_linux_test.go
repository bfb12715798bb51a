package link

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
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
	_ = there.SetReadDeadline(time.Now().Add(time.Minute))
	return connOver(t, here, there), there.(*net.TCPConn)
}

// connOver gives a connection with an Outbox, which is not started.
func connOver(t *testing.T, here, there net.Conn) *conn {
	b := &base{cfg: Config{MaxMessageBytes: 1 << 20, Outbox: new(Outbox)}, log: slog.New(slog.DiscardHandler), start: time.Now()}
	b.ctx, b.cancel = context.WithCancelCause(t.Context())
	c := newConn(b, here, Control, nil)
	c.receive = func(*conn, frameHeader, []byte) error { return nil }
	t.Cleanup(func() {
		c.close(ErrClosed)
		there.Close()
		b.tasks.wg.Wait()
	})
	return c
}

func (c *conn) outbox() *Outbox { return c.base.cfg.Outbox }

func sendHeld(t *testing.T, c *conn, id uint64, body []byte) {
	t.Helper()
	m := newMessage(frameRequest, 0, id, body)
	m.held = true
	if err := c.send(t.Context(), m); err != nil {
		t.Error(err)
	}
}

func wantFrame(t *testing.T, r *bufio.Reader, id uint64, body []byte) {
	t.Helper()
	h, got, err := readFrame(r, 1<<20)
	if err != nil || h.id != id || !bytes.Equal(got, body) {
		t.Fatalf("message %d of %d bytes where %d of %d bytes should be: %v", h.id, len(got), id, len(body), err)
	}
}

// Nobody writes here but who calls the outbox: the connection is not started.
func TestWhatIsHeldIsWrittenTogether(t *testing.T) {
	c, there := connOverTCP(t)
	in := bufio.NewReader(there)
	next := uint64(0)
	for round := range uint64(3) {
		for id := range round + 1 {
			sendHeld(t, c, next+id, bytes.Repeat([]byte{byte(id)}, 10_000*int(id)))
		}
		c.sendUrgent(newMessage(framePing, 0, 1000))
		if n := c.base.stats.writes.Load(); n != round {
			t.Fatalf("%d writes before the outbox was told", n)
		}
		c.outbox().Write()
		c.outbox().Write() // and nothing more is there
		if n := c.base.stats.writes.Load(); n != round+1 {
			t.Fatalf("%d writes in round %d", n, round)
		}
		wantFrame(t, in, 1000, nil)
		for id := range round + 1 {
			wantFrame(t, in, next+id, bytes.Repeat([]byte{byte(id)}, 10_000*int(id)))
		}
		next += round + 1
	}
	if held, ok := c.room.TryAcquire(maxQueued), len(c.queue) == 0; !held || !ok {
		t.Errorf("room is not given back")
	}
}

// Who waits for a goroutine leaves the writing to one.
func TestTheWritingGoroutineIsWoken(t *testing.T) {
	c, there := connOverTCP(t)
	c.now = func([][]byte) (int, error) { t.Error("who wakes writes"); return 0, nil }
	sendHeld(t, c, 1, []byte("first"))
	c.start()
	c.outbox().Wake()
	wantFrame(t, bufio.NewReader(there), 1, []byte("first"))
}

// What is much, and what goes over a connection that may wait in any call, waits for no outbox.
func TestNotEverythingIsHeld(t *testing.T) {
	c, there := connOverTCP(t)
	c.start()
	much := make([]byte, maxDirect+1)
	sendHeld(t, c, 1, much)
	wantFrame(t, bufio.NewReader(there), 1, much)

	here, away := net.Pipe()
	c = connOver(t, here, away)
	c.start()
	sendHeld(t, c, 2, []byte("over a pipe"))
	wantFrame(t, bufio.NewReader(away), 2, []byte("over a pipe"))
}

// The writing goroutine leaves the turn to who has it, and goes on with what came meanwhile.
func TestWhoWritesHasTheTurn(t *testing.T) {
	c, there := connOverTCP(t)
	c.start()
	now := c.now
	c.now = func(parts [][]byte) (int, error) {
		if err := c.send(t.Context(), newMessage(frameRequest, 0, 2, []byte("second"))); err != nil {
			t.Error(err)
		}
		// When the writing goroutine has looked a second time it is done with the first.
		for range 2 {
			for len(c.wake) > 0 {
				runtime.Gosched()
			}
			c.poke()
		}
		// And mostly with the last by then: it is the test that needs that, not who writes.
		for range 10_000 {
			runtime.Gosched()
		}
		if n := c.base.stats.bytesOut.Load(); n > 0 {
			t.Errorf("%d bytes were written by who has not the turn", n)
		}
		return now(parts)
	}
	sendHeld(t, c, 1, []byte("first"))
	c.outbox().Write()
	in := bufio.NewReader(there)
	wantFrame(t, in, 1, []byte("first"))
	wantFrame(t, in, 2, []byte("second"))
}

// Why a write failed is what the connection ends with, not what the write behind it says.
func TestTheErrorOfAWriteIsKept(t *testing.T) {
	c, _ := connOverTCP(t)
	cause := errors.New("no way")
	c.now = func([][]byte) (int, error) { return 0, cause }
	ended := make(chan error, 1)
	c.died = func(_ *conn, err error) { ended <- err }
	c.start()
	sendHeld(t, c, 1, []byte("first"))
	c.outbox().Write()
	if err := <-ended; !errors.Is(err, cause) {
		t.Errorf("it ended with: %v", err)
	}
}

// A socket says what is wrong with it, and that it takes nothing is not wrong.
func TestWhatASocketSays(t *testing.T) {
	c, _ := connOverTCP(t)
	some := [][]byte{make([]byte, 1<<20)}
	for {
		n, err := c.now(some)
		if err != nil {
			t.Fatalf("a socket that is full: %v", err)
		}
		if n == 0 {
			break
		}
	}
	if err := c.nc.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	var op *net.OpError
	if n, err := c.now(some); !errors.As(err, &op) || n != 0 {
		t.Errorf("a socket that takes nothing more: %d, %v", n, err)
	}
	c.nc.Close()
	if n, err := c.now(some); !errors.Is(err, net.ErrClosed) || n != 0 {
		t.Errorf("a socket that is closed: %d, %v", n, err)
	}
}

// What the other side does not take keeps nobody who writes, and arrives in the end.
func TestWhoWritesDoesNotWaitForTheSocket(t *testing.T) {
	c, there := connOverTCP(t)
	c.start()
	const size, count = 100 << 10, 300
	for id := range uint64(count) {
		sendHeld(t, c, id, bytes.Repeat([]byte{byte(id)}, size))
		c.outbox().Write()
	}
	if n := c.base.stats.bytesOut.Load(); n == 0 || n >= size*count {
		t.Fatalf("%d bytes were taken by a socket that nobody reads", n)
	}
	in := bufio.NewReader(there)
	for id := range uint64(count) {
		wantFrame(t, in, id, bytes.Repeat([]byte{byte(id)}, size))
	}
}

// Many send at once, held or not, and the socket takes little: what each sends arrives whole and in
// its order, and all room is given back.
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
				size := 1 << random.IntN(18) // some are more than is held
				body := binary.BigEndian.AppendUint64(bytes.Repeat([]byte{byte(s)}, size), s<<32|n)
				switch random.IntN(4) {
				case 0:
					if err := c.send(t.Context(), newMessage(frameRequest, 0, s<<32|n, body)); err != nil {
						t.Error(err)
					}
				case 1:
					sendHeld(t, c, s<<32|n, body)
					c.outbox().Wake()
				default:
					sendHeld(t, c, s<<32|n, body)
					c.outbox().Write()
				}
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

// Where several are on their way to the disk, what they send is left to the writing goroutines.
func TestNothingIsHeldWhereSeveralAppend(t *testing.T) {
	c, there := connOverTCP(t)
	c.now = func([][]byte) (int, error) { t.Error("who appends writes"); return 0, nil }
	c.start()
	in := bufio.NewReader(there)
	o := c.outbox()
	sendHeld(t, c, 1, []byte("of the first"))
	o.Enter()
	sendHeld(t, c, 2, []byte("of the second"))
	wantFrame(t, in, 1, []byte("of the first"))
	wantFrame(t, in, 2, []byte("of the second"))
	o.Write()
	o.Leave()

	sendHeld(t, c, 3, []byte("of the first"))
	o.Enter()
	if o.some.Load() == false {
		t.Error("what one alone sends is not held")
	}
	o.Enter()
	wantFrame(t, in, 3, []byte("of the first"))
	o.Leave()
	o.Leave()
}
