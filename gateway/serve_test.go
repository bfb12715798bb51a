package gateway

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trimaran-io/trimaran/gateway/listen"
	"github.com/trimaran-io/trimaran/security"
)

// gatewayOf is a server on loopback, stopped when the test ends.
type gatewayOf struct {
	*Server
	t    testing.TB
	addr string
	logs *logBuffer
	who  atomic.Pointer[func(listen.Client) security.Identity] // see judged
}

// as has clients be somebody from now on.
func (g *gatewayOf) as(who func(listen.Client) security.Identity) { g.who.Store(&who) }

// serve starts a server for the cluster. change may be nil.
func serve(t testing.TB, c Cluster, change func(*Config)) *gatewayOf {
	t.Helper()
	logs := &logBuffer{}
	cfg := Config{
		Cluster: c, AutoCreateTopics: true, Registry: prometheus.NewRegistry(), Version: "test",
		Logger: slog.New(slog.NewTextHandler(logs, nil)),
	}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		<-served
	})
	return &gatewayOf{Server: s, t: t, addr: l.Addr().String(), logs: logs}
}

type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// dial opens a plain connection that gives up after ten seconds.
func (g *gatewayOf) dial() *client {
	g.t.Helper()
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	return newClient(g.t, conn)
}

func (g *gatewayOf) dialTLS(cfg *tls.Config) *client {
	g.t.Helper()
	conn, err := tls.Dial("tcp", g.addr, cfg)
	if err != nil {
		g.t.Fatal(err)
	}
	return newClient(g.t, conn)
}
