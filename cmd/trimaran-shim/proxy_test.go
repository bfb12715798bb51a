package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/trimaran-io/trimaran/gateway/shim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeGateway hands every connection to the test.
type fakeGateway struct {
	*httptest.Server
	conns chan *gatewayConn
}

type gatewayConn struct {
	t      *testing.T
	ws     *websocket.Conn
	header http.Header
	end    chan struct{}
}

func newFakeGateway(t *testing.T) *fakeGateway {
	g := &fakeGateway{conns: make(chan *gatewayConn, 16)}
	over := make(chan struct{})
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := new(websocket.Upgrader).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		c := &gatewayConn{t, ws, r.Header.Clone(), make(chan struct{})}
		g.conns <- c
		select {
		case <-c.end:
		case <-over:
		}
		ws.Close()
	}))
	t.Cleanup(func() {
		close(over)
		g.Close()
	})
	return g
}

func (g *fakeGateway) accept(t *testing.T) *gatewayConn {
	t.Helper()
	select {
	case c := <-g.conns:
		return c
	case <-time.After(30 * time.Second):
		t.Fatal("nobody connected")
		return nil
	}
}

func (c *gatewayConn) receive() []byte {
	c.t.Helper()
	_ = c.ws.SetReadDeadline(time.Now().Add(30 * time.Second))
	_, message, err := c.ws.ReadMessage()
	if err != nil {
		c.t.Fatalf("gateway: %v", err)
	}
	return message
}

func (c *gatewayConn) want(frames ...[]byte) {
	c.t.Helper()
	for i, frame := range frames {
		if got := c.receive(); !bytes.Equal(got, frame) {
			c.t.Fatalf("request %d is %x, want %x", i, got, frame)
		}
	}
}

func (c *gatewayConn) send(frame []byte) {
	c.t.Helper()
	if err := c.ws.WriteMessage(websocket.BinaryMessage, frame); err != nil {
		c.t.Fatal(err)
	}
}

// die breaks the connection without a word.
func (c *gatewayConn) die() {
	c.ws.NetConn().Close()
	close(c.end)
}

// goodbye ends the connection as a gateway that stops as planned.
func (c *gatewayConn) goodbye() {
	_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseGoingAway, ""), time.Now().Add(time.Second))
	close(c.end)
}

// startProxy runs a proxy in front of the gateways and gives its address.
func startProxy(t *testing.T, gateways ...*fakeGateway) (addr string, stop func()) {
	t.Helper()
	var urls []string
	for _, g := range gateways {
		urls = append(urls, "ws"+strings.TrimPrefix(g.URL, "http"))
	}
	s, err := parse([]string{"-gateways", strings.Join(urls, ","), "--listen", "127.0.0.1:0", "-dial-timeout=20s"}, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", s.listen)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- newProxy(s, urls, nil, slog.New(slog.DiscardHandler)).serve(ctx, listener)
	}()
	stop = func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		served <- nil
	}
	t.Cleanup(stop)
	return listener.Addr().String(), stop
}

func connect(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	return conn
}

func message(body ...byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// asked makes a request of version 0 with client id "c".
func asked(key int16, correlation int32, body ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(key))
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(correlation))
	b = append(b, 0, 1, 'c')
	return message(append(b, body...)...)
}

func produce(correlation int32, acks int16) []byte {
	return asked(apiProduce, correlation, byte(uint16(acks)>>8), byte(acks), 0, 0, 0, 1, 0, 0, 0, 0)
}

func answer(correlation int32, body ...byte) []byte {
	return message(append(binary.BigEndian.AppendUint32(nil, uint32(correlation)), body...)...)
}

func write(t *testing.T, w io.Writer, frames ...[]byte) {
	t.Helper()
	for _, frame := range frames {
		if _, err := w.Write(frame); err != nil {
			t.Fatal(err)
		}
	}
}

func wantRead(t *testing.T, r io.Reader, frames ...[]byte) {
	t.Helper()
	for i, frame := range frames {
		got := make([]byte, len(frame))
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, frame) {
			t.Fatalf("answer %d is %x, %v; want %x", i, got, err, frame)
		}
	}
}

func wantClosed(t *testing.T, r io.Reader) {
	t.Helper()
	n, err := r.Read(make([]byte, 1))
	var netErr net.Error
	if err == nil || errors.As(err, &netErr) && netErr.Timeout() {
		t.Fatalf("the connection goes on: %d bytes, %v", n, err)
	}
}

