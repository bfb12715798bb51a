//go:build race

package locks

import (
	"strings"
	"sync"
	"testing"
)

type (
	first  struct{}
	second struct{}
	third  struct{}
	disk   struct{}
	reader struct{}
)

// complaint gives what a function panics with, as a goroutine of its own.
func complaint(f func()) (said string) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if r := recover(); r != nil {
				said = r.(string)
			}
		}()
		f()
	}()
	<-done
	return said
}

func TestOrderIsLearnedAndHeld(t *testing.T) {
	var a Mutex[first]
	var b RWMutex[second]
	var c Mutex[third]
	ab := func() { a.Lock(); b.RLock(); b.RUnlock(); a.Unlock() }
	bc := func() { b.Lock(); c.Lock(); c.Unlock(); b.Unlock() }
	for _, f := range []func(){ab, bc, ab} {
		if said := complaint(f); said != "" {
			t.Fatal(said)
		}
	}
	// Other instances, the other way round, and through a third.
	var a2 Mutex[first]
	var c2 Mutex[third]
	said := complaint(func() { c2.Lock(); defer c2.Unlock(); a2.Lock() })
	if !strings.Contains(said, "locks.first is taken while") || !strings.Contains(said, "locks.second, then") {
		t.Fatalf("said %q", said)
	}
	if said := complaint(func() {
		c2.Lock()
		defer c2.Unlock()
		if a2.TryLock() {
			a2.Unlock()
		}
	}); said != "" {
		t.Fatal("who does not wait may try in any order: ", said)
	}
}

func TestTwoOfAClass(t *testing.T) {
	var a, b Mutex[reader]
	if said := complaint(func() { a.Lock(); defer a.Unlock(); b.Lock() }); !strings.Contains(said, "two mutexes of locks.reader") {
		t.Fatalf("said %q", said)
	}
}

func TestWhoWaitsHoldsNoMutexThatReadersNeed(t *testing.T) {
	var d Slow[disk]
	var r Mutex[reader]
	if said := complaint(func() { d.Lock(); defer d.Unlock(); MayWait("sync") }); said != "" {
		t.Fatal(said)
	}
	if said := complaint(func() { r.Lock(); defer r.Unlock(); MayWait("sync") }); !strings.Contains(said, "sync, with the mutex of locks.reader held") {
		t.Fatalf("said %q", said)
	}
	if said := complaint(func() { r.Lock(); r.Unlock(); MayWait("sync") }); said != "" {
		t.Fatal(said)
	}
	// Whoever waits for a Slow mutex waits for what its holder waits for.
	if said := complaint(func() { r.Lock(); defer r.Unlock(); d.Lock() }); !strings.Contains(said, "whose holder may wait") {
		t.Fatalf("said %q", said)
	}
	if said := complaint(func() { d.Lock(); defer d.Unlock(); r.Lock(); r.Unlock() }); said != "" {
		t.Fatal(said)
	}
}

func TestAnotherGoroutineMayUnlock(t *testing.T) {
	var r Mutex[reader]
	r.Lock()
	var wg sync.WaitGroup
	wg.Go(r.Unlock)
	wg.Wait()
	MayWait("sync")
}

// TestACondition releases its mutex while it waits.
func TestACondition(t *testing.T) {
	var r Mutex[reader]
	c := sync.NewCond(&r)
	ready := false
	var wg sync.WaitGroup
	wg.Go(func() {
		r.Lock()
		defer r.Unlock()
		for !ready {
			c.Wait()
		}
	})
	r.Lock()
	ready = true
	r.Unlock()
	c.Broadcast()
	wg.Wait()
	MayWait("sync")
}

func BenchmarkLock(b *testing.B) {
	var a Mutex[first]
	for b.Loop() {
		a.Lock()
		a.Unlock()
	}
}
