package peertest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// pair opens a connection from a to b.
func pair(t *testing.T, n *Network) (near, far net.Conn) {
	t.Helper()
	l, err := n.Listen("b", "b")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if near, err = n.Dial("a")(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

func read(t *testing.T, c net.Conn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Errorf("%q %v, want %q", b, err, want)
	}
}

func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		near, far := pair(t, n)
		_, _ = near.Write([]byte("one"))
		read(t, far, "one")

		n.CutOneWay("a", "b")
		_, _ = near.Write([]byte("two"))
		_, _ = far.Write([]byte("back"))
		read(t, near, "back")
		_ = far.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("behind a cut: %v", err)
		}
		_ = far.SetReadDeadline(time.Time{})
		n.Heal("a", "b")
		read(t, far, "two")

		n.Delay("a", "b", 3*time.Second)
		start := time.Now()
		_, _ = near.Write([]byte("late"))
		read(t, far, "late")
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("delayed by %v", took)
		}
		n.HealAll()

		_ = near.SetWriteDeadline(time.Now().Add(time.Second))
		if m, err := near.Write(make([]byte, 2*capacity)); m != capacity || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a reader that does not read: %d %v", m, err)
		}
		n.Break("b", "a")
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("broken: %v", err)
		}
		_, _ = near.Close(), far.Close()

		near, far = pair(t, n)
		_, _ = near.Write([]byte("last"))
		_ = near.Close()
		read(t, far, "last")
		if _, err := far.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("closed: %v", err)
		}
		if _, err := far.Write([]byte("x")); err == nil {
			t.Error("wrote to one who has closed")
		}
		_ = far.Close()

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		l, _ := n.Listen("b", "b")
		n.Cut("a", "b")
		if _, err := n.Dial("a")(ctx, "b"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial behind a cut: %v", err)
		}
		n.HealAll()
		n.Refuse("b", true)
		if _, err := n.Dial("a")(t.Context(), "b"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("refused: %v", err)
		}
		_ = l.Close()
	})
}

func TestProxyPutsFaultsBetweenRealSockets(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	n := New()
	n.Name(l.Addr().String(), "b")
	near, err := n.Proxy("a", nil)(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = near.Write([]byte("there"))
	read(t, far, "there")
	_, _ = far.Write([]byte("back"))
	read(t, near, "back")
	n.CutOneWay("b", "a")
	_, _ = far.Write([]byte("held"))
	_ = near.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("behind a cut: %v", err)
	}
	_ = near.SetReadDeadline(time.Time{})
	n.HealAll()
	read(t, near, "held")
	_ = near.Close()
	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after close: %v", err)
	}
	_ = far.Close()
}
