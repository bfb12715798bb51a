package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/trimaran-io/trimaran/test/harness"
)

// Requests sent in one go are answered in their order, also when a later one is
// ready first: the long fetch in front waits 700 ms, the metadata behind it does not.
func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	c := harness.Shared(t)
	topic := harness.Topic("order")
	create(t, c, topic, 3)
	w := dial(t, c.Node(1).Addr())
	var all []byte
	all = append(all, harness.Request(1, 0, 1000, harness.FetchBody(topic, 0, 0, 700, 1, 1<<20))...)
	for i := range int32(50) {
		set := harness.Message(nil, 0, 0, nil, fmt.Append(nil, i))
		all = append(all, harness.Request(0, 0, 1001+2*i, harness.ProduceBody(topic, 1, -1, 5000, set))...)
		all = append(all, harness.Request(3, 0, 1002+2*i, harness.Str(harness.Int32(nil, 1), topic))...)
	}
	if err := w.Send(all); err != nil {
		t.Fatal(err)
	}
	for i := range int32(101) {
		id, body, err := w.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if id != 1000+i {
			t.Fatalf("answer %d is for request %d", i, id-1000)
		}
		if i > 0 && i%2 == 1 { // produces of one connection to one partition keep their order
			base, err := harness.ReadProduce(body)
			if err != nil || base != int64(i/2) {
				t.Fatalf("produce %d: offset %d, %v", i/2, base, err)
			}
		}
	}
}

// A fetch that waits at the end is woken by the commit, on the leader's node and
// through the others alike, long before its own wait is over.
func TestLongPollWakesOnCommit(t *testing.T) {
	c := harness.Shared(t)
	topic := harness.Topic("poll")
	create(t, c, topic, 1)
	for i, addr := range append(c.Addrs(), c.ShimAddr()) {
		reader, writer := dial(t, addr), dial(t, c.Node(1).Addr())
		type answer struct {
			set []byte
			err error
			at  time.Time
		}
		got := make(chan answer, 1)
		if err := reader.Send(harness.Request(1, 0, 7, harness.FetchBody(topic, 0, int64(i), 20_000, 1, 1<<20))); err != nil {
			t.Fatal(err)
		}
		go func() {
			_, body, err := reader.ReadFrame()
			at := time.Now()
			if err != nil {
				got <- answer{err: err}
				return
			}
			_, set, err := harness.ReadFetch(body)
			got <- answer{set, err, at}
		}()
		select {
		case a := <-got:
			t.Fatalf("%s: the fetch did not wait: %x, %v", addr, a.set, a.err)
		case <-time.After(300 * time.Millisecond):
		}
		if _, err := writer.Produce(topic, 0, -1, "wake"); err != nil {
			t.Fatal(err)
		}
		acknowledged := time.Now()
		a := <-got
		if a.err != nil {
			t.Fatal(a.err)
		}
		if entries, _, err := harness.Messages(a.set); err != nil || len(entries) != 1 || string(entries[0].Value) != "wake" {
			t.Fatalf("%s: woke with %x, %v", addr, a.set, err)
		}
		if late := a.at.Sub(acknowledged); late > 10*time.Second { // half of its wait
			t.Errorf("%s: woke %s after the acknowledgement", addr, late)
		}
	}
}

// With nothing to read a fetch answers when its wait is over, empty.
func TestLongPollEnds(t *testing.T) {
	c := harness.Shared(t)
	topic := harness.Topic("poll-end")
	create(t, c, topic, 1)
	w := dial(t, c.Node(2).Addr())
	start := time.Now()
	_, set, err := w.Fetch(topic, 0, 0, 500, 1, 1<<20)
	if err != nil || len(set) != 0 {
		t.Fatalf("%x, %v", set, err)
	}
	if d := time.Since(start); d < 450*time.Millisecond || d > 20*time.Second {
		t.Errorf("waited %s for max wait 500 ms", d)
	}
}

// Fetch v0 cuts the last message at max_bytes: that is how old clients notice a
// message larger than their buffer.
func TestFetchCutsAtMaxBytes(t *testing.T) {
	c := harness.Shared(t)
	topic := harness.Topic("cut")
	create(t, c, topic, 1)
	w := dial(t, c.Node(1).Addr())
	big := string(make([]byte, 10_000))
	if _, err := w.Produce(topic, 0, -1, "small", big, big); err != nil {
		t.Fatal(err)
	}
	for _, max := range []int32{10, 31, 5000, 10_060, 25_000} {
		_, set, err := w.Fetch(topic, 0, 0, 100, 1, max)
		if err != nil {
			t.Fatal(err)
		}
		want := min(int(max), 31+2*10_026)
		if len(set) != want {
			t.Errorf("max_bytes %d gives %d bytes, want %d", max, len(set), want)
		}
		if _, _, err := harness.Messages(set); err != nil {
			t.Errorf("max_bytes %d: %v", max, err)
		}
	}
}

