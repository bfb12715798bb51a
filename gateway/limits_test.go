package gateway

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/gateway/listen"
	"github.com/trimaran-io/trimaran/gateway/session"
)

// pipes is a listener whose connections never leave the process, so that hours of
// waiting pass at once inside testing/synctest.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "pipe"} }

func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours
}

// inBubble runs a server on virtual time.
func inBubble(t *testing.T, change func(*Config), test func(t *testing.T, p *pipes, s *Server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{Cluster: newFake(t, "events"), Registry: prometheus.NewRegistry()}
		if change != nil {
			change(&cfg)
		}
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		p := newPipes()
		served := make(chan error, 1)
		go func() { served <- s.Serve(p) }()
		defer func() {
			if err := s.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
			<-served
		}()
		test(t, p, s)
	})
}

// lives reports how long the other side keeps the connection, at most an hour.
func lives(t *testing.T, c net.Conn) time.Duration {
	t.Helper()
	began := time.Now()
	_ = c.SetReadDeadline(began.Add(time.Hour))
	_, _ = io.Copy(io.Discard, c)
	return time.Since(began)
}

func within(t *testing.T, what string, got, least, most time.Duration) {
	t.Helper()
	if got < least || got > most {
		t.Errorf("%s: closed after %v, want %v to %v", what, got, least, most)
	}
}

func openWebSocket(t *testing.T, p *pipes) *websocket.Conn {
	t.Helper()
	d := websocket.Dialer{NetDialContext: func(context.Context, string, string) (net.Conn, error) { return p.dial(), nil }}
	ws, resp, err := d.Dial("ws://localhost/", http.Header{})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return ws
}

func TestIdleConnectionsStayTenMinutes(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, p *pipes, _ *Server) {
		c := newClient(t, p.dial())
		c.do(metadataOf("events"))
		within(t, "tcp", lives(t, c.Conn), listen.IdleTimeout, listen.IdleTimeout+time.Minute)
	})
}

// A client that has nothing in flight may not read, and so not answer pings:
// franz-go through a dialer of kafka-websocket-shim is one.
func TestIdleWebSocketNeedsNoPongs(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, p *pipes, _ *Server) {
		ws := openWebSocket(t, p)
		defer ws.Close()
		ws.SetPingHandler(func(string) error { return nil })
		began := time.Now()
		_ = ws.SetReadDeadline(began.Add(time.Hour))
		_, _, err := ws.ReadMessage()
		within(t, "websocket", time.Since(began), listen.IdleTimeout, listen.IdleTimeout+time.Minute)
		if !websocket.IsCloseError(err, websocket.ClosePolicyViolation) {
			t.Errorf("%v", err)
		}
	})
}

// Control frames inside a message do not give it more time.
func TestSlowWebSocketMessageIsNotProlongedByPings(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, p *pipes, _ *Server) {
		ws := openWebSocket(t, p)
		defer ws.Close()
		raw := ws.NetConn()
		go func() { // what the node sends is of no interest, but must be taken
			_, _ = io.Copy(io.Discard, raw)
		}()
		// The first fragment of a message: the size of a request and no more.
		if _, err := raw.Write([]byte{0x02, 0x80 | 4, 0, 0, 0, 0, 0, 0, 0, 100}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for time.Since(began) < time.Hour {
			time.Sleep(5 * time.Second)
			if _, err := raw.Write([]byte{0x89, 0x80, 0, 0, 0, 0}); err != nil { // a ping
				break
			}
		}
		within(t, "slow message", time.Since(began), time.Second, 2*listen.BeginTimeout+10*time.Second)
	})
}

func TestSlowRequestIsCutOff(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, p *pipes, _ *Server) {
		for _, part := range [][]byte{{0}, {0, 0, 0, 100}, {0, 0, 0, 100, 0, 3, 0, 0, 0, 0}} {
			c := p.dial()
			if _, err := c.Write(part); err != nil {
				t.Fatal(err)
			}
			within(t, "slow request", lives(t, c), time.Second, 2*listen.BeginTimeout)
			c.Close()
		}
		c := p.dial()
		within(t, "silent connection", lives(t, c), time.Second, listen.IdleTimeout+time.Minute)
		c.Close()
	})
}

