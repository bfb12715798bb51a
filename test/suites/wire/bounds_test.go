package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/trimaran-io/trimaran/test/harness"
)

// A message larger than the topic takes is MESSAGE_TOO_LARGE (10), also inside a
// compressed one; the connection stays. Kafka's default for a topic is 1 MiB and
// a little; see max.message.bytes.
func TestMessageTooLarge(t *testing.T) {
	c := harness.Shared(t)
	topic := harness.Topic("large")
	create(t, c, topic, 1)
	w := dial(t, c.Node(1).Addr())
	if _, err := w.Produce(topic, 0, -1, strings.Repeat("x", 900_000)); err != nil {
		t.Errorf("900,000 bytes: %v", err)
	}
	var code harness.ErrorCode
	if _, err := w.Produce(topic, 0, -1, strings.Repeat("x", 3<<20)); !errors.As(err, &code) || code != 10 {
		t.Errorf("3 MiB: %v, want error code 10", err)
	}
	if _, err := w.Produce(topic, 0, -1, "small"); err != nil {
		t.Errorf("after it: %v", err)
	}
}

// --max-request-bytes is the bound of a request as a whole.
func TestMaxRequestBytes(t *testing.T) {
	c := harness.New(t, harness.Options{Nodes: 1, NoShim: true, NodeArgs: []string{"--max-request-bytes", "100000"}})
	if err := c.CreateTopic(t.Context(), "bound", 1, 1); err != nil {
		t.Fatal(err)
	}
	w := dial(t, c.Node(1).Addr())
	if _, err := w.Produce("bound", 0, -1, strings.Repeat("x", 90_000)); err != nil {
		t.Errorf("90,000 bytes: %v", err)
	}
	if _, err := w.Produce("bound", 0, -1, strings.Repeat("x", 110_000)); !closed(err) {
		t.Errorf("110,000 bytes: %v, want a closed connection", err)
	}
	ws, err := harness.DialWS(websocket.DefaultDialer, c.Node(1).WS()+"/")
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	v := harness.NewWire(wsNetConn{ws})
	if _, err := v.Produce("bound", 0, -1, strings.Repeat("x", 110_000)); err == nil || isTimeout(err) {
		t.Errorf("110,000 bytes over WebSocket: %v, want a closed connection", err)
	}
	healthyOne := dial(t, c.Node(1).Addr())
	if _, err := healthyOne.Produce("bound", 0, -1, "fine"); err != nil {
		t.Error(err)
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// Clients that ask for megabytes a thousand times and take nothing cost a bounded
// amount of memory and hold nobody up; connections that say nothing cost little.
func TestClientsThatDoNotRead(t *testing.T) {
	const (
		answer   = 4 << 20  // what each of them asks for
		inflight = 32 << 20 // what all answers together may hold
	)
	c := harness.New(t, harness.Options{Nodes: 1, NoShim: true, Env: []string{"GOGC=100"}, NodeArgs: []string{
		"--max-request-bytes", fmt.Sprint(2 * answer), "--max-inflight-bytes", fmt.Sprint(inflight),
	}})
	if err := c.CreateTopic(t.Context(), "deaf", 1, 1); err != nil {
		t.Fatal(err)
	}
	n := c.Node(1)
	w := dial(t, n.Addr())
	for range 8 {
		if _, err := w.Produce("deaf", 0, -1, strings.Repeat("x", 900_000)); err != nil {
			t.Fatal(err)
		}
	}
	before := heapBytes(t, n.Addr())
	request := harness.Request(1, 0, 1, harness.FetchBody("deaf", 0, 0, 10, 1, answer))
	for range 50 {
		deaf := dial(t, n.Addr())
		deaf.Conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		deaf.Send(bytes.Repeat(request, 1000)) // stops being taken at some point
	}
	for range 500 {
		dial(t, n.Addr())
	}
	for i := range 50 {
		w.Conn.SetDeadline(time.Now().Add(time.Minute))
		if _, err := w.Produce("deaf", 0, -1, fmt.Sprint("others ", i)); err != nil {
			t.Fatalf("another client: %v", err)
		}
	}
	// An answer is read, converted and laid out, and the collector lets the heap
	// grow to twice what is in use, by GOGC; without that to more while there is a lot to do.
	// Without the bound it is more than 300 MB.
	grown := heapBytes(t, n.Addr()) - before
	t.Logf("50 clients that do not read, 500 that say nothing: %d MB more", grown>>20)
	if grown > 7*inflight {
		t.Errorf("the node's heap has grown by %d MB", grown>>20)
	}
}

// heapBytes asks a node how large its heap is. What the process holds beyond it
// depends on how it was built: the race detector multiplies it.
func heapBytes(t *testing.T, addr string) int64 {
	t.Helper()
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "go_memstats_heap_inuse_bytes "); ok {
			bytes, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return int64(bytes)
		}
	}
	t.Fatal("no such metric")
	return 0
}

