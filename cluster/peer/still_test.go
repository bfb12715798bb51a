package peer

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A process that stood still has heard nobody. That is a reason to give those time who were there, and none to believe that a
// node is back which was gone before.
func TestWhoWasGoneIsGoneAfterAPause(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	l := New(Config{
		Self: "a", Listener: listener, Logger: slog.New(slog.NewTextHandler(&out, nil)),
		Resolve: func(id string) (string, bool) { return id, true },
		Dial:    func(context.Context, string) (net.Conn, error) { return nil, syscall.ECONNREFUSED },
	})
	if err := l.Close(); err != nil { // the pulse has ended: what it owns is this test's
		t.Fatal(err)
	}
	p := l.peer("b")
	now := l.now() + int64(time.Hour)
	p.tend(now, true)
	now += int64(time.Minute)
	if !p.tend(now, true) {
		t.Fatal("a node of which nothing was ever heard is not gone")
	}
	now += int64(time.Minute)
	l.awake = now
	if !p.tend(now, true) || strings.Contains(out.String(), "back") {
		t.Errorf("a dead node came back with this one:\n%s", out.String())
	}
	// One that was there has its time.
	there := l.peer("c")
	there.heard.Store(now - int64(time.Minute))
	there.tend(now, true)
	if there.tend(now+1, true) {
		t.Error("a node that was there is gone at once")
	}
	p.heard.Store(now)
	if p.tend(now+1, true) || !strings.Contains(out.String(), "back") {
		t.Error("a node that was heard is not back")
	}
}

// Awake tells of a pause that the pulse has not noticed yet, and not of moments in which the machine was busy.
func TestAwakeIsSinceTheLastLongPause(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := New(Config{Self: "a", Listener: listener})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l.pulsed.Store(l.now() + int64(time.Hour))
	if !l.Awake().IsZero() {
		t.Error("it has not stood still")
	}
	before := time.Now()
	l.pulsed.Store(l.now() - int64(longStill) - 1)
	if at := l.Awake(); at.Before(before) {
		t.Errorf("it stood still until now, and says %v before", before.Sub(at))
	}
	l.resumed.Store(5)
	l.pulsed.Store(l.now() + int64(time.Hour))
	if at := l.Awake(); !at.Equal(l.start.Add(5)) {
		t.Errorf("%v after the start", at.Sub(l.start))
	}
}
