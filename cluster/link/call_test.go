package link_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/link/peertest"
)

func TestCallsInParallelGetTheirOwnAnswers(t *testing.T) {
	n := peertest.New()
	a := linkOn(t, n, "a")
	b := linkOn(t, n, "b", withHandler(echo))
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			payload := make([]byte, (i%5)*40_000) // some take the bulk connection
			resp, err := a.Call(within(t, 20*time.Second), "b", uint8(i), fmt.Appendf(nil, "%d", i), payload)
			want := string([]byte{byte(i)}) + fmt.Sprintf("a:%d", i)
			if err != nil || !strings.HasPrefix(string(resp), want) || len(resp) != len(want)+len(payload) {
				t.Errorf("call %d: %.20q %v", i, resp, err)
			}
		})
	}
	wg.Wait()
	if s := b.Stats(); s.CallsServed != 200 || s.Accepted != 2 {
		t.Errorf("%d calls served over %d connections", s.CallsServed, s.Accepted)
	}
	if heard, connected := a.Alive("b"); !connected || heard.IsZero() {
		t.Errorf("alive: %v %v", heard, connected)
	}
	if p := b.Peers(); len(p) != 1 || p[0].Identity != "a" || !p[0].Connected {
		t.Errorf("peers of b: %+v", p)
	}
}

func TestCancelEndsTheHandlersContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		began, ended := make(chan struct{}), make(chan error, 1)
		a := linkOn(t, n, "a")
		b := linkOn(t, n, "b", withHandler(func(ctx context.Context, _ string, _ uint8, _ []byte) []byte {
			close(began)
			<-ctx.Done()
			ended <- ctx.Err()
			return nil
		}))
		defer closeAll(a, b)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-began; cancel() }()
		_, err := a.Call(ctx, "b", 1)
		if !errors.Is(err, context.Canceled) || errors.Is(err, link.ErrNotSent) {
			t.Errorf("caller: %v, want canceled with unknown fate", err)
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("handler: %v", err)
		}
	})
}

func closeAll(links ...*link.Link) {
	for _, l := range links {
		_ = l.Close()
	}
}

func TestBrokenConnectionIsUnknownFateAndCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		began, ended := make(chan struct{}, 10), make(chan struct{}, 10)
		a := linkOn(t, n, "a")
		b := linkOn(t, n, "b", withHandler(func(ctx context.Context, _ string, kind uint8, _ []byte) []byte {
			if kind == 1 {
				return []byte("again")
			}
			began <- struct{}{}
			<-ctx.Done()
			ended <- struct{}{}
			return nil
		}))
		defer closeAll(a, b)
		for _, fault := range []func(){func() { n.Break("a", "b") }, func() { n.Cut("a", "b") }, func() { n.CutOneWay("b", "a") }, func() { n.CutOneWay("a", "b") }} {
			var down atomic.Int32
			a.OnDown(func(id string) {
				if id == "b" {
					down.Add(1)
				}
			})
			go func() { <-began; fault() }()
			start := time.Now()
			_, err := a.Call(t.Context(), "b", 2)
			if !errors.Is(err, link.ErrBroken) || errors.Is(err, link.ErrNotSent) {
				t.Errorf("caller: %v", err)
			}
			if took := time.Since(start); took > 4*time.Second {
				t.Errorf("noticed after %v", took)
			}
			<-ended
			if down.Load() != 1 {
				t.Errorf("told %d times that b is down", down.Load())
			}
			n.HealAll()
			time.Sleep(2 * time.Second) // virtual: past the back-off
			if resp, err := a.Call(t.Context(), "b", 1); err != nil || string(resp) != "again" {
				t.Errorf("after healing: %q %v", resp, err)
			}
		}
	})
}

func TestWhatNeverLeftIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		a := linkOn(t, n, "a")
		b := linkOn(t, n, "b", withHandler(echo))
		defer closeAll(a, b)
		check := func(what string, err error, is error) {
			t.Helper()
			if !errors.Is(err, link.ErrNotSent) || (is != nil && !errors.Is(err, is)) {
				t.Errorf("%s: %v", what, err)
			}
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := a.Call(gone, "b", 1)
		check("context over before", err, context.Canceled)
		_, err = a.Call(t.Context(), "nobody", 1)
		check("nobody listens", err, nil)
		dials := n.Dials()
		_, err = a.Call(t.Context(), "nobody", 1)
		check("soon after", err, nil)
		if n.Dials() != dials {
			t.Error("dialed again at once instead of failing fast")
		}
		n.Cut("a", "b")
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err = a.Call(short, "b", 1)
		cancel()
		check("cut off", err, context.DeadlineExceeded)
		n.HealAll()
		time.Sleep(5 * time.Second)
		_, err = a.Call(t.Context(), "b", 1, make([]byte, 300<<20))
		check("too large", err, link.ErrTooLarge)
		if _, err := a.Call(t.Context(), "b", 1); err != nil {
			t.Error(err)
		}
		b.StopAccepting()
		_, err = a.Call(t.Context(), "b", 1)
		check("stopping", err, link.ErrStopping)
		_ = b.Close()
		synctest.Wait() // before a has noticed, the fate of a call would be unknown
		_, err = a.Call(t.Context(), "b", 1)
		check("closed there", err, nil)
		_ = a.Close()
		_, err = a.Call(t.Context(), "b", 1)
		check("closed here", err, link.ErrClosed)
		_, _, err = a.CallAddr(t.Context(), "b", 1)
		check("closed here, by address", err, link.ErrClosed)
	})
}

// TestOldRequestsEndBeforeNewOnesBegin is the promise that retries rest on: when a node's
// second session is open, no handler of its first one has a context that still lives.
func TestOldRequestsEndBeforeNewOnesBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		var old atomic.Pointer[context.Context]
		began := make(chan struct{})
		b := linkOn(t, n, "b", withHandler(func(ctx context.Context, _ string, kind uint8, _ []byte) []byte {
			if kind == 1 {
				old.Store(&ctx)
				close(began)
				<-ctx.Done()
				return nil
			}
			if (*old.Load()).Err() == nil {
				return []byte("the old request lives")
			}
			return []byte("ok")
		}))
		a := linkOn(t, n, "a")
		go func() { _, _ = a.Call(t.Context(), "b", 1) }()
		<-began
		// a restarts behind a cut: b has no way to know that its old connections are dead.
		n.Cut("a", "b")
		_ = a.Close()
		n.HealAll()
		a = start(link.Config{Self: "a", Dial: n.Dial("a"), Resolve: func(id string) (string, bool) { return id, true }})
		defer closeAll(a, b)
		resp, err := a.Call(t.Context(), "b", 2)
		if err != nil || string(resp) != "ok" {
			t.Errorf("%q %v", resp, err)
		}
	})
}

func TestBackPressureWaitsAndLosesNothing(t *testing.T) {
	n := peertest.New()
	var most, now atomic.Int64
	a := linkOn(t, n, "a")
	_ = linkOn(t, n, "b", withHandler(func(_ context.Context, _ string, _ uint8, b []byte) []byte {
		if v := now.Add(int64(len(b))); v > most.Load() {
			most.Store(v)
		}
		time.Sleep(time.Millisecond)
		now.Add(-int64(len(b)))
		return nil
	}))
	payload := make([]byte, 24<<20)
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			if _, err := a.Call(within(t, 60*time.Second), "b", 1, payload); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most.Load() > 128<<20 {
		t.Errorf("%d bytes were worked on at once", most.Load())
	}
}

// TestLargeAnswersDoNotDelaySmallOnes: on a slow network large answers fill the bulk connection,
// small ones pass by.
func TestLargeAnswersDoNotDelaySmallOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		a := linkOn(t, n, "a")
		b := linkOn(t, n, "b", withHandler(func(_ context.Context, _ string, kind uint8, _ []byte) []byte {
			if kind == 1 {
				return make([]byte, 64<<20)
			}
			return nil
		}))
		defer closeAll(a, b)
		for a.Stats().Connections < 2 {
			_, _ = a.Call(t.Context(), "b", 2)
			time.Sleep(10 * time.Millisecond)
		}
		n.Delay("a", "b", 10*time.Millisecond) // 256 KiB per 10 ms: the large answer takes 2.5 s
		var large atomic.Bool
		var wg sync.WaitGroup
		wg.Go(func() {
			resp, err := a.Call(t.Context(), "b", 1)
			if err != nil || len(resp) != 64<<20 {
				t.Errorf("%d bytes, %v", len(resp), err)
			}
			large.Store(true)
		})
		for range 20 {
			time.Sleep(50 * time.Millisecond)
			start := time.Now()
			if _, err := a.Call(t.Context(), "b", 2); err != nil || time.Since(start) > 50*time.Millisecond {
				t.Errorf("a small call took %v: %v", time.Since(start), err)
			}
		}
		if large.Load() {
			t.Error("the large answer was too fast to be of interest")
		}
		wg.Wait()
	})
}

