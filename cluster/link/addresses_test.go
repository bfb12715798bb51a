package link_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/link/peertest"
)

// TestANodeIsFoundWhereItIs although it was elsewhere, and others say that it is at theirs.
func TestANodeIsFoundWhereItIs(t *testing.T) {
	for what, first := range map[string]string{
		"a host that is gone": "hole", "one that refuses": "nobody", "one that says nothing": "mute", "another node": "other", "itself": "b",
	} {
		synctest.Test(t, func(t *testing.T) {
			n := peertest.New()
			linkOn(t, n, "b", withHandler(echo))
			linkOn(t, n, "other", withHandler(echo))
			for _, name := range []string{"hole", "mute"} {
				ln, err := n.Listen(name, name)
				if err != nil {
					t.Fatal(err)
				}
				defer ln.Close()
			}
			n.Cut("a", "hole")
			var mu sync.Mutex
			reached := ""
			a := linkOn(t, n, "a", func(c *link.Config) {
				c.Resolve = func(string) (string, bool) { return first, true }
				c.Elsewhere = func(string) []string { return []string{"mute", "other", "b", "hole", "6th", "7th"} }
				c.Reached = func(id, addr string) {
					mu.Lock()
					defer mu.Unlock()
					reached = id + " at " + addr
				}
			})
			began := time.Now()
			// It takes both connections.
			got, err := a.Call(within(t, 10*time.Second), "b", 1, make([]byte, 100_000))
			if err != nil || len(got) < 100_000 {
				t.Errorf("%s: %v", what, err)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("%s: found after %v", what, took)
			}
			mu.Lock()
			defer mu.Unlock()
			if reached != "b at b" {
				t.Errorf("%s: reached %q", what, reached)
			}
			_ = a.Close()
		})
	}
}

// TestRefusedMeansEverywhere: a node of which one address refuses connections may be at the other.
func TestRefusedMeansEverywhere(t *testing.T) {
	for _, test := range []struct {
		elsewhere string
		refused   bool
	}{{"nobody too", true}, {"hole", false}} {
		synctest.Test(t, func(t *testing.T) {
			n := peertest.New()
			ln, err := n.Listen("hole", "hole")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			n.Cut("a", "hole")
			a := linkOn(t, n, "a", func(c *link.Config) {
				c.Resolve = func(string) (string, bool) { return "nobody", true }
				c.Elsewhere = func(string) []string { return []string{test.elsewhere} }
			})
			if _, err := a.Call(within(t, 10*time.Second), "b", 1); !errors.Is(err, link.ErrNotSent) {
				t.Errorf("%v", err)
			}
			if got := a.Known("b").Look().Refused; got != test.refused {
				t.Errorf("with %q: refused %v", test.elsewhere, got)
			}
			_ = a.Close()
		})
	}
}

// TestTheOldestStrangerGoes: more of them than are listened to keep no node out.
func TestTheOldestStrangerGoes(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := start(link.Config{Self: "b", Listener: ln, Handler: echo})
	defer b.Close()
	var idle []net.Conn
	defer func() {
		for _, c := range idle {
			_ = c.Close()
		}
	}()
	a := start(link.Config{Self: "a"})
	defer a.Close()
	for range 400 {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second) // less than strangers have
	defer cancel()
	if from, _, err := a.CallAddr(ctx, ln.Addr().String(), 1); err != nil || from != "b" {
		t.Errorf("kept out: %v", err)
	}
	slices.Reverse(idle) // the youngest is still listened to
	_ = idle[0].SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	var timeout net.Error
	if _, err := idle[0].Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("the youngest: %v", err)
	}
}
