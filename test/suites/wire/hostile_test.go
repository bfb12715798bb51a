package wire

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/trimaran-io/trimaran/test/harness"
)

// Bytes that no client should send. Each gets its connection an error answer or
// closed; a bystander that keeps producing on its own connection the whole time
// sees nothing of it.
func TestHostileBytesHarmNobodyElse(t *testing.T) {
	c := harness.Shared(t)
	topic := harness.Topic("bystander")
	create(t, c, topic, 1)
	node := c.Node(1)
	gzipBomb := harness.Message(nil, 0, 1, nil, gzipOfZeros(t, 1<<30))
	bystander := dial(t, node.Addr())
	produced := int64(0)
	check := func(t *testing.T) {
		t.Helper()
		bystander.Conn.SetDeadline(time.Now().Add(time.Minute))
		base, err := bystander.Produce(topic, 0, -1, fmt.Sprint("still here ", produced))
		if err != nil || base != produced {
			t.Fatalf("the bystander: offset %d, want %d, %v", base, produced, err)
		}
		produced++
	}

	check(t) // at once: a connection that never said anything is closed after a while

	set := harness.Message(nil, 0, 0, nil, []byte("v"))
	edit := func(at int, b ...byte) []byte {
		s := bytes.Clone(set)
		copy(s[at:], b)
		return s
	}
	produce := func(set []byte) []byte {
		return harness.Request(0, 0, 1, harness.ProduceBody(topic, 0, -1, 1000, set))
	}
	cases := []struct {
		name  string
		bytes []byte
	}{
		{"size -1", harness.Int32(nil, -1)},
		{"size 0", harness.Int32(nil, 0)},
		{"size 2 GiB", harness.Int32(nil, 1<<31-1)},
		{"size 300 MB and one byte", append(harness.Int32(nil, 300<<20), 0)},
		{"size 3, too short for a header", append(harness.Int32(nil, 3), 0, 0, 0)},
		{"unknown API", harness.Request(9999, 0, 1, nil)},
		{"negative API", harness.Request(-3, 0, 1, nil)},
		{"version 77 of Produce", harness.Request(0, 77, 1, nil)},
		{"version -1 of Metadata", harness.Request(3, -1, 1, harness.Int32(nil, 0))},
		{"client id longer than the request", harness.Frame(append(harness.Int32(harness.Int16(harness.Int16(nil, 3), 0), 1), 0x7f, 0xff, 'x'))},
		{"client id of length -2", harness.Frame(append(harness.Int32(harness.Int16(harness.Int16(nil, 3), 0), 1), 0xff, 0xfe))},
		{"metadata of 2 billion topics", harness.Request(3, 0, 1, harness.Int32(nil, 1<<31-1))},
		{"metadata of -7 topics", harness.Request(3, 0, 1, harness.Int32(nil, -7))},
		{"produce of 2 billion topics", harness.Request(0, 0, 1, harness.Int32(harness.Int32(harness.Int16(nil, -1), 100), 1<<31-1))},
		{"fetch of 2 billion partitions", harness.Request(1, 0, 1, harness.Int32(harness.Str(harness.Int32(make([]byte, 12), 1), topic), 1<<31-1))},
		{"message set longer than the request", harness.Request(0, 0, 1, harness.Int32(harness.Int32(harness.Int32(harness.Str(harness.Int32(harness.Int32(harness.Int16(nil, -1), 100), 1), topic), 1), 0), 1<<30))},
		{"message of size -1", produce(edit(8, 0xff, 0xff, 0xff, 0xff))},
		{"message of size 1 GiB", produce(edit(8, 0x40, 0, 0, 0))},
		{"key of length -2", produce(edit(18, 0xff, 0xff, 0xff, 0xfe))},
		{"magic 9", produce(edit(16, 9))},
		{"codec 7", produce(edit(17, 7))},
		{"gzip that is not gzip", produce(harness.Message(nil, 0, 1, nil, []byte("nonsense")))},
		{"snappy that is not snappy", produce(harness.Message(nil, 0, 2, nil, []byte("\xff\xff\xff\xff\xffnonsense")))},
		{"a gigabyte of zeros as gzip", produce(gzipBomb)},
		{"compressed within compressed", produce(harness.Message(nil, 0, 1, nil, gzipBytes(t, harness.Message(nil, 0, 1, nil, gzipBytes(t, set)))))},
		{"an HTTP request that is none", []byte("GET\x00 / nonsense\r\n\r\n")},
		{"an HTTP header without end", []byte("GET / HTTP/1.1\r\nX: " + strings.Repeat("a", 2<<20))},
		{"a TLS hello that is none", append([]byte{0x16, 3, 1, 0x40, 0}, bytes.Repeat([]byte{0xff}, 100)...)},
		{"half a request and then silence", harness.Request(3, 0, 1, harness.Int32(nil, 0))[:9]},
	}
	for _, h := range cases {
		t.Run(h.name, func(t *testing.T) {
			w := dial(t, node.Addr())
			w.Conn.SetDeadline(time.Now().Add(time.Minute))
			w.Send(h.bytes) // an error is fine: the other side may have closed already
			if h.name == "half a request and then silence" {
				check(t)
				return
			}
			if tcp, ok := w.Conn.(*net.TCPConn); ok {
				tcp.CloseWrite()
			}
			for { // an answer, then the end; never silence for ever
				_, _, err := w.ReadFrame()
				if err != nil {
					if ne, ok := err.(net.Error); ok && ne.Timeout() {
						t.Error("neither an answer nor a closed connection within a minute")
					}
					break
				}
			}
			check(t)
		})
	}

	t.Run("random bytes", func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 2))
		for range 200 {
			w := dial(t, node.Addr())
			b := make([]byte, rng.IntN(300))
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			w.Send(b)
			w.Close()
		}
		check(t)
	})
	t.Run("true requests with flipped bytes", func(t *testing.T) {
		rng := rand.New(rand.NewPCG(3, 4))
		for range 300 {
			w := dial(t, node.Addr())
			b := produce(set)
			if rng.IntN(2) == 0 {
				b = harness.Request(1, 0, 1, harness.FetchBody(topic, 0, 0, 1, 1, 1000))
			}
			b[4+rng.IntN(len(b)-4)] ^= byte(1 << rng.IntN(8))
			w.Send(b)
			w.Close()
		}
		// What a flipped byte let through may be in the log: ask where it ends.
		offsets, err := bystander.ListOffsets(topic, 0, -1, 1)
		if err != nil {
			t.Fatal(err)
		}
		if offsets[0] > produced {
			produced = offsets[0]
		}
	})
	healthy(t, c)
	for _, n := range c.Nodes {
		if s := n.Complaint(); s != "" {
			t.Errorf("%s: %s", n.ID, s)
		}
	}
}

