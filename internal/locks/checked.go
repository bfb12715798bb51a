//go:build race

package locks

import (
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"sync"

	"github.com/petermattis/goid"
)

// A Mutex is a sync.Mutex of class C: the type that holds it.
type Mutex[C any] struct{ mu sync.Mutex }

// Lock panics when C is taken in an order that contradicts an earlier one.
func (m *Mutex[C]) Lock() {
	taking(classOf[C]())
	m.mu.Lock()
	taken(classOf[C](), m)
}

// TryLock takes the mutex if nobody has it. It never waits, so any order will do.
func (m *Mutex[C]) TryLock() bool {
	ok := m.mu.TryLock()
	if ok {
		taken(classOf[C](), m)
	}
	return ok
}

// Unlock gives the mutex back.
func (m *Mutex[C]) Unlock() {
	released(m)
	m.mu.Unlock()
}

// An RWMutex is a sync.RWMutex of class C: the type that holds it.
type RWMutex[C any] struct{ mu sync.RWMutex }

// Lock panics when C is taken in an order that contradicts an earlier one.
func (m *RWMutex[C]) Lock() {
	taking(classOf[C]())
	m.mu.Lock()
	taken(classOf[C](), m)
}

// Unlock gives the mutex back.
func (m *RWMutex[C]) Unlock() {
	released(m)
	m.mu.Unlock()
}

// RLock counts as Lock: a waiting writer makes readers wait, too.
func (m *RWMutex[C]) RLock() {
	taking(classOf[C]())
	m.mu.RLock()
	taken(classOf[C](), m)
}

// RUnlock gives back what RLock took.
func (m *RWMutex[C]) RUnlock() {
	released(m)
	m.mu.RUnlock()
}

// MayWait says that its caller is about to wait for a disk, the network or another goroutine. It
// panics when a mutex is held that is not Slow.
func MayWait(what string) {
	var some [4]holding
	for _, h := range heldHere(some[:0]) {
		if !h.class.slow {
			panic(fmt.Sprintf("locks: %s, with the mutex of %s held since\n%s", what, h.class, h.where()))
		}
	}
}

type class struct {
	t    reflect.Type
	slow bool
}

func (c class) String() string { return c.t.String() }

func classOf[C any]() class {
	t := reflect.TypeFor[C]()
	// of a pointer: nothing large is made for the question
	_, slow := any((*C)(nil)).(interface{ maySleep() })
	return class{t: t, slow: slow}
}

func (slow[C]) maySleep() {}

type holding struct {
	by    int64 // a goroutine
	class class
	mutex any
	pcs   [6]uintptr
}

func (h holding) where() string {
	var s string
	frames := runtime.CallersFrames(h.pcs[:])
	for {
		f, more := frames.Next()
		if f.PC != 0 {
			s += fmt.Sprintf("\t%s %s:%d\n", f.Function, f.File, f.Line)
		}
		if !more {
			return s
		}
	}
}

// slots keep what each goroutine holds. There are many, so that nearly always a goroutine has one
// for itself: a mutex that all share would order them, and hide from the race detector the very
// races it looks for.
var slots [1 << 14]slot

type slot struct {
	mu   sync.Mutex // guards held; nothing is taken under it
	held []holding  // in the order in which they were taken
}

func slotOf(g int64) *slot { return &slots[uint64(g)%uint64(len(slots))] }

// heldHere adds what this goroutine holds.
func heldHere(to []holding) []holding {
	g := goid.Get()
	s := slotOf(g)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.held {
		if s.held[i].by == g {
			to = append(to, s.held[i])
		}
	}
	return to
}

type pair struct{ first, second reflect.Type }

// orders has every pair of classes that was taken in this order, with the place where it was first.
var orders struct {
	known sync.Map   // pair to true; read without the mutex
	mu    sync.Mutex // guards after; nothing is taken under it
	after map[reflect.Type]map[reflect.Type]string
}

func taking(c class) {
	var some [4]holding
	for _, h := range heldHere(some[:0]) {
		if c.slow && !h.class.slow {
			panic(fmt.Sprintf("locks: %s, whose holder may wait, is taken with the mutex of %s held since\n%s", c, h.class, h.where()))
		}
		if h.class.t == c.t {
			panic(fmt.Sprintf("locks: two mutexes of %s at once: the first has been held since\n%s", c, h.where()))
		}
		if _, ok := orders.known.Load(pair{h.class.t, c.t}); !ok {
			learn(h, c)
		}
	}
}

// learn notes that c is taken after h, and panics if h was ever taken after c, directly or through
// others.
func learn(h holding, c class) {
	orders.mu.Lock()
	defer orders.mu.Unlock()
	if way := wayBetween(c.t, h.class.t, map[reflect.Type]bool{}); way != "" {
		panic(fmt.Sprintf("locks: %s is taken while %s is held since\n%sbut the other order was seen:\n%s", c, h.class, h.where(), way))
	}
	if orders.after == nil {
		orders.after = map[reflect.Type]map[reflect.Type]string{}
	}
	if orders.after[h.class.t] == nil {
		orders.after[h.class.t] = map[reflect.Type]string{}
	}
	now := holding{}
	runtime.Callers(4, now.pcs[:])
	orders.after[h.class.t][c.t] = now.where()
	orders.known.Store(pair{h.class.t, c.t}, true)
}

func wayBetween(from, to reflect.Type, seen map[reflect.Type]bool) string {
	seen[from] = true
	for next, where := range orders.after[from] {
		step := fmt.Sprintf("%s, then %s, at\n%s", from, next, where)
		if next == to {
			return step
		}
		if !seen[next] {
			if rest := wayBetween(next, to, seen); rest != "" {
				return step + rest
			}
		}
	}
	return ""
}

func taken(c class, mutex any) {
	h := holding{by: goid.Get(), class: c, mutex: mutex}
	runtime.Callers(3, h.pcs[:])
	s := slotOf(h.by)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = append(s.held, h)
}

// released forgets that the mutex is held, by this goroutine or, which package sync allows, by
// another one.
func released(mutex any) {
	g := goid.Get()
	if slotOf(g).forget(mutex, func(by int64) bool { return by == g }) {
		return
	}
	for i := range slots {
		if slots[i].forget(mutex, func(int64) bool { return true }) {
			return
		}
	}
}

// forget takes out what was taken last of the mutex, by a goroutine that fits.
func (s *slot) forget(mutex any, fits func(by int64) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.held) - 1; i >= 0; i-- {
		if s.held[i].mutex == mutex && fits(s.held[i].by) {
			s.held = slices.Delete(s.held, i, i+1)
			return true
		}
	}
	return false
}
