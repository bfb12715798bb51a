package tenure

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func (t *Tenure) set() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.timers)
}

// TestTimers run once for each time they are set, and are forgotten behind that.
func TestTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := New()
		defer x.End()
		var ran atomic.Int32
		timer := x.After(time.Second, func() { ran.Add(1) })
		x.After(time.Second, func() { t.Error("stopped, and it ran") }).Stop()
		time.Sleep(500 * time.Millisecond)
		timer.Reset(time.Second)
		time.Sleep(900 * time.Millisecond)
		if ran.Load() != 0 || x.set() != 1 {
			t.Errorf("ran %d times before it is due, %d timers are set", ran.Load(), x.set())
		}
		time.Sleep(200 * time.Millisecond)
		if ran.Load() != 1 || x.set() != 0 {
			t.Errorf("ran %d times, %d timers are set", ran.Load(), x.set())
		}
		timer.Reset(time.Second)
		if x.set() != 1 {
			t.Errorf("%d timers are set", x.set())
		}
		time.Sleep(2 * time.Second)
		timer.Stop()
		(*Timer)(nil).Stop()
		if ran.Load() != 2 || x.set() != 0 {
			t.Errorf("ran %d times, %d timers are set", ran.Load(), x.set())
		}
	})
}

// TestATimerThatSetsItselfAnew is what sessions of members do.
func TestATimerThatSetsItselfAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := New()
		var ran atomic.Int32
		var timer atomic.Pointer[Timer]
		timer.Store(x.After(time.Second, func() { ran.Add(1); timer.Load().Reset(time.Second) }))
		time.Sleep(10*time.Second + time.Millisecond)
		x.End()
		time.Sleep(time.Hour)
		if ran.Load() != 10 || x.set() != 0 {
			t.Errorf("ran %d times, %d timers are set", ran.Load(), x.set())
		}
	})
}

// TestEnd waits for what runs, stops what is to run, and lets nothing begin.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := New()
		var over atomic.Int32
		work := func() { <-x.Context().Done(); time.Sleep(time.Second); over.Add(1) }
		if !x.Begin() {
			t.Fatal("it has not begun")
		}
		x.Go(work)
		x.Done()
		x.After(time.Millisecond, work)
		late := x.After(time.Minute, func() { t.Error("a timer outlived its tenure") })
		time.Sleep(time.Second)
		x.End()
		if over.Load() != 2 || !x.Over() || x.Begin() {
			t.Errorf("%d are over, over %v", over.Load(), x.Over())
		}
		late.Reset(time.Second)
		x.After(time.Second, func() { t.Error("a timer was set after the end") }).Stop()
		if x.set() != 0 {
			t.Errorf("%d timers are set", x.set())
		}
		time.Sleep(time.Hour)
	})
}

// TestManyAtOnce: timers are set, stopped and run while the tenure ends.
func TestManyAtOnce(t *testing.T) {
	x := New()
	done := make(chan struct{})
	for range 8 {
		go func() {
			defer func() { done <- struct{}{} }()
			timer := x.After(0, func() {})
			for !x.Over() {
				timer.Reset(0)
				timer.Stop()
				timer.Reset(time.Microsecond)
			}
		}()
	}
	time.AfterFunc(20*time.Millisecond, x.End)
	for range 8 {
		<-done
	}
	x.End()
	if x.set() != 0 {
		t.Errorf("%d timers are set", x.set())
	}
}