// A connection that sends one byte at a time is served like any other.
func TestSlowClient(t *testing.T) {
	c := harness.Shared(t)
	w := dial(t, c.Node(1).Addr())
	for _, b := range harness.Request(3, 0, 9, harness.Str(harness.Int32(nil, 1), "health")) {
		if err := w.Send([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	if id, _, err := w.ReadFrame(); err != nil || id != 9 {
		t.Fatalf("answer %d, %v", id, err)
	}
}

// Over WebSocket: a text message, a size prefix that disagrees with the message,
// and an empty message are refused; each closes its connection.
func TestWebSocketMessagesThatBreakTheRule(t *testing.T) {
	c := harness.Shared(t)
	good := harness.Request(3, 0, 1, harness.Int32(nil, 0))
	for _, h := range []struct {
		name string
		kind int
		body []byte
	}{
		{"text", websocket.TextMessage, good},
		{"prefix too large", websocket.BinaryMessage, append(harness.Int32(nil, int32(len(good))), good[4:]...)},
		{"prefix too small", websocket.BinaryMessage, append(harness.Int32(nil, 5), good[4:]...)},
		{"two requests in one message", websocket.BinaryMessage, append(bytes.Clone(good), good...)},
		{"empty", websocket.BinaryMessage, nil},
		{"three bytes", websocket.BinaryMessage, []byte{0, 0, 0}},
	} {
		t.Run(h.name, func(t *testing.T) {
			ws, _, err := websocket.DefaultDialer.Dial(c.Node(1).WS()+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer ws.Close()
			ws.WriteMessage(h.kind, h.body)
			ws.SetReadDeadline(time.Now().Add(time.Minute))
			if _, b, err := ws.ReadMessage(); err == nil {
				t.Fatalf("answered with %x", b)
			} else if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Fatal("left open for a minute")
			}
		})
	}
	healthy(t, c)
}

// Host and Origin are checked on HTTP and WebSocket: a page that a browser
// fetched from elsewhere, or a name rebound to 127.0.0.1, gets nothing.
func TestForeignHostAndOrigin(t *testing.T) {
	c := harness.Shared(t)
	node := c.Node(1)
	get := func(path, host, origin string) int {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, "http://"+node.Addr()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			req.Host = host
		}
		if origin != "" {
			req.Header.Set("Origin", origin)
		}
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for _, path := range []string{"/", "/healthz", "/readyz", "/metrics"} {
		if code := get(path, "", ""); code != http.StatusOK {
			t.Errorf("%s: %d", path, code)
		}
		if code := get(path, "evil.example", ""); code < 400 || code > 499 {
			t.Errorf("%s with Host evil.example: %d", path, code)
		}
	}
	if code := get("/metrics", "", "http://evil.example"); code < 400 || code > 499 {
		t.Errorf("/metrics with Origin evil.example: %d", code)
	}
	for name, header := range map[string]http.Header{
		"origin": {"Origin": {"https://evil.example"}},
		"host":   {"Host": {"evil.example:9092"}},
	} {
		ws, resp, err := websocket.DefaultDialer.Dial(node.WS()+"/", header)
		if err == nil {
			ws.Close()
			t.Errorf("a WebSocket with a foreign %s was let in", name)
		} else if resp == nil || resp.StatusCode != http.StatusForbidden && resp.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("foreign %s: %v, %v", name, err, resp)
		}
	}
	ws, _, err := websocket.DefaultDialer.Dial(node.WS()+"/", http.Header{"Origin": {"http://" + node.Addr()}})
	if err != nil {
		t.Errorf("a WebSocket with its own origin was refused: %v", err)
	} else {
		ws.Close()
	}
}

// The page at "/" says what this is, and /metrics uses Kafka's words.
func TestPlainHTTP(t *testing.T) {
	c := harness.Shared(t)
	body, code, err := harness.Get("http://" + c.Node(1).Addr() + "/")
	if err != nil || code != 200 || !strings.Contains(body, "Trimaran") {
		t.Errorf("/: %d %v %q", code, err, body)
	}
	body, code, err = harness.Get("http://" + c.Node(1).Addr() + "/metrics")
	if err != nil || code != 200 || !strings.Contains(body, "# TYPE ") {
		t.Errorf("/metrics: %d %v %.200q", code, err, body)
	}
	if _, code, _ = harness.Get("http://" + c.Node(1).Addr() + "/nothing"); code != 404 {
		t.Errorf("/nothing: %d", code)
	}
}
