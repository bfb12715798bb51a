// Package costs holds what one acknowledged record costs, counted in context switches, system calls
// and syncs of files, below bounds. Times are not looked at, nor how often the kernel gave the core
// to another thread: they depend on the machine and on what else runs there.
//
// You are here: the outside, with programs built as users have them. `make bench` prints the same
// counts and more (section counts of test/tools/bench).
package costs

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// bounds are per acknowledged request, over all nodes: about one and a half times what an idle
// machine of two cores counts, and twice for waits, the context switches of threads that wait for
// something, of which a busy one has more.
type bounds struct{ waits, reads, writes, syncs float64 }

func (b bounds) String() string {
	return fmt.Sprintf("%.1f waits, %.1f reads, %.1f writes, %.2f syncs", b.waits, b.reads, b.writes, b.syncs)
}

func (b bounds) within(most bounds) bool {
	return b.waits <= most.waits && b.reads <= most.reads && b.writes <= most.writes && b.syncs <= most.syncs
}

const (
	rounds   = 5   // of which one must be within the bounds: what else runs here only adds
	requests = 400 // of each round
)

func TestOneRecordAtATime(t *testing.T) {
	for _, got := range hold(t, 1<<10, 1, bounds{waits: 36, reads: 16, writes: 17, syncs: 3.2}) {
		// Two of three have it on stable storage before it is acknowledged, and nobody shares.
		if got.syncs < 2 {
			t.Errorf("%v for each record: it was acknowledged without a majority's sync", got)
		}
	}
}

// What a client has in flight is appended together: three nodes make 0.6 to 0.7 syncs for each of
// five requests then, and made 1.8 where appends were begun as requests came.
func TestFiveBatchesInFlight(t *testing.T) {
	hold(t, 16<<10, 5, bounds{waits: 16, reads: 8, writes: 4, syncs: 1.3})
}

// hold produces records of that size with so many requests in flight, in rounds, until one is
// within the bounds; it gives what was counted in each.
func hold(t *testing.T, size, inFlight int, most bounds) (all []bounds) {
	bin, err := harness.PlainBinaries()
	if err != nil {
		t.Fatal(err)
	}
	c := harness.New(t, harness.Options{NoShim: true, Program: bin + "/trimaran"})
	if err := c.CreateTopic(t.Context(), "costs", 1, 3); err != nil {
		t.Fatal(err)
	}
	leader, err := c.Leader("costs", 0, time.Minute) // another node would have one hop more
	if err != nil {
		t.Fatal(err)
	}
	w, err := harness.DialWire(leader.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	request := harness.Request(0, 0, 1, harness.ProduceBody("costs", 0, -1, 30_000, harness.Message(nil, 0, 0, nil, bytes.Repeat([]byte{'x'}, size))))
	exchange(t, w, request, requests, inFlight, produced) // the first find cold caches
	for range rounds {
		got := count(t, c, func() { exchange(t, w, request, requests, inFlight, produced) })
		all = append(all, got)
		t.Logf("%d bytes, %d in flight, for each request: %v", size, inFlight, got)
		if got.within(most) {
			return all
		}
	}
	t.Errorf("%d bytes, %d in flight: none of %d rounds is within %v for each request: %v", size, inFlight, rounds, most, all)
	return all
}

// exchange sends a request so many times, and reads the answers, which must be right.
func exchange(t *testing.T, w *harness.Wire, request []byte, times, inFlight int, right func(answer []byte) error) {
	t.Helper()
	w.Conn.SetDeadline(time.Now().Add(2 * time.Minute))
	for sent, answered := 0, 0; answered < times; {
		if sent < times && sent-answered < inFlight {
			if err := w.Send(request); err != nil {
				t.Fatal(err)
			}
			sent++
			continue
		}
		_, answer, err := w.ReadFrame()
		if err == nil {
			err = right(answer)
		}
		if err != nil {
			t.Fatal(err)
		}
		answered++
	}
}

// produced is nil if an answer about one partition has an offset.
func produced(answer []byte) error {
	_, err := harness.ReadProduce(answer)
	return err
}

// count gives what all nodes together did for each request of one round. It asks when no replica is
// behind, before and after, so that each sync belongs to a request.
func count(t *testing.T, c *harness.Cluster, round func()) (b bounds) {
	t.Helper()
	const syncs = "trimaran_log_flush_time_seconds_count"
	counter := c.NodeCounter()
	if err := c.WaitApplied(time.Minute); err != nil {
		t.Fatal(err)
	}
	metrics, err := c.Metrics(syncs)
	if err != nil {
		t.Fatal(err)
	}
	before, err := counter.Read()
	if err != nil {
		t.Fatal(err)
	}
	round()
	after, err := counter.Read()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WaitApplied(time.Minute); err != nil {
		t.Fatal(err)
	}
	later, err := c.Metrics(syncs)
	if err != nil {
		t.Fatal(err)
	}
	n := after.Minus(before)
	return bounds{float64(n.Waits) / requests, float64(n.Reads) / requests, float64(n.Writes) / requests, (later[syncs] - metrics[syncs]) / requests}
}
