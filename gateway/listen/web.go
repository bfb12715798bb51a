package listen

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/trimaran-io/trimaran/console"
	"github.com/trimaran-io/trimaran/gateway/internal/frames"
	"github.com/trimaran-io/trimaran/gateway/shim"
)

// webConn is a connection that began with a letter.
type webConn struct {
	*frames.Turns
	conn  *conn
	state *tls.ConnectionState // nil: plaintext
}

// connListener hands connections that are accepted elsewhere to an http.Server.
type connListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *connListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *connListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *connListener) Addr() net.Addr { return webAddr{} }

type webAddr struct{}

func (webAddr) Network() string { return "gateway" }
func (webAddr) String() string  { return "gateway" }

type webConnKey struct{}

func (s *Server) startWeb() {
	s.webConns = &connListener{conns: make(chan net.Conn), done: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", s.serveRoot)
	alive := func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok\n") }
	if s.cfg.Gateways != nil {
		mux.HandleFunc("GET "+console.Prefix, console.ServeFile) // and HEAD
	}
	// load balancers check with either
	for _, method := range []string{http.MethodGet, http.MethodOptions} {
		mux.HandleFunc(method+" /healthz", alive)
		mux.HandleFunc(method+" /readyz", s.serveReady)
	}
	mux.Handle("GET /metrics", s.metricsHandler())
	s.web = &http.Server{
		Handler:           s.allowed(mux),
		ReadHeaderTimeout: handshakeTimeout,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          log.New(webErrors{s.cfg.Refusals}, "", 0),
		BaseContext:       func(net.Listener) context.Context { return s.ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, webConnKey{}, c)
		},
	}
	s.wg.Go(func() { _ = s.web.Serve(s.webConns) })
}

// webErrors takes the lines that net/http logs by itself. They tell of single
// connections and may quote what came from them.
type webErrors struct{ refusals *Refusals }

func (w webErrors) Write(line []byte) (int, error) {
	w.refusals.Log("http", errors.New(Shown(string(bytes.TrimSpace(line)))))
	return len(line), nil
}

func (s *Server) serveHTTP(c *webConn) {
	if !s.become(c.conn, KindHTTP, nil) {
		c.Close()
		return
	}
	select {
	case s.webConns.conns <- c:
	case <-s.webConns.done:
		c.Close()
	}
}

// stopWeb lets HTTP requests that have begun end.
func (s *Server) stopWeb(ctx context.Context) error {
	err := s.web.Shutdown(ctx)
	if err != nil {
		s.web.Close()
	}
	return err
}