func TestRequestsAndAnswersPassInOrder(t *testing.T) {
	g := newFakeGateway(t)
	addr, _ := startProxy(t, g)
	client := connect(t, addr)
	gw := g.accept(t)
	if got := gw.header.Get(shim.AdvertiseHeader); got != addr {
		t.Errorf("%s is %q, want the shim's address %q", shim.AdvertiseHeader, got, addr)
	}
	one, two, three := asked(apiMetadata, 1), produce(2, -1), asked(apiFetch, 3, bytes.Repeat([]byte{7}, 200_000)...)
	write(t, client, one[:5], one[5:], append(bytes.Clone(two), three...))
	gw.want(one, two, three)
	for i := range int32(3) {
		gw.send(answer(i+1, byte(i)))
	}
	wantRead(t, client, answer(1, 0), answer(2, 1), answer(3, 2))
}

func TestReadsThatWaitForAnAnswerAreAskedAgainElsewhere(t *testing.T) {
	a, b := newFakeGateway(t), newFakeGateway(t)
	addr, _ := startProxy(t, a, b)
	client := connect(t, addr)
	first, second := a, b
	var gw *gatewayConn
	select {
	case gw = <-a.conns:
	case gw = <-b.conns:
		first, second = b, a
	}
	_ = first
	requests := [][]byte{asked(apiFetch, 1), asked(apiMetadata, 2), asked(apiListOffsets, 3)}
	write(t, client, requests...)
	gw.want(requests...)
	gw.send(answer(1))
	wantRead(t, client, answer(1))
	gw.die()
	gw = second.accept(t)
	gw.want(requests[1:]...)
	gw.send(answer(2))
	gw.send(answer(3))
	wantRead(t, client, answer(2), answer(3))
}

func TestAProduceOfUnknownFateEndsTheClientsConnection(t *testing.T) {
	g := newFakeGateway(t)
	addr, _ := startProxy(t, g)
	client := connect(t, addr)
	gw := g.accept(t)
	requests := [][]byte{asked(apiMetadata, 1), produce(2, 1)}
	write(t, client, requests...)
	gw.want(requests...)
	gw.send(answer(1))
	gw.die()
	wantRead(t, client, answer(1)) // what was answered is delivered
	wantClosed(t, client)
}

func TestAProduceThatExpectsNoAnswerIsNotWaitedFor(t *testing.T) {
	a, b := newFakeGateway(t), newFakeGateway(t)
	addr, _ := startProxy(t, a, b)
	client := connect(t, addr)
	var gw *gatewayConn
	other := b
	select {
	case gw = <-a.conns:
	case gw = <-b.conns:
		other = a
	}
	requests := [][]byte{produce(1, 0), asked(apiMetadata, 2)}
	write(t, client, requests...)
	gw.want(requests...)
	gw.send(answer(2))
	wantRead(t, client, answer(2))
	gw.die()
	gw = other.accept(t)
	write(t, client, asked(apiMetadata, 3))
	gw.want(asked(apiMetadata, 3)) // and not the produce again
	gw.send(answer(3))
	wantRead(t, client, answer(3))
}

func TestAnIdleClientMovesAtAGoodbye(t *testing.T) {
	a, b := newFakeGateway(t), newFakeGateway(t)
	addr, _ := startProxy(t, a, b)
	client := connect(t, addr)
	for i := range int32(4) {
		var gw *gatewayConn
		select {
		case gw = <-a.conns:
		case gw = <-b.conns:
		}
		write(t, client, produce(i, -1))
		gw.want(produce(i, -1))
		gw.send(answer(i))
		wantRead(t, client, answer(i))
		gw.goodbye()
	}
}

func TestAnAnswerOutOfOrderIsNotPassedOn(t *testing.T) {
	g := newFakeGateway(t)
	addr, _ := startProxy(t, g)
	client := connect(t, addr)
	gw := g.accept(t)
	write(t, client, asked(apiMetadata, 1), asked(apiMetadata, 2))
	gw.want(asked(apiMetadata, 1), asked(apiMetadata, 2))
	gw.send(answer(2))
	wantClosed(t, client)
}

