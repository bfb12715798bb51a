package link_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/link/peertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal is a log that tests can read.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

func (j *journal) has(what string) bool { return strings.Contains(j.text(), what) }

// linkOn starts a link of node self, which listens at its own name in a network of the test.
func linkOn(t *testing.T, n *peertest.Network, self string, change ...func(*link.Config)) *link.Link {
	t.Helper()
	ln, err := n.Listen(self, self)
	if err != nil {
		t.Fatal(err)
	}
	cfg := link.Config{
		Self: self, Listener: ln, Dial: n.Dial(self),
		Resolve: func(id string) (string, bool) { return id, true },
	}
	for _, f := range change {
		f(&cfg)
	}
	l := start(cfg)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func withHandler(h link.Handler) func(*link.Config) {
	return func(c *link.Config) { c.Handler = h }
}

func withCluster(id string) func(*link.Config) {
	return func(c *link.Config) { c.ClusterID = func() string { return id } }
}

func withLog(j *journal) func(*link.Config) {
	return func(c *link.Config) { c.Logger = slog.New(slog.NewTextHandler(j, nil)) }
}

func echo(_ context.Context, from string, kind uint8, b []byte) []byte {
	return append([]byte{kind}, append([]byte(from+":"), b...)...)
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// until waits for a condition.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func start(cfg link.Config) *link.Link {
	l := link.New(cfg)
	l.Start()
	return l
}
