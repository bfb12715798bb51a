package replica

import (
	"math/bits"
	"sync"
)

// What reads give is mostly as large as a fetch may ask for, a megabyte by default, and gone a
// moment later. New memory of that size is cleared first, costs a page fault for each 4 KiB where
// it was given back to the system, and brings the next run of the garbage collector nearer:
// together as much as the copying. So such memory is used again.
const (
	// From leastReused to mostReused bytes; what is larger is rare, and should not stay.
	leastReused = 32 << 10
	mostReused  = 4 << 20
	// reuseSteps is into how many sizes a doubling is divided, so that at most a quarter is unused.
	reuseSteps = 4
)

// readMemory is memory that was read into and is not used now, by size. Go's garbage collector
// takes what nobody has used for a while.
var readMemory [reuseClasses]sync.Pool

const reuseClasses = 1 + reuseSteps*7 // 7 doublings from leastReused to mostReused

// reuseClass gives the class of so many bytes, and how many all of it have; ok is false for none.
func reuseClass(n int) (class, size int, ok bool) {
	if n < leastReused || n > mostReused {
		return 0, 0, false
	}
	units := (n - 1) / (leastReused / reuseSteps) // of a quarter of the least, less one at the end
	shift := max(bits.Len(uint(units))-bits.Len(uint(reuseSteps)), 0)
	step := leastReused / reuseSteps << shift
	size = (n + step - 1) / step * step
	return shift*reuseSteps + size/step - reuseSteps, size, true
}

// memoryFor gives an empty slice with room for n bytes, and what to call, once or not at all, when
// nobody uses these any more; nil if that makes no difference.
func memoryFor(n int) (b []byte, done func()) {
	class, size, ok := reuseClass(n)
	if !ok {
		return make([]byte, 0, n), nil
	}
	whole, _ := readMemory[class].Get().(*[]byte)
	if whole == nil {
		fresh := make([]byte, size)
		whole = &fresh
	}
	return (*whole)[:0], func() {
		if whole == nil {
			return
		}
		spoil(*whole)
		readMemory[class].Put(whole)
		whole = nil
	}
}
