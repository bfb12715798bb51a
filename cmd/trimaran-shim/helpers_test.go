package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/trimaran-io/trimaran/gateway/shim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeGateway hands every session's connection to the test and answers the pings
// of watchers.
type fakeGateway struct {
	*httptest.Server
	conns  chan *gatewayConn
	refuse atomic.Pointer[string] // handshakes, with that reason

	mu       sync.Mutex
	serving  string // what it says of itself; "": nothing
	watchers map[*websocket.Conn]bool
	still    chan struct{} // not nil: it stands still until this is closed
}

// watch serves a watcher who was told a word in its handshake. What the gateway has said since then
// it hears now: a real one says it again and again.
func (g *fakeGateway) watch(ws *websocket.Conn, told string) {
	g.mu.Lock()
	g.watchers[ws] = true
	if g.serving != told {
		_ = ws.WriteControl(websocket.PingMessage, []byte(g.serving), time.Now().Add(time.Second))
	}
	g.mu.Unlock()
	_, _, _ = ws.ReadMessage()
	ws.Close()
	g.mu.Lock()
	delete(g.watchers, ws)
	g.mu.Unlock()
}

// says has it tell its watchers, and who comes, whether it serves.
func (g *fakeGateway) says(word string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.serving = word
	for ws := range g.watchers {
		_ = ws.WriteControl(websocket.PingMessage, []byte(word), time.Now().Add(time.Second))
	}
}

// dropWatchers breaks their connections.
func (g *fakeGateway) dropWatchers() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for ws := range g.watchers {
		ws.NetConn().Close()
	}
}

type gatewayConn struct {
	t      *testing.T
	ws     *websocket.Conn
	header http.Header
	end    chan struct{}
}

func newFakeGateway(t *testing.T) *fakeGateway { return newFakeGatewayTLS(t, nil) }

