package soon

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fake is an alarm in virtual time.
type fake struct {
	mu      sync.Mutex
	timer   *time.Timer
	rings   chan bool
	changes int
	closed  atomic.Int32
}

func newFake() *fake { return &fake{rings: make(chan bool, 100)} }

func (f *fake) set(at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes++
	if f.timer != nil {
		f.timer.Stop()
	}
	if !at.IsZero() {
		f.timer = time.AfterFunc(time.Until(at), func() { f.rings <- true })
	}
}

func (f *fake) wait() bool { return <-f.rings }

func (f *fake) close() {
	f.closed.Add(1)
	f.rings <- false
}

// in runs a test with a clock in virtual time, which is closed at the end.
func in(t *testing.T, test func(t *testing.T, c *Clock, f *fake)) {
	synctest.Test(t, func(t *testing.T) {
		c, f := &Clock{}, newFake()
		c.begin(f)
		test(t, c, f)
		c.Close()
	})
}

// ran notes when functions ran.
type ran struct {
	mu    sync.Mutex
	began time.Time
	at    []time.Duration
}

func (r *ran) now() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = append(r.at, time.Since(r.began))
}

func (r *ran) want(t *testing.T, want ...time.Duration) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.at, want) {
		t.Errorf("functions ran at %v, want %v", r.at, want)
	}
}

func TestTimersComeInTheirOrder(t *testing.T) {
	in(t, func(t *testing.T, c *Clock, _ *fake) {
		r := &ran{began: time.Now()}
		for _, d := range []time.Duration{300, 100, 200, 100, 500} {
			c.After(d*time.Microsecond, r.now)
		}
		time.Sleep(time.Millisecond)
		r.want(t, 100*time.Microsecond, 100*time.Microsecond, 200*time.Microsecond, 300*time.Microsecond, 500*time.Microsecond)
	})
}

// What is stopped does not run, and where nothing is left the alarm does not ring.
func TestAStoppedTimerWakesNobody(t *testing.T) {
	in(t, func(t *testing.T, c *Clock, f *fake) {
		r := &ran{began: time.Now()}
		a, b := c.After(100*time.Microsecond, r.now), c.After(200*time.Microsecond, r.now)
		if !a.Stop() || a.Stop() {
			t.Error("it is stopped once")
		}
		time.Sleep(300 * time.Microsecond)
		r.want(t, 200*time.Microsecond)
		if b.Stop() {
			t.Error("it is stopped after it has run")
		}
		if !c.After(100*time.Microsecond, r.now).Stop() {
			t.Error("it is not stopped")
		}
		time.Sleep(time.Millisecond)
		r.want(t, 200*time.Microsecond)
		if len(f.rings) > 0 {
			t.Error("the alarm rings for nothing")
		}
	})
}

// Nothing is forgotten when the clock is closed, and it can be asked for more.
func TestCloseRunsWhatIsLeft(t *testing.T) {
	in(t, func(t *testing.T, c *Clock, _ *fake) {
		r := &ran{began: time.Now()}
		c.After(time.Hour, r.now)
		c.Close()
		r.want(t, 0)
		c.After(time.Millisecond, r.now)
		time.Sleep(time.Second)
		r.want(t, 0, time.Millisecond)
	})
}

// An alarm that fails, as one does that the runtime cannot wait for, is not relied on: nothing is
// forgotten, and what is asked for later comes without it.
func TestAnAlarmThatFails(t *testing.T) {
	in(t, func(t *testing.T, c *Clock, f *fake) {
		r := &ran{began: time.Now()}
		c.After(time.Hour, r.now)
		f.rings <- false
		synctest.Wait()
		r.want(t, 0)
		c.After(time.Millisecond, r.now)
		if !c.After(time.Millisecond, r.now).Stop() {
			t.Error("it is not stopped")
		}
		time.Sleep(time.Second)
		r.want(t, 0, time.Millisecond)
		if n := f.closed.Load(); n != 1 {
			t.Errorf("it is closed %d times", n)
		}
	})
}

// The machine's own alarm rings, never too early.
func TestTheAlarmOfThisMachine(t *testing.T) {
	var c Clock
	defer c.Close()
	for _, d := range []time.Duration{0, 1, 150 * time.Microsecond, 2 * time.Millisecond} {
		began := time.Now()
		ran := make(chan time.Duration)
		c.After(d, func() { ran <- time.Since(began) })
		if took := <-ran; took < d {
			t.Errorf("%v was over after %v", d, took)
		}
	}
	if c.After(time.Hour, func() {}).Stop() != true {
		t.Error("it is not stopped")
	}
}
