package ticks

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestTicksFallTogether: whatever began when, the ticks of one period and of its multiples come at
// one moment.
func TestTicksFallTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(37 * time.Millisecond)
		a := New(100 * time.Millisecond)
		defer a.Stop()
		time.Sleep(59 * time.Millisecond)
		b := New(500 * time.Millisecond)
		defer b.Stop()
		for range 20 {
			at := <-b.C
			if at.UnixNano()%int64(500*time.Millisecond) != 0 {
				t.Fatalf("a tick at %v", at)
			}
			<-a.C // one is kept, and it is of this moment or missed
			last := <-a.C
			if d := last.Sub(at); d > 100*time.Millisecond {
				t.Fatalf("the next tick came %v later", d)
			}
		}
	})
}

// TestTicksAreCounted: as many as their period says, and none after Stop.
func TestTicksAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(100 * time.Millisecond)
		count := func(d time.Duration) (n int) {
			for end := time.After(d); ; {
				select {
				case <-a.C:
					n++
				case <-end:
					return n
				}
			}
		}
		if n := count(10*time.Second + 50*time.Millisecond); n < 99 || n > 101 {
			t.Errorf("%d ticks of 100 ms in 10 s", n)
		}
		a.Stop()
		if n := count(time.Second); n > 0 {
			t.Errorf("%d ticks after Stop", n)
		}
	})
}

// TestRest: a tick that comes a little before its moment is not followed by another at once.
func TestRest(t *testing.T) {
	for _, c := range []struct{ now, want time.Duration }{
		{0, 100}, {1, 99}, {49, 51}, {50, 150}, {99, 101},
	} {
		if got := rest(time.Unix(0, int64(c.now*time.Millisecond)), 100*time.Millisecond); got != c.want*time.Millisecond {
			t.Errorf("%d ms behind a multiple: %v", c.now, got)
		}
	}
}
