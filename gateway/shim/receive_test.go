package shim

import (
	"bytes"
	"context"
	"sync"
	"testing"
)

// inbox keeps what a connection receives, and how much was there each time that it waited.
type inbox struct {
	mu     sync.Mutex // guards the rest
	got    [][]byte
	waits  int // with all that came so far
	waited chan struct{}
}

func (in *inbox) receive(message []byte) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.got = append(in.got, bytes.Clone(message)) // it is not this side's for longer
}

func (in *inbox) waiting() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.waits = len(in.got); in.waits > 0 {
		select {
		case in.waited <- struct{}{}:
		default:
		}
	}
}

// Messages are received in order, whole, whatever their size, in buffers that are used again, and
// who receives them hears when none is left.
func TestReceiveGetsEachMessageAndWaitingIsHeardBehindTheLast(t *testing.T) {
	in := &inbox{waited: make(chan struct{}, 1)}
	d := Dialer{Receive: in.receive, Waiting: in.waiting}
	conn, err := d.DialContext(context.Background(), "tcp", gateway(t, echo))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var want [][]byte
	for i, size := range []int{0, 10, 4 << 10, 30_000, firstAlloc, 100_000, 1 << 20, 3 << 20, 20_000, 70_000, 1} {
		m := kafkaMessage(bytes.Repeat([]byte{byte(i + 1)}, size))
		want = append(want, m)
		if err := conn.(*Conn).WriteMessage(m); err != nil {
			t.Fatal(err)
		}
	}
	for all := false; !all; {
		<-in.waited
		in.mu.Lock()
		all = in.waits == len(want)
		in.mu.Unlock()
	}
	for i := range want {
		if !bytes.Equal(in.got[i], want[i]) {
			t.Fatalf("message %d of %d bytes came as %d others", i, len(want[i]), len(in.got[i]))
		}
	}
}

// Memory counts the size of a message, and its buffer is not much larger.
func TestBuffersOfMessagesAreNotMuchLarger(t *testing.T) {
	c := &Conn{receive: func([]byte) {}}
	for _, n := range []int{4, smallMessage, smallMessage + 1, firstAlloc, firstAlloc + 1, 2 * firstAlloc, 4 * firstAlloc, 4*firstAlloc + 1, 8 * firstAlloc, 16 * firstAlloc, 16*firstAlloc + 1} {
		b := c.buffer(n)
		if len(b) != 0 || cap(b) < n || n > smallMessage && cap(b) > max(2*n, firstAlloc) || n <= smallMessage && cap(b) > n {
			t.Errorf("for %d bytes: %d, with room for %d", n, len(b), cap(b))
		}
		c.recycle(b)
	}
}
