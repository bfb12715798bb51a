//go:build race

package locks

import (
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/petermattis/goid"
)

// A Mutex is a sync.Mutex of class C: the type that holds it.
type Mutex[C any] struct {
	mu sync.Mutex
	by int64 // the goroutine that took it; guarded by mu
}

// Lock panics when C is taken in an order that contradicts an earlier one.
func (m *Mutex[C]) Lock() {
	h := holding{by: goid.Get(), class: classOf[C](), mutex: m}
	runtime.Callers(2, h.at[:])
	taking(h)
	m.mu.Lock()
	m.by = h.by
}

// TryLock takes the mutex if nobody has it. It never waits, so any order will do.
func (m *Mutex[C]) TryLock() bool {
	ok := m.mu.TryLock()
	if ok {
		h := holding{by: goid.Get(), class: classOf[C](), mutex: m}
		runtime.Callers(2, h.at[:])
		taken(h)
		m.by = h.by
	}
	return ok
}

// Unlock gives the mutex back.
func (m *Mutex[C]) Unlock() {
	slotOf(m.by).forget(m, m.by)
	m.mu.Unlock()
}

// An RWMutex is a sync.RWMutex of class C: the type that holds it.
type RWMutex[C any] struct {
	mu sync.RWMutex
	by int64 // the goroutine that took it for itself; guarded by mu
}

// Lock panics when C is taken in an order that contradicts an earlier one.
func (m *RWMutex[C]) Lock() {
	h := holding{by: goid.Get(), class: classOf[C](), mutex: m}
	runtime.Callers(2, h.at[:])
	taking(h)
	m.mu.Lock()
	m.by = h.by
}

// Unlock gives the mutex back.
func (m *RWMutex[C]) Unlock() {
	slotOf(m.by).forget(m, m.by)
	m.mu.Unlock()
}

// RLock counts as Lock: a waiting writer makes readers wait, too.
func (m *RWMutex[C]) RLock() {
	h := holding{by: goid.Get(), class: classOf[C](), mutex: m}
	runtime.Callers(2, h.at[:])
	check(h)
	m.mu.RLock()
	taken(h)
}

// RUnlock gives back what RLock took, in this goroutine or, which package sync allows, in another.
func (m *RWMutex[C]) RUnlock() {
	if g := goid.Get(); !slotOf(g).forget(m, g) {
		for i := range slots {
			if slots[i].forget(m, anyone) {
				break
			}
		}
	}
	m.mu.RUnlock()
}

// MayWait says that its caller is about to wait for a disk, the network or another goroutine. It
// panics when a mutex is held that is not Slow.
func MayWait(what string) {
	g := goid.Get()
	s := slotOf(g)
	s.mu.Lock()
	for _, h := range s.held {
		if h.by == g && !h.class.slow {
			s.mu.Unlock()
			panic(fmt.Sprintf("locks: %s, with the mutex of %s held since\n%s", what, h.class, h.where()))
		}
	}
	s.mu.Unlock()
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

// holding is a mutex that a goroutine holds, or waits for. Where it was taken is for whoever reads
// a panic, which shows the goroutine's stack besides: to find more frames each time would cost more
// than all the rest here.
type holding struct {
	by    int64 // a goroutine
	class class
	mutex any
	at    [1]uintptr // in whose code
}

func (h *holding) where() string { return where(h.at[:]) }

func where(pcs []uintptr) string {
	var s string
	frames := runtime.CallersFrames(pcs)
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
// races it looks for. They are on the heap: the race detector begins anew from time to time, and
// forgets then what was done to the heap, but not to variables of packages; each use of those is a
// race in question after that, for which it searches its whole history.
var slots []slot

func init() { slots = make([]slot, 1<<14) }

type slot struct {
	mu   brief     // guards held; only that of orders is taken under it
	held []holding // in the order in which they were taken
}

// brief is a mutex that is nearly always free. One of package sync costs twice as much with the
// race detector.
type brief struct{ taken atomic.Bool }

func (b *brief) Lock() {
	for !b.taken.CompareAndSwap(false, true) {
		runtime.Gosched()
	}
}

func (b *brief) Unlock() { b.taken.Store(false) }

func slotOf(g int64) *slot { return &slots[uint64(g)%uint64(len(slots))] }

type pair struct{ first, second reflect.Type }

// orders has every pair of classes that was taken in this order, with the place where it was first.
var orders struct {
	known sync.Map   // pair to true; read without the mutex
	mu    sync.Mutex // guards after; nothing is taken under it
	after map[reflect.Type]map[reflect.Type]string
}

// taking checks whether a goroutine may take a mutex, and notes that it has it: until it does, it
// only waits.
func taking(h holding) {
	s := slotOf(h.by)
	s.mu.Lock()
	wrong := s.wrong(h.by, h.class)
	if wrong == "" {
		s.held = append(s.held, h)
	}
	s.mu.Unlock()
	if wrong != "" {
		panic(wrong)
	}
}

// check is taking without the note.
func check(h holding) {
	s := slotOf(h.by)
	s.mu.Lock()
	wrong := s.wrong(h.by, h.class)
	s.mu.Unlock()
	if wrong != "" {
		panic(wrong)
	}
}

// wrong says why a goroutine must not take a mutex of a class; "": it may. The slot's mutex is
// held.
func (s *slot) wrong(g int64, c class) string {
	for i := range s.held {
		h := &s.held[i]
		if h.by != g {
			continue
		}
		if c.slow && !h.class.slow {
			return fmt.Sprintf("locks: %s, whose holder may wait, is taken with the mutex of %s held since\n%s", c, h.class, h.where())
		}
		if h.class.t == c.t {
			return fmt.Sprintf("locks: two mutexes of %s at once: the first has been held since\n%s", c, h.where())
		}
		if _, ok := orders.known.Load(pair{h.class.t, c.t}); !ok {
			if wrong := learn(h, c); wrong != "" {
				return wrong
			}
		}
	}
	return ""
}

// learn notes that c is taken after h, and says so if h was ever taken after c, directly or through
// others.
func learn(h *holding, c class) (wrong string) {
	orders.mu.Lock()
	defer orders.mu.Unlock()
	if way := wayBetween(c.t, h.class.t, map[reflect.Type]bool{}); way != "" {
		return fmt.Sprintf("locks: %s is taken while %s is held since\n%sbut the other order was seen:\n%s", c, h.class, h.where(), way)
	}
	if orders.after == nil {
		orders.after = map[reflect.Type]map[reflect.Type]string{}
	}
	if orders.after[h.class.t] == nil {
		orders.after[h.class.t] = map[reflect.Type]string{}
	}
	var now [8]uintptr
	runtime.Callers(5, now[:])
	orders.after[h.class.t][c.t] = where(now[:])
	orders.known.Store(pair{h.class.t, c.t}, true)
	return ""
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

// taken notes that a goroutine has a mutex.
func taken(h holding) {
	s := slotOf(h.by)
	s.mu.Lock()
	s.held = append(s.held, h)
	s.mu.Unlock()
}

// anyone stands for whichever goroutine has a mutex.
const anyone = -1

// forget takes out what was taken last of the mutex by a goroutine, and reports whether it was
// there.
func (s *slot) forget(mutex any, by int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.held) - 1; i >= 0; i-- {
		if h := &s.held[i]; h.mutex == mutex && (h.by == by || by == anyone) {
			s.held = slices.Delete(s.held, i, i+1)
			return true
		}
	}
	return false
}