func TestHostileSizesEndOnlyTheirConnection(t *testing.T) {
	g := newFakeGateway(t)
	addr, _ := startProxy(t, g)
	good := connect(t, addr)
	gw := g.accept(t)
	for _, bad := range [][]byte{{0xff, 0xff, 0xff, 0xff}, {0x7f, 0xff, 0xff, 0xff}, {0, 0, 0, 0}, {0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7}} {
		client := connect(t, addr)
		g.accept(t)
		write(t, client, bad)
		wantClosed(t, client)
	}
	write(t, good, asked(apiMetadata, 1))
	gw.want(asked(apiMetadata, 1))
	gw.send(answer(1))
	wantRead(t, good, answer(1))
}

func TestAStopLetsPendingAnswersArrive(t *testing.T) {
	g := newFakeGateway(t)
	addr, stop := startProxy(t, g)
	client := connect(t, addr)
	gw := g.accept(t)
	write(t, client, produce(1, -1))
	gw.want(produce(1, -1))
	stopped := make(chan struct{})
	go func() {
		stop()
		close(stopped)
	}()
	for { // nobody new is taken
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			break
		}
		conn.Close()
	}
	gw.send(answer(1))
	wantRead(t, client, answer(1))
	wantClosed(t, client)
	<-stopped
}

func TestAGatewayThatComesBackIsFound(t *testing.T) {
	g := newFakeGateway(t)
	addr, _ := startProxy(t, g)
	client := connect(t, addr)
	for i := range int32(3) {
		gw := g.accept(t)
		write(t, client, asked(apiMetadata, i))
		gw.want(asked(apiMetadata, i))
		gw.send(answer(i))
		wantRead(t, client, answer(i))
		gw.die()
	}
}

func TestSettings(t *testing.T) {
	env := map[string]string{"TRIMARAN_SHIM_GATEWAYS": "wss://env:1", "TRIMARAN_SHIM_LISTEN": "127.0.0.1:7"}
	s, err := parse([]string{"-tls", "-listen", "127.0.0.1:8"}, func(k string) string { return env[k] })
	if err != nil || !s.useTLS || s.listen != "127.0.0.1:8" || s.gateways != "wss://env:1" {
		t.Errorf("%+v, %v", s, err)
	}
	s.gateways = "a:1, ws://b:2,wss://c"
	if urls, err := s.gatewayURLs(); err != nil || strings.Join(urls, " ") != "wss://a:1 ws://b:2 wss://c" {
		t.Errorf("%v, %v", urls, err)
	}
	for _, bad := range []string{"http://a:1", "a", ","} {
		s.gateways = bad
		if urls, err := s.gatewayURLs(); err == nil {
			t.Errorf("%q gives %v", bad, urls)
		}
	}
	if _, err := parse(nil, func(string) string { return "" }); err == nil {
		t.Error("no gateway, and no error")
	}
}

func TestAcksAreFoundInEveryVersion(t *testing.T) {
	for name, test := range map[string]struct {
		version int16
		body    []byte
	}{
		"v0":          {0, []byte{0, 1, 'c', 0, 0}},
		"v2 null id":  {2, []byte{0xff, 0xff, 0, 0}},
		"v3":          {3, []byte{0, 1, 'c', 0xff, 0xff, 0, 0}},
		"v8 with txn": {8, []byte{0, 1, 'c', 0, 2, 't', 'x', 0, 0}},
		"v9 no tags":  {9, []byte{0, 1, 'c', 0, 0, 0, 0}},
		"v9 tag, txn": {9, []byte{0, 1, 'c', 1, 5, 2, 9, 9, 3, 't', 'x', 0, 0}},
	} {
		acks, err := produceAcks(test.body, test.version)
		if err != nil || acks != 0 {
			t.Errorf("%s: acks %d, %v", name, acks, err)
		}
		for cut := range test.body {
			if acks, err := produceAcks(test.body[:cut], test.version); err == nil {
				t.Errorf("%s cut at %d gives acks %d", name, cut, acks)
			}
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add(produce(1, 0))
	f.Add(asked(apiFetch, 1))
	f.Fuzz(func(t *testing.T, frame []byte) {
		r, err := parseRequest(frame)
		if err == nil && !r.answered && r.key != apiProduce {
			t.Fatal("only a produce may expect no answer")
		}
		read, err := readFrame(bytes.NewReader(frame), 1<<16)
		if err == nil && len(read) > len(frame) {
			t.Fatal("more was read than there is")
		}
	})
}
