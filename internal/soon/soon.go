// Package soon has timers for less than a millisecond.
//
// You are here: below everything; anyone may use this package, it uses nobody.
//
// Go's own timers come late where a process is idle: the runtime then waits for them in epoll_wait,
// whose timeout is whole milliseconds (runtime.netpoll makes one of anything shorter). What a
// thread sleeps in a system call may be a millisecond longer than it asks for in a node, by its
// timer slack (cmd/internal/monitor), and keeps a processor. A timerfd has no slack, and the thread
// that waits for the network waits for it, too.
//
// Where there is never a processor without something to run, the runtime looks at the network each
// 10 ms only, and a timer here comes as late as what the network brings; Go's own do not.
package soon

import (
	"slices"
	"time"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// Clock has any number of timers, and one alarm for all of them. Its zero value is ready for use.
type Clock struct {
	mu      locks.Mutex[Clock] // guards the rest; nothing is taken under it
	pending []*Timer           // in the order in which they come
	alarm   alarm              // nil: none is needed yet, or there is none
	none    bool               // there can be no alarm, or it rings no more
	done    chan struct{}      // closed when nobody waits for the alarm any more
}

// alarm wakes who waits for it.
type alarm interface {
	// set has it ring once at that time, and not at those that it was set to before; never for the
	// zero value. It does not wait.
	set(at time.Time)
	// wait waits until it rings, and says whether it can ring again.
	wait() bool
	// close has wait return false.
	close()
}

// Timer is a function that runs later.
type Timer struct {
	clock  *Clock
	at     time.Time
	f      func()
	coarse *time.Timer // Go's own, where the clock has no alarm
}

// After runs f when d is over, in a goroutine that others wait for: f must not wait.
func (c *Clock) After(d time.Duration, f func()) *Timer {
	t := &Timer{clock: c, at: time.Now().Add(d), f: f}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.alarm == nil && !c.none {
		if a := newAlarm(); a != nil {
			c.begin(a)
		}
		c.none = c.alarm == nil
	}
	if c.none {
		t.coarse = time.AfterFunc(d, f)
		return t
	}
	i := len(c.pending) // mostly the new one comes last
	for i > 0 && c.pending[i-1].at.After(t.at) {
		i--
	}
	c.pending = slices.Insert(c.pending, i, t)
	if i == 0 {
		c.alarm.set(t.at)
	}
	return t
}

// begin gives the clock its alarm.
func (c *Clock) begin(a alarm) {
	c.alarm, c.done = a, make(chan struct{})
	go c.run(a)
}

// Stop says whether the function is kept from running.
func (t *Timer) Stop() bool {
	if t.coarse != nil {
		return t.coarse.Stop()
	}
	c := t.clock
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.pending, t)
	if i < 0 {
		return false
	}
	c.pending = slices.Delete(c.pending, i, i+1)
	if len(c.pending) == 0 && c.alarm != nil {
		c.alarm.set(time.Time{}) // who waits for it is not woken for nothing
	}
	return true
}

// run runs functions whose time has come.
func (c *Clock) run(a alarm) {
	defer close(c.done)
	for more := true; more; {
		more = a.wait()
		c.mu.Lock()
		broken := !more && c.alarm != nil // nobody has closed it
		if broken {
			c.none, c.alarm = true, nil
		}
		now := time.Now()
		n := 0
		for n < len(c.pending) && (!more || !c.pending[n].at.After(now)) {
			n++
		}
		due := slices.Clone(c.pending[:n])
		c.pending = slices.Delete(c.pending, 0, n)
		if c.alarm != nil && len(c.pending) > 0 {
			a.set(c.pending[0].at)
		}
		c.mu.Unlock()
		if broken {
			a.close()
		}
		for _, t := range due {
			t.f()
		}
	}
}

// Close has what is still to come by the alarm run at once, and returns when it has. Whatever is
// asked for later comes by Go's own timers.
func (c *Clock) Close() {
	c.mu.Lock()
	a, done := c.alarm, c.done
	c.none, c.alarm = true, nil
	c.mu.Unlock()
	if a != nil {
		a.close()
	}
	if done != nil {
		<-done
	}
}