// Size prefixes alone take nothing from the memory that others need.
func TestAnnouncedBytesAreNotHeld(t *testing.T) {
	inBubble(t, func(cfg *Config) { cfg.MaxRequestBytes, cfg.MaxInflightBytes = 32<<20, 32<<20 }, func(t *testing.T, p *pipes, s *Server) {
		for range 3 {
			c := p.dial()
			defer c.Close()
			claim := binary.BigEndian.AppendUint32(nil, 32<<20)
			if _, err := c.Write(append(claim, 0, 0, 0, 0, 0, 0, 0, 0)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		began := time.Now()
		c := newClient(t, p.dial())
		c.send(encode(1, produce(-1, "events", 0, string(make([]byte, 500<<10)))))
		resp := kmsg.NewPtrProduceResponse()
		c.want(1, resp)
		if code := resp.Topics[0].Partitions[0].ErrorCode; code != 0 || time.Since(began) > time.Second {
			t.Errorf("code %d after %v", code, time.Since(began))
		}
		c.Close()
	})
}

// flood writes the frame as often as the server reads it, at most so often, and gives how
// often that was. What is written after it is lost. The bubble's pipes keep nothing.
func flood(c net.Conn, frame []byte, most int) *atomic.Int64 {
	written := new(atomic.Int64)
	go func() {
		for range most {
			if _, err := c.Write(frame); err != nil {
				return
			}
			written.Add(1)
		}
	}()
	return written
}

// Who takes no answers is not read any further, however long they are against the
// requests, and gets all of them when it does.
func TestUnsentAnswersAreBounded(t *testing.T) {
	f := newFake(t, "events:5000")
	inBubble(t, func(cfg *Config) { cfg.Cluster = f }, func(t *testing.T, p *pipes, _ *Server) {
		c := &client{p.dial(), t}
		defer c.Close()
		size := len(c.do(metadataOf("events")).AppendTo(nil))
		const all = 100
		written := flood(c, encode(1, metadataOf("events")), all)
		synctest.Wait()
		if n := int(written.Load()); n > session.MaxUnsent/size+2 {
			t.Errorf("%d requests with answers of %d bytes are read, and no answer is taken", n, size)
		}
		for range all {
			c.want(1, kmsg.NewPtrMetadataResponse())
		}
	})
}

// What a request takes when it is decoded counts, and a connection does not have much more
// than its share of the node's memory in requests that wait.
func TestDecodedRequestsAreBounded(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, p *pipes, s *Server) {
		c, other := p.dial(), &client{p.dial(), t}
		defer c.Close()
		defer other.Close()
		if _, err := c.Write(encode(1, fetchOf("events", 0, 0, time.Minute, 1, 1000))); err != nil {
			t.Fatal(err)
		}
		const topics = 200_000
		long := fetchOf("events", 0, 0, time.Minute, 1, 1000)
		long.Topics = make([]kmsg.FetchRequestTopic, topics)
		written := flood(c, encode(2, long), 100)
		synctest.Wait()
		const each = topics * elementCost
		if n := int(written.Load()); n < 1 || n > session.MaxHeld/each+2 {
			t.Errorf("%d requests are read that take %d bytes each", n, each)
		}
		if held := s.sessions.Requests.Held(); held < each || held > session.MaxHeld+2*each {
			t.Errorf("%d bytes are counted", held)
		}
		other.do(metadataOf("events"))
		c.Close()
		time.Sleep(time.Minute) // the first waits for records, and those behind it for the first
		synctest.Wait()
		if held := s.sessions.Requests.Held(); held != 0 {
			t.Errorf("%d bytes are counted when it is over", held)
		}
	})
}