func TestMismatchesAreRefusedOnBothSides(t *testing.T) {
	for _, c := range []struct {
		name     string
		dialer   func(*link.Config)
		is       error
		inLog    string
		theirLog string
	}{
		{"cluster", withCluster("two"), link.ErrClusterMismatch, "cannot reach node", "peer connection refused"},
		{"identity", func(c *link.Config) { c.Resolve = func(string) (string, bool) { return "b", true } }, link.ErrIdentityMismatch, "cannot reach node", "peer connection refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := peertest.New()
			var ours, theirs journal
			a := linkOn(t, n, "a", withLog(&ours), c.dialer)
			_ = linkOn(t, n, "b", withLog(&theirs), withCluster("one"), withHandler(echo))
			target := "b"
			if c.name == "identity" {
				target = "somebody-else"
			}
			_, err := a.Call(within(t, 5*time.Second), target, 1)
			if !errors.Is(err, c.is) || !errors.Is(err, link.ErrNotSent) {
				t.Errorf("error: %v", err)
			}
			until(t, "both sides have logged it", func() bool { return ours.has(c.inLog) && theirs.has(c.theirLog) })
		})
	}
}

func TestNodesWithoutClusterTalkToAll(t *testing.T) {
	n := peertest.New()
	fresh := linkOn(t, n, "fresh")
	_ = linkOn(t, n, "b", withCluster("one"), withHandler(echo))
	if _, err := fresh.Call(within(t, 5*time.Second), "b", 1); err != nil {
		t.Error(err)
	}
	if from, _, err := fresh.CallAddr(within(t, 5*time.Second), "b", 1); err != nil || from != "b" {
		t.Errorf("%q %v", from, err)
	}
}

func TestCallAddrLeavesTheSessionAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		a := linkOn(t, n, "a")
		b := linkOn(t, n, "b", withHandler(func(ctx context.Context, _ string, kind uint8, _ []byte) []byte {
			if kind == 1 {
				select {
				case <-ctx.Done():
				case <-time.After(10 * time.Second):
					return []byte("undisturbed")
				}
			}
			return nil
		}))
		defer closeAll(a, b)
		var wg sync.WaitGroup
		wg.Go(func() {
			if resp, err := a.Call(t.Context(), "b", 1); err != nil || string(resp) != "undisturbed" {
				t.Errorf("%q %v", resp, err)
			}
		})
		for range 5 {
			time.Sleep(time.Second)
			if _, _, err := a.CallAddr(t.Context(), "b", 2); err != nil {
				t.Error(err)
			}
		}
		wg.Wait()
		if c := a.Stats().Connections; c != 2 {
			t.Errorf("%d connections left", c)
		}
	})
}

func TestDropAndChangedAddress(t *testing.T) {
	n := peertest.New()
	var addr atomic.Value
	addr.Store("b")
	a := linkOn(t, n, "a", func(c *link.Config) { c.Resolve = func(string) (string, bool) { return addr.Load().(string), true } })
	b := linkOn(t, n, "b", withHandler(echo))
	if _, err := a.Call(within(t, 5*time.Second), "b", 1); err != nil {
		t.Fatal(err)
	}
	_ = b.Close()
	ln, err := n.Listen("b", "b-moved")
	if err != nil {
		t.Fatal(err)
	}
	moved := start(link.Config{Self: "b", Listener: ln, Handler: echo})
	defer closeAll(moved)
	addr.Store("b-moved")
	a.Drop("b")
	until(t, "reached at the new address", func() bool {
		_, err := a.Call(within(t, 5*time.Second), "b", 1)
		return err == nil
	})
	if got := a.Peers(); len(got) != 1 || !got[0].Connected || got[0].LastError != "" {
		t.Errorf("%+v", got)
	}
}

func TestCallToSelf(t *testing.T) {
	n := peertest.New()
	a := linkOn(t, n, "a", withHandler(echo))
	for range 3 {
		if resp, err := a.Call(within(t, 5*time.Second), "a", 4, []byte("x")); err != nil || string(resp) != "\x04a:x" {
			t.Fatalf("%q %v", resp, err)
		}
	}
}

func BenchmarkCall(b *testing.B) {
	book := map[string]string{}
	caller, _ := tcpLink(b, "a", book, nil), tcpLink(b, "b", book, echo)
	for _, size := range []int{100, 16 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			payload := make([]byte, size)
			b.SetBytes(int64(2 * size))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := caller.Call(context.Background(), "b", 1, payload); err != nil {
						b.Fatal(err)
					}
				}
			})
			s := caller.Stats()
			b.ReportMetric(float64(s.FramesOut)/float64(s.Writes), "frames/write")
		})
	}
}