func newFakeGatewayTLS(t *testing.T, config *tls.Config) *fakeGateway {
	g := &fakeGateway{conns: make(chan *gatewayConn, 16), watchers: map[*websocket.Conn]bool{}}
	over := make(chan struct{})
	g.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if why := g.refuse.Load(); why != nil {
			http.Error(w, *why, http.StatusForbidden)
			return
		}
		said := http.Header{}
		g.mu.Lock()
		told := g.serving
		g.mu.Unlock()
		if told != "" && r.Header.Get(shim.ServingHeader) != "" {
			said.Set(shim.ServingHeader, told)
		}
		ws, err := new(websocket.Upgrader).Upgrade(w, r, said)
		if err != nil {
			return
		}
		if r.Header.Get(shim.AdvertiseHeader) == "" { // a watcher: it says nothing
			g.watch(ws, told)
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
	g.Listener = stillListener{g.Listener, g}
	if config == nil {
		g.Start()
	} else {
		g.TLS = config
		g.StartTLS()
	}
	t.Cleanup(func() {
		g.goOn()
		close(over)
		g.dropWatchers()
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
func (c *gatewayConn) goodbye(reason string) { c.closeWith(websocket.CloseGoingAway, reason) }

func (c *gatewayConn) closeWith(code int, reason string) {
	_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(time.Second))
}

// wantGone waits until the shim has left.
func (c *gatewayConn) wantGone() {
	c.t.Helper()
	_ = c.ws.SetReadDeadline(time.Now().Add(30 * time.Second))
	for {
		if _, _, err := c.ws.ReadMessage(); err != nil {
			return
		}
	}
}

// standStill makes the gateway one whose sockets are there and which does nothing.
func (g *fakeGateway) standStill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.still = make(chan struct{})
}

// goOn ends standStill.
func (g *fakeGateway) goOn() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.still != nil {
		close(g.still)
		g.still = nil
	}
}

// stillListener and stillConn keep what arrives back while their gateway stands still.
type stillListener struct {
	net.Listener
	g *fakeGateway
}

func (l stillListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return stillConn{conn, l.g}, err
}

type stillConn struct {
	net.Conn
	g *fakeGateway
}

func (c stillConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.g.mu.Lock()
	still := c.g.still
	c.g.mu.Unlock()
	if still != nil {
		<-still
	}
	return n, err
}

func newProxyDialer() shim.Dialer { return shim.Dialer{} }

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// produceOf is a Produce with a body of that size.
func produceOf(correlation int32, acks int16, size int) []byte {
	return asked(apiProduce, correlation, append([]byte{byte(uint16(acks) >> 8), byte(acks)}, make([]byte, size)...)...)
}

func noEnv(string) (string, bool) { return "", false }

// parse reads a command line as main does.
func parse(args []string, env func(string) (string, bool)) (s settings, err error) {
	cmd := newCommand(env, func(_ context.Context, given settings, _ *slog.Logger) error {
		s = given
		return nil
	})
	cmd.SetArgs(doubleDashes(args))
	cmd.SetOut(io.Discard)
	cmd.SetErr(io.Discard)
	return s, cmd.Execute()
}

// runProxy runs a proxy with these flags in front of the gateways.
func runProxy(t *testing.T, flags []string, gateways ...*fakeGateway) (p *proxy, addr string, stop func()) {
	t.Helper()
	return runProxyWith(t, flags, func(*proxy) {}, gateways...)
}

// runProxyWith is runProxy, and changes the shim before it serves.
func runProxyWith(t *testing.T, flags []string, change func(*proxy), gateways ...*fakeGateway) (p *proxy, addr string, stop func()) {
	t.Helper()
	var urls []string
	for _, g := range gateways {
		urls = append(urls, "ws"+strings.TrimPrefix(g.URL, "http"))
	}
	args := append([]string{"-gateways", strings.Join(urls, ","), "--listen", "127.0.0.1:0", "-dial-timeout=20s", "-gateway-timeout=10s"}, flags...)
	s, err := parse(args, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	each, _, err := s.gatewayTLS()
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", s.listen)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p = newProxy(s, each, slog.New(slog.DiscardHandler))
	change(p)
	served := make(chan error, 1)
	go func() { served <- p.serve(ctx, listener) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		for kind, b := range map[string]*budget{"requests": p.requestMemory, "answers": p.answerMemory} {
			if held := b.held.Load(); held != 0 {
				t.Errorf("%s hold %d bytes of memory after the end", kind, held)
			}
		}
	})
	t.Cleanup(stop)
	return p, listener.Addr().String(), stop
}

func startProxy(t *testing.T, gateways ...*fakeGateway) (addr string, stop func()) {
	t.Helper()
	p, addr, stop := runProxy(t, nil, gateways...)
	p.waitUp(t, len(gateways))
	return addr, stop
}

// waitUp waits until so many gateways are known to be up.
func (p *proxy) waitUp(t *testing.T, want int) {
	t.Helper()
	late := time.After(30 * time.Second)
	for {
		p.gateways.mu.Lock()
		up, changed := 0, p.gateways.changed
		for _, g := range p.gateways.list {
			if g.up {
				up++
			}
		}
		p.gateways.mu.Unlock()
		if up == want {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("%d gateways are up, want %d", up, want)
		}
	}
}

// waitAway waits until sessions are sent away from a gateway.
func (p *proxy) waitAway(t *testing.T) {
	t.Helper()
	late := time.After(30 * time.Second)
	for {
		p.gateways.mu.Lock()
		changed := p.gateways.changed
		for _, g := range p.gateways.list {
			select {
			case <-g.away:
				p.gateways.mu.Unlock()
				return
			default:
			}
		}
		p.gateways.mu.Unlock()
		select {
		case <-changed:
		case <-late:
			t.Fatal("sessions are to stay everywhere")
		}
	}
}

// either accepts a session at one of two gateways and gives the other one, too.
func either(t *testing.T, a, b *fakeGateway) (*gatewayConn, *fakeGateway) {
	t.Helper()
	select {
	case c := <-a.conns:
		return c, b
	case c := <-b.conns:
		return c, a
	case <-time.After(30 * time.Second):
		t.Fatal("nobody connected")
		return nil, nil
	}
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

// waitFor waits until something is the case that nobody tells.
func waitFor(t *testing.T, is func() bool) {
	t.Helper()
	late := time.After(30 * time.Second)
	for tick := time.Tick(time.Millisecond); !is(); {
		select {
		case <-tick:
		case <-late:
			t.Fatal("it does not happen")
		}
	}
}