// A WebSocket message may come in fragments (RFC 6455, section 5.4); it is one
// message all the same.
func TestFragmentedWebSocketMessage(t *testing.T) {
	c := harness.Shared(t)
	d := websocket.Dialer{WriteBufferSize: 16} // a fragment per 16 bytes
	ws, _, err := d.Dial(c.Node(1).WS()+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	request := harness.Request(3, 0, 77, harness.Str(harness.Int32(nil, 1), "health"))
	out, err := ws.NextWriter(websocket.BinaryMessage)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range request {
		if _, err := out.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	ws.SetReadDeadline(time.Now().Add(10 * time.Second))
	kind, answer, err := ws.ReadMessage()
	if err != nil || kind != websocket.BinaryMessage || binary.BigEndian.Uint32(answer[4:]) != 77 {
		t.Fatalf("%d %x %v", kind, answer, err)
	}
}

// Many partitions in one request: each is answered, in the request's order, with
// its own error or none.
func TestOneRequestManyPartitions(t *testing.T) {
	c := harness.Shared(t)
	topic := harness.Topic("many")
	create(t, c, topic, 8)
	w := dial(t, c.Node(2).Addr())
	// Produce to 0..7 and to 8, which is not there; every second message is broken.
	b := harness.Int32(harness.Int16(nil, -1), 10_000)
	b = harness.Str(harness.Int32(b, 1), topic)
	b = harness.Int32(b, 9)
	for p := range int32(9) {
		set := harness.Message(nil, 0, 0, nil, fmt.Append(nil, "in ", p))
		if p%2 == 1 {
			set[12] ^= 1 // CRC
		}
		b = harness.Bytes(harness.Int32(b, p), set)
	}
	answer, err := w.Do(0, 0, b)
	if err != nil {
		t.Fatal(err)
	}
	r := harness.Reader{B: answer}
	if topics, name, n := r.Int32(), r.Str(), r.Int32(); topics != 1 || name != topic || n != 9 {
		t.Fatalf("%d topics, %q, %d partitions", topics, name, n)
	}
	for p := range int32(9) {
		id, code, base := r.Int32(), r.Int16(), r.Int64()
		want, wantBase := int16(0), int64(0)
		switch {
		case p == 8:
			want, wantBase = 3, -1
		case p%2 == 1:
			want, wantBase = 2, -1
		}
		if id != p || code != want || base != wantBase {
			t.Errorf("partition %d: answered as %d with error %d, offset %d", p, id, code, base)
		}
	}
	if err := r.End(); err != nil {
		t.Fatal(err)
	}
	// Fetch all of them at once: 1, 3, 5 and 7 are empty, and nothing waits.
	b = harness.Int32(harness.Int32(harness.Int32(nil, -1), 30_000), 1)
	b = harness.Int32(harness.Str(harness.Int32(b, 1), topic), 8)
	for p := range int32(8) {
		b = harness.Int32(harness.Int64(harness.Int32(b, p), 0), 1000)
	}
	start := time.Now()
	w.Conn.SetDeadline(start.Add(time.Minute))
	answer, err = w.Do(1, 0, b)
	if err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("a fetch with something to read took %s", d)
	}
	r = harness.Reader{B: answer}
	r.Int32()
	r.Str()
	r.Int32()
	for p := range int32(8) {
		id, code, _ := r.Int32(), r.Int16(), r.Int64()
		entries, _, err := harness.Messages(r.Bytes())
		if id != p || code != 0 || err != nil || len(entries) != int(1-p%2) {
			t.Errorf("partition %d: answered as %d with error %d, %d messages, %v", p, id, code, len(entries), err)
		}
	}
	if err := r.End(); err != nil {
		t.Fatal(err)
	}
}
