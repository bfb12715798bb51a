package link_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/cluster/link/peertest"
)

// TestHostileListenerInput writes what strangers write; a good node is served all the while.
func TestHostileListenerInput(t *testing.T) {
	n := peertest.New()
	var log journal
	l := linkOn(t, n, "b", withHandler(echo), withLog(&log))
	a := linkOn(t, n, "a")
	dial := n.Dial("stranger")
	for _, input := range [][]byte{
		nil,
		{0},
		[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		{0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1},
		[]byte("TRMP\xff\xff" + "too long"),
		[]byte("TRMP\x00\x02xx\x00\x00\x00\x00"),
	} {
		c, err := dial(within(t, 5*time.Second), "b")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(input)
		if len(input) == 0 {
			_ = c.Close()
			continue
		}
		if len(input) > 6 { // shorter ones are waited for; the handshake's deadline ends them
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
				t.Errorf("%q was answered with %q, %v", input, b, err)
			}
		}
		_ = c.Close()
		if _, err := a.Call(within(t, 5*time.Second), "b", 1); err != nil {
			t.Errorf("a good node after %q: %v", input, err)
		}
	}
	if !log.has("malformed hello") {
		t.Errorf("log:\n%s", log.text())
	}
	until(t, "strangers are gone", func() bool { return l.Stats().Connections == 2 })
}

// TestManyIdleStrangers holds more half-open connections than are listened to.
func TestManyIdleStrangers(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	book := map[string]string{"b": ln.Addr().String()}
	_ = ln.Close()
	a := tcpLink(t, "a", book, echo)
	b := tcpLink(t, "b", book, echo)
	if _, err := a.Call(within(t, 5*time.Second), "b", 1); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		c, err := net.Dial("tcp", book["b"])
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
	}
	until(t, "some are turned away", func() bool { return b.Stats().Refused >= 60 })
	if _, err := a.Call(within(t, 5*time.Second), "b", 1); err != nil {
		t.Errorf("a session that was there before: %v", err)
	}
}
