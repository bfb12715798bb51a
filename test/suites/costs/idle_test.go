package costs

import (
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// What idle partitions cost a node is above all being woken: each time costs a change of thread for
// whoever was waited for and for Go's monitor thread. Where Raft's timers came every minute, and
// its gauge every 10 s, 1,000 partitions made a node wait 400 times a second.
func TestIdlePartitionsWakeNobody(t *testing.T) {
	const (
		partitions = 500
		watched    = 10 * time.Second
		// Of threads that wait, a second and node: a machine of two cores counts 110 to 125.
		most = 180
	)
	bin, err := harness.PlainBinaries()
	if err != nil {
		t.Fatal(err)
	}
	c := harness.New(t, harness.Options{NoShim: true, Program: bin + "/trimaran"})
	if err := c.CreateTopic(t.Context(), "idle", partitions, 3); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitApplied(time.Minute); err != nil {
		t.Fatal(err)
	}
	counter := c.NodeCounter()
	var all []float64
	for range rounds {
		before, err := counter.Read()
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(watched) // nothing is waited for: that nothing happens is what is counted
		after, err := counter.Read()
		if err != nil {
			t.Fatal(err)
		}
		waits := float64(after.Minus(before).Waits) / watched.Seconds() / float64(len(c.Nodes))
		t.Logf("%d idle partitions: a node waits %.0f times a second", partitions, waits)
		if all = append(all, waits); waits <= most {
			return
		}
	}
	t.Errorf("none of %d rounds has at most %d waits a second and node: %.0f", rounds, most, all)
}
