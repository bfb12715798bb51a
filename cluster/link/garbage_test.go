package link

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"
)

// TestGarbageAfterAGoodHello sends frames that no node of this version sends. Each must end its
// own connection and nothing else.
func TestGarbageAfterAGoodHello(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := started(Config{Self: "b", Listener: ln, Handler: func(context.Context, string, uint8, []byte) []byte { return nil }})
	defer func() { _ = l.Close() }()
	wrongSum := newMessage(frameCall, 0, 1).parts[0]
	wrongSum[19] ^= 1
	huge := newMessage(frameCall, 0, 1).parts[0]
	huge[0] = 0xff
	noise := make([]byte, 4096)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	frame := func(typ, kind uint8, body string) []byte {
		return append(newMessage(typ, kind, 1, []byte(body)).parts[0], body...)
	}
	for name, bytes := range map[string][]byte{
		"noise":                   noise,
		"wrong checksum":          wrongSum,
		"too large":               huge,
		"unknown type":            frame(200, 0, ""),
		"answer from the dialer":  frame(frameAnswer, 0, ""),
		"garbage after a request": append(frame(frameCall, 1, "x"), frame(200, 0, "")...),
		"a beacon of version 1":   frame(frameBeacon, 0, ""),
	} {
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		h := hello{versionMin: 1, versionMax: 1, class: Control, boot: rand.Uint64(), generation: 1, identity: "evil", target: "b"}
		if err := writeHello(nc, h.encode()); err != nil {
			t.Fatal(err)
		}
		if _, err := readHello(nc); err != nil {
			t.Fatal(err)
		}
		_, _ = nc.Write(bytes)
		_ = nc.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, nc); err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Errorf("%s: the connection stays open", name)
			}
		}
		_ = nc.Close()
	}
	good := started(Config{Self: "a", Resolve: func(string) (string, bool) { return ln.Addr().String(), true }})
	defer func() { _ = good.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := good.Call(ctx, "b", 1); err != nil {
		t.Error(err)
	}
}

// TestStaleGenerationIsRefused: a hello that was delayed must not end the session that followed it.
func TestStaleGenerationIsRefused(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := started(Config{Self: "b", Listener: ln, PingTimeout: time.Minute})
	defer func() { _ = l.Close() }()
	say := func(boot, generation uint64, cl Class) uint8 {
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		h := hello{versionMin: 1, versionMax: 1, class: cl, boot: boot, generation: generation, identity: "a"}
		if err := writeHello(nc, h.encode()); err != nil {
			t.Fatal(err)
		}
		body, err := readHello(nc)
		if err != nil {
			t.Fatal(err)
		}
		a, err := decodeHelloAnswer(body)
		if err != nil {
			t.Fatal(err)
		}
		return a.reason
	}
	for i, c := range []struct {
		boot, generation uint64
		class            Class
		want             uint8
	}{
		{1, 5, Bulk, reasonStale}, // no session yet
		{1, 5, Control, reasonNone},
		{1, 5, Bulk, reasonNone},
		{1, 5, Bulk, reasonStale}, // there already
		{1, 5, Control, reasonStale},
		{1, 4, Control, reasonStale},
		{1, 7, Control, reasonNone},
		{1, 5, Bulk, reasonStale},
		{1, 6, single, reasonNone},  // no session, no generation
		{2, 1, Control, reasonNone}, // restarted: counts from the beginning
		{2, 1, Class(9), reasonOther},
	} {
		if got := say(c.boot, c.generation, c.class); got != c.want {
			t.Errorf("step %d: reason %d, want %d", i, got, c.want)
		}
	}
}

func started(cfg Config) *Link {
	l := New(cfg)
	l.Start()
	return l
}