// acks=0 gets nothing back: the next thing on the connection is the answer to the
// request behind it. The records are there.
func TestAcksZeroGetsNoAnswer(t *testing.T) {
	c := harness.Shared(t)
	topic := harness.Topic("acks0")
	create(t, c, topic, 1)
	for i, addr := range append(c.Addrs(), c.ShimAddr()) {
		w := dial(t, addr)
		set := harness.Message(nil, 0, 0, nil, []byte("silent"))
		for id := range int32(3) {
			if err := w.Send(harness.Request(0, 0, 500+id, harness.ProduceBody(topic, 0, 0, 1000, set))); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Metadata(topic); err != nil { // its correlation id is checked
			t.Fatalf("%s: %v", addr, err)
		}
		if _, err := w.FetchAll(topic, 0, int64(3*(i+1)), 10*time.Second); err != nil {
			t.Fatalf("%s: %v", addr, err)
		}
	}
}

// acks=0 with an error closes the connection, since nothing else tells the client.
func TestAcksZeroErrorCloses(t *testing.T) {
	c := harness.Shared(t)
	topic := harness.Topic("acks0-error")
	create(t, c, topic, 1)
	w := dial(t, c.Node(1).Addr())
	set := harness.Message(nil, 0, 0, nil, []byte("x"))
	set[12] ^= 0xff // the CRC
	if err := w.Send(harness.Request(0, 0, 1, harness.ProduceBody(topic, 0, 0, 1000, set))); err != nil {
		t.Fatal(err)
	}
	if id, body, err := w.ReadFrame(); !closed(err) {
		t.Fatalf("answer %d %x, %v: want a closed connection", id, body, err)
	}
}

// Any positive acks other than 1 means all, and acks below -1 is refused or taken
// as all; neither kills the connection.
func TestOtherAcks(t *testing.T) {
	c := harness.Shared(t)
	topic := harness.Topic("acks2")
	create(t, c, topic, 1)
	w := dial(t, c.Node(1).Addr())
	if base, err := w.Produce(topic, 0, 2, "two"); err != nil || base != 0 {
		t.Errorf("acks 2: offset %d, %v", base, err)
	}
	var code harness.ErrorCode
	if _, err := w.Produce(topic, 0, -2, "less"); err != nil && !errors.As(err, &code) {
		t.Errorf("acks -2: %v", err)
	}
}

// ApiVersions in a version that is not known gets a v0 body with
// UNSUPPORTED_VERSION (35) and the connection stays (KIP-511).
func TestApiVersions(t *testing.T) {
	c := harness.Shared(t)
	w := dial(t, c.Node(1).Addr())
	answer, err := w.Do(18, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := harness.Reader{B: answer}
	if code := r.Int16(); code != 0 {
		t.Fatalf("error code %d", code)
	}
	served := map[int16][2]int16{}
	for n := r.Int32(); n > 0 && r.Err == nil; n-- {
		served[r.Int16()] = [2]int16{r.Int16(), r.Int16()}
	}
	if err := r.End(); err != nil {
		t.Fatal(err)
	}
	for _, key := range []int16{0, 1, 2, 3, 18, 19, 20} {
		v, ok := served[key]
		if !ok || v[0] != 0 {
			t.Errorf("API %d: %v", key, v)
		}
	}
	// Version 99, whose body nobody can know: an old header and a flexible one.
	for _, version := range []int16{6, 99} {
		answer, err = w.Do(18, version, []byte{0})
		if err != nil {
			t.Fatalf("version %d: %v", version, err)
		}
		r = harness.Reader{B: answer}
		if code := r.Int16(); code != 35 {
			t.Errorf("version %d: error code %d, want 35", version, code)
		}
		if _, err := w.Metadata("health"); err != nil {
			t.Fatalf("after version %d: %v", version, err)
		}
	}
}

// A WebSocket client that follows kafka-websocket-shim's rule and sends none of
// our headers: each frame with its size prefix in one binary message, both ways.
func TestPlainWebSocket(t *testing.T) {
	c := harness.Shared(t)
	topic := harness.Topic("ws")
	create(t, c, topic, 1)
	for _, n := range c.Nodes {
		ws, err := harness.DialWS(websocket.DefaultDialer, n.WS()+"/")
		if err != nil {
			t.Fatal(err)
		}
		w := harness.NewWire(wsNetConn{ws})
		if _, err := w.Produce(topic, 0, -1, "over "+n.ID); err != nil {
			t.Fatal(err)
		}
		m, err := w.Metadata(topic)
		if err != nil {
			t.Fatal(err)
		}
		if got := net.JoinHostPort(m.Brokers[0].Host, fmt.Sprint(m.Brokers[0].Port)); got != n.Addr() {
			t.Errorf("Metadata over WebSocket names %s, the client used %s", got, n.Addr())
		}
		if _, err := w.FetchAll(topic, 0, 1, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		ws.Close()
	}
}

// wsNetConn fills in what Wire never asks of a connection.
type wsNetConn struct{ *harness.WSConn }

func (c wsNetConn) LocalAddr() net.Addr  { return c.UnderlyingConn().LocalAddr() }
func (c wsNetConn) RemoteAddr() net.Addr { return c.UnderlyingConn().RemoteAddr() }

func closed(err error) bool {
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF)
}