// allowed lets through who calls this node by a name of its own and does not
// come from somebody else's web page.
func (s *Server) allowed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := r.Context().Value(webConnKey{}).(*webConn)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		switch {
		case !s.allow.host(r.Host, c.LocalAddr(), c.state):
			s.cfg.Metrics.Refused("host")
			s.cfg.Refusals.Log("http request refused", fmt.Errorf("host %s is not allowed", Shown(r.Host)), "peer", c.RemoteAddr())
			plain(w, http.StatusForbidden, "This node is not known by that name (Host). Names are allowed with --allow-host.\n")
		case !s.allow.origin(r, c.state, s.sibling):
			s.cfg.Metrics.Refused("origin")
			s.cfg.Refusals.Log("http request refused", fmt.Errorf("origin %s is not allowed", Shown(r.Header.Get("Origin"))), "peer", c.RemoteAddr())
			plain(w, http.StatusForbidden, "Pages of that origin may not connect. Origins are allowed with --allow-origin.\n")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

func (s *Server) serveReady(w http.ResponseWriter, _ *http.Request) {
	if s.leaving.Err() != nil {
		plain(w, http.StatusServiceUnavailable, "the node is stopping\n")
		return
	}
	if err := s.cfg.Node.Ready(); err != nil {
		plain(w, http.StatusServiceUnavailable, err.Error()+"\n")
		return
	}
	plain(w, http.StatusOK, "ready\n")
}

// serveRoot says what this is, or opens a WebSocket.
func (s *Server) serveRoot(w http.ResponseWriter, r *http.Request) {
	if websocket.IsWebSocketUpgrade(r) {
		s.serveWebSocket(w, r)
		return
	}
	w.Header().Set("Allow", "GET, HEAD, OPTIONS")
	// what a load balancer asks by default, to know whether to send clients here
	if r.Method == http.MethodOptions {
		s.serveReady(w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		plain(w, http.StatusMethodNotAllowed, "Only GET.\n")
		return
	}
	if s.cfg.Gateways != nil {
		w.Header().Add("Vary", "Accept")
		if console.Wanted(r) {
			s.servePage(w, r, r.Context().Value(webConnKey{}).(*webConn).state)
			return
		}
	}
	version := s.cfg.Version
	if version != "" {
		version = " " + version
	}
	where := ""
	if s.cfg.Gateways != nil {
		where = "  console         on this path, for browsers\n"
	}
	plain(w, http.StatusOK, "Trimaran"+version+`: a log that Kafka clients can use.

On this port:
  Kafka protocol  bootstrap.servers=`+r.Host+`
  WebSocket       on this path; one Kafka message, its size included, per binary message
`+where+`  /healthz        the process works
  /readyz         this node serves, or what is missing
  /metrics        for Prometheus
`)
}

// serveWebSocket upgrades and serves a session until it ends.
func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(webConnKey{}).(*webConn)
	var said *Address
	if values := r.Header.Values(shim.AdvertiseHeader); len(values) > 0 {
		a, err := ParseAddress(values[0])
		if err != nil || len(values) > 1 {
			s.cfg.Metrics.Refused("advertise")
			s.cfg.Refusals.Log("websocket refused", fmt.Errorf("%s: %s", shim.AdvertiseHeader, Shown(values[0])), "peer", c.RemoteAddr())
			plain(w, http.StatusBadRequest, shim.AdvertiseHeader+": want one host:port.\n")
			return
		}
		said, c.conn.named = &a, true
	}
	facts, chosen, ok := s.judge(w, r, c)
	if !ok {
		return
	}
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		plain(w, http.StatusServiceUnavailable, "the node is stopping\n")
		return
	}
	s.wg.Add(1)
	s.mu.Unlock()
	defer s.wg.Done()
	answer := http.Header{}
	elsewhere, _, why := s.serving.now()
	switch c.conn.told = tells(r); {
	case c.conn.told:
		answer.Set(shim.ServingHeader, servingWord(why))
	case elsewhere:
		s.cfg.Metrics.Refused("not serving")
		plain(w, http.StatusServiceUnavailable, "this node is cut off from the others\n")
		return
	}
	upgrader := websocket.Upgrader{
		HandshakeTimeout: handshakeTimeout,
		WriteBufferPool:  &webSocketBuffers,
		Subprotocols:     chosen,
		CheckOrigin:      func(*http.Request) bool { return true }, // done for every request
		Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
			plain(w, status, reason.Error()+"\n")
		},
	}
	ws, err := upgrader.Upgrade(w, r, answer)
	if err != nil {
		s.cfg.Metrics.Refused("websocket handshake")
		s.cfg.Refusals.Log("websocket refused", errors.New(Shown(err.Error())), "peer", c.RemoteAddr())
		return
	}
	defer s.survive(c)
	c.Upgraded()
	f := newWebSocket(ws, c.Turns, s.cfg.MaxRequestBytes)
	if c.conn.told {
		f.serving = &s.serving
	}
	s.wg.Go(f.ping)
	s.serveSession(c.conn, KindWebSocket, f, s.ofWebSocket(said, r.Host, c.LocalAddr(), c.state), facts)
}

// subprotocols are names for what is spoken here, of which the first that a client offers is
// chosen: a client that offers some takes it for a failure when none is, browsers by their
// standard. None need be offered.
var subprotocols = []string{"kafka", "binary"}

// webSocketBuffers keeps write buffers while a connection has nothing to write.
var webSocketBuffers sync.Pool
