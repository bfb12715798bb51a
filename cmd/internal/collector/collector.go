// Package collector sets how often Go's garbage collector runs in a process that has more to do
// than to collect.
package collector

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/trimaran-io/trimaran/internal/ticks"
)

// What a run of Go's garbage collector costs grows with the number of goroutines, of which a Raft
// group has seven, and how often it runs does not: a node with a thousand groups that ten busy ones
// keep allocating for spends a third of a core on it. The shim has next to nothing alive, so it
// runs after every few MB that pass. collector lets more garbage wait then, within bounds, and lets
// go of that memory when it is quiet.
type collector struct {
	most    int64 // bytes of garbage that may wait beyond what Go itself would allow
	least   int   // percent, within most
	percent int   // as set, see GOGC
}

const (
	collectorTick = 2 * time.Second
	// Shares of one core that the collector takes: above the one more garbage waits, below the
	// other less.
	collectorBusy = 0.05
	collectorIdle = 0.01
)

// GoPercent is Go's own default, see GOGC.
const GoPercent = 100

// Tune runs until ctx ends. At most so many bytes of garbage wait beyond what Go itself would
// allow, and not more than a sixteenth of the memory of the machine or of the control group; within
// that always least percent of what is alive, see GOGC. It leaves alone what an operator has set
// with GOGC.
func Tune(ctx context.Context, most int64, least int) {
	if os.Getenv("GOGC") != "" {
		return
	}
	// The start allocates much, and little of it stays.
	c := &collector{most: min(most, memory()/16), least: least, percent: 4 * GoPercent}
	debug.SetGCPercent(c.percent)
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		// Not what it takes while a core has nothing else to do.
		{Name: "/cpu/classes/gc/mark/assist:cpu-seconds"},
		{Name: "/cpu/classes/gc/mark/dedicated:cpu-seconds"},
		{Name: "/cpu/classes/gc/pause:cpu-seconds"},
	}
	var used float64
	at := time.Now()
	tick := ticks.New(collectorTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(samples)
		before, since := used, at
		used, at = 0, time.Now()
		for _, s := range samples[1:] {
			used += s.Value.Float64()
		}
		share := (used - before) / at.Sub(since).Seconds()
		if percent := c.next(int64(samples[0].Value.Uint64()), share); percent != c.percent {
			c.percent = percent
			debug.SetGCPercent(percent)
		}
	}
}

// next gives the percentage for the coming seconds, from the bytes in use and the share of a core
// that the collector took lately.
func (c *collector) next(live int64, share float64) int {
	percent := c.percent
	switch {
	case share > collectorBusy:
		// Twice as much garbage, half as many runs.
		percent = int(float64(percent) * min(share/collectorBusy, 4))
	case share < collectorIdle:
		percent -= percent / 4
	}
	most := GoPercent + int(100*c.most/max(live, 1<<20))
	return max(GoPercent, min(max(percent, c.least), most))
}
