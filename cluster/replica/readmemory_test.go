package replica

import (
	"bytes"
	"runtime"
	"testing"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
)

func TestMemoryForReadsComesInSizes(t *testing.T) {
	before := 0
	for n := leastReused; n <= mostReused; n += 1 << 10 {
		class, size, ok := reuseClass(n)
		if !ok || class < 0 || class >= reuseClasses || size < n || size > n+n/reuseSteps+leastReused/reuseSteps {
			t.Fatalf("%d bytes: class %d, size %d, %v", n, class, size, ok)
		}
		if again, same, _ := reuseClass(size); again != class || same != size {
			t.Fatalf("%d bytes: class %d of %d, and that is class %d of %d", n, class, size, again, same)
		}
		if class < before {
			t.Fatalf("%d bytes: class %d behind %d", n, class, before)
		}
		before = class
	}
	for _, n := range []int{0, leastReused - 1, mostReused + 1} {
		if b, done := memoryFor(n); cap(b) < n || done != nil {
			t.Errorf("%d bytes: %d, to be given back %v", n, cap(b), done != nil)
		}
	}
}

// Giving memory back twice must not let two have it.
func TestMemoryIsGivenBackOnce(t *testing.T) {
	_, done := memoryFor(leastReused)
	done()
	done()
	a, _ := memoryFor(leastReused)
	b, _ := memoryFor(leastReused)
	if a, b := a[:1], b[:1]; &a[0] == &b[0] {
		t.Error("two have the same memory")
	}
}

// What a read of a megabyte allocates is counted, which does not depend on how fast the machine is.
func TestAReadTakesNoNewMemory(t *testing.T) {
	s := newTestSet(t, nil)
	id := s.topic("a", nil)
	r := s.led(id)
	value := string(bytes.Repeat([]byte{7}, 16<<10))
	for range 80 {
		if _, err := r.Append(within(t), 0, []kafkaproto.Batch{prototest.Batch(value)}); err != nil {
			t.Fatal(err)
		}
	}
	const most = 1 << 20
	read := func() {
		slice, ok, err := r.ReadHere(fsm.Offset(0), most, fsm.ReadUncommitted)
		if err != nil || !ok || len(slice.Batches) < most-2*len(value) {
			t.Fatalf("%d bytes, %v, %v", len(slice.Batches), ok, err)
		}
		slice.Done()
	}
	const reads, bound = 50, 128 << 10
	var before, after runtime.MemStats
	for range 2 {
		read() // the first finds no memory
	}
	runtime.ReadMemStats(&before)
	for range reads {
		read()
	}
	runtime.ReadMemStats(&after)
	// In race builds a pool forgets a quarter of what it is given.
	limit := uint64(bound)
	if raceBuild {
		limit = most
	}
	if each := (after.TotalAlloc - before.TotalAlloc) / reads; each > limit {
		t.Errorf("a read of %d bytes allocates %d, more than %d", most, each, limit)
	}
}
