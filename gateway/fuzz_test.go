package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/kafkaproto"
)

// panicWatch is a log that keeps the line of a panic: handlers survive it, tests do not.
type panicWatch struct{ line atomic.Pointer[string] }

func (w *panicWatch) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("panicked")) {
		text := string(line)
		w.line.Store(&text)
	}
	return len(line), nil
}

// FuzzSession sends arbitrary bytes to a server, whatever they announce (TLS,
// HTTP, WebSocket, Kafka), and ends its half. The server must come to an end with
// them, without a panic and in time. Bytes that are a sequence of requests reach
// handlers, and the fake cluster behind them.
func FuzzSession(f *testing.F) {
	for _, seed := range [][]byte{
		nil,
		encode(1, metadataOf("events", "new", "no good name")),
		encode(1, produce(1, "events", 0, "a", "b")),
		encode(1, produce(0, "missing", 0, "a")),
		append(encode(1, produce(-1, "events", 1, "a")), encode(2, fetchOf("events", 1, 0, 0, 1, 100))...),
		encode(1, fetchOf("events", 0, 5, time.Millisecond, 1, -1)),
		raw(head(2, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0)...),
		raw(head(18, 9)...),
		raw(head(18, 3, 0, 2, 'a', 2, '1', 0)...),
		raw(head(19, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1)...),
		raw(head(20, 0, 0, 0, 0, 1, 0, 1, 'e', 0, 0, 0, 1)...),
		raw(head(StatusKey, 0)...),
		raw(head(ReplicaCheckKey, 0, 0, 1, 'e', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)...),
		{0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0},
		[]byte("GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
		append([]byte("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"), 0x82, 0x84, 0, 0, 0, 0, 0, 0, 0, 0),
	} {
		f.Add(seed)
	}
	fake := newFake(f, "events:2")
	for _, api := range kafkaproto.Served {
		for v := api.Min; v <= api.Max; v++ {
			req := kmsg.RequestForKey(int16(api.Key))
			req.SetVersion(v)
			f.Add(encode(1, req))
		}
	}
	for v := range int16(14) {
		records := messageSet("a")
		if v >= 3 {
			records = recordBatch("a")
		}
		f.Add(append(encode(1, produceAt(v, fake, "events", 1, records)), encode(2, fetchAt(v, fake, 0, 100, "events"))...))
	}
	var panics panicWatch
	s, err := New(Config{
		Cluster: fake, Registry: prometheus.NewRegistry(), MaxRequestBytes: 1 << 20,
		AutoCreateTopics: true, Logger: slog.New(slog.NewTextHandler(&panics, nil)),
	})
	if err != nil {
		f.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	f.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			f.Error(err)
		}
		<-served
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		drained := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, c)
			drained <- err
		}()
		_, _ = c.Write(b) // the server may close before it has taken everything
		_ = c.(*net.TCPConn).CloseWrite()
		var timeout net.Error
		if err := <-drained; errors.As(err, &timeout) && timeout.Timeout() {
			t.Fatalf("the connection did not end: %v", err)
		}
		if line := panics.line.Load(); line != nil {
			t.Fatal(*line)
		}
	})
}
