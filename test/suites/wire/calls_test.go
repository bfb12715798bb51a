package wire

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// systemCalls is how often a process has called the kernel to read and to write.
func systemCalls(t *testing.T, pid int) (calls int) {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/io")
	if err != nil {
		t.Skipf("the kernel does not tell: %v", err)
	}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ": ")
		if name == "syscr" || name == "syscw" {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil {
				t.Fatal(err)
			}
			calls += n
		}
	}
	return calls
}

// What a node asks of the kernel for each megabyte that a client fetches is counted: some preads,
// writes of 256 KiB, which may find the connection full, and what nodes tell each other meanwhile.
func TestReadsAndWritesPerMegabyteFetched(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("counted in /proc")
	}
	const (
		batches, size = 32, 1 << 20
		rounds        = 8
		most          = 40 // reads and writes per MB
	)
	c := harness.New(t, harness.Options{NoShim: true})
	topic := harness.Topic("calls")
	create(t, c, topic, 1)
	w := dial(t, c.Node(1).Addr())
	w.Conn.SetDeadline(time.Now().Add(2 * time.Minute))
	var set []byte
	for len(set) < size {
		set = harness.Message(set, 0, 0, nil, bytes.Repeat([]byte("x"), 64<<10))
	}
	for range batches {
		if _, err := w.ProduceSet(topic, 0, -1, 30*time.Second, set); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.WaitApplied(time.Minute); err != nil {
		t.Fatal(err)
	}
	fetch := func() (bytes int) {
		for next := int64(0); ; {
			answer, err := w.Do(1, 4, fetchBody4(topic, next, 1<<20))
			if err != nil {
				t.Fatal(err)
			}
			set := records4(t, answer)
			if len(set) == 0 {
				return bytes
			}
			bytes += len(set)
			next = nextOffset(t, set)
		}
	}
	fetch() // cold caches
	before, total := systemCalls(t, c.Node(1).Pid()), 0
	for range rounds {
		total += fetch()
	}
	calls := systemCalls(t, c.Node(1).Pid()) - before
	each := float64(calls) / (float64(total) / (1 << 20))
	t.Logf("%d bytes, %.1f reads and writes per MB", total, each)
	if total < rounds*batches*size {
		t.Errorf("%d bytes are there, want %d", total, rounds*batches*size)
	}
	if each > most {
		t.Errorf("%.1f reads and writes per MB, at most %d", each, most)
	}
}

// fetchBody4 is a Fetch v4 request for partition 0 that does not wait.
func fetchBody4(topic string, from int64, maxBytes int32) []byte {
	b := harness.Int32(harness.Int32(harness.Int32(nil, -1), 0), 0) // replica, wait, least bytes
	b = harness.Int8(harness.Int32(b, 50<<20), 0)                   // most bytes, isolation
	b = harness.Str(harness.Int32(b, 1), topic)
	b = harness.Int64(harness.Int32(harness.Int32(b, 1), 0), from)
	return harness.Int32(b, maxBytes)
}

// records4 takes the records out of the answer of a Fetch v4 for one partition.
func records4(t *testing.T, answer []byte) []byte {
	t.Helper()
	r := harness.Reader{B: answer}
	r.Int32() // throttled for
	r.Int32() // one topic
	r.Str()
	r.Int32() // one partition
	r.Int32()
	code := r.Int16()
	r.Int64() // high watermark
	r.Int64() // last stable offset
	r.Int32() // aborted transactions
	set := r.Bytes()
	if err := r.End(); err != nil || code != 0 {
		t.Fatalf("error %d, %v", code, err)
	}
	return set
}

// nextOffset is what comes behind the last of some record batches.
func nextOffset(t *testing.T, set []byte) (next int64) {
	t.Helper()
	for len(set) > 0 {
		r := harness.Reader{B: set}
		base, length := r.Int64(), r.Int32()
		r.Int32() // leader epoch
		r.Int8()  // magic
		r.Int32() // CRC
		r.Int16() // attributes
		next = base + int64(r.Int32()) + 1
		if r.Err != nil || int(length)+12 > len(set) {
			t.Fatalf("a cut batch: %v", r.Err)
		}
		set = set[12+length:]
	}
	return next
}
