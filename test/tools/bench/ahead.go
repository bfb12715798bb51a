package main

import (
	"fmt"
	"net"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// turns is how many short windows a window is divided into, for things that are measured in turns.
const turns = 8

// ahead measures what it is worth that a leader's sync lies beside its followers'. Two clusters run
// at the same time, one that does so and one that does not, and get load in turns for short
// windows: whatever else the machine does, it does to both. Nodes that share a disk wait for each
// other's syncs, so in memory a sync takes a time of its own, as with a disk for each.
func (b *bench) ahead() error {
	program, err := harness.MeasuringProgram()
	if err != nil {
		return err
	}
	disks := []struct {
		what, dir string
		env       []string
	}{{"one disk for three nodes", b.diskDir, nil}}
	if b.memoryDir != "" {
		disks = append(disks, struct {
			what, dir string
			env       []string
		}{"a disk for each, a sync takes 0.3 ms", b.memoryDir, append([]string{"TRIMARAN_TEST_SYNC=300us"}, small...)})
	}
	for _, d := range disks {
		fmt.Printf("  %s\n", d.what)
		err := b.with(d.dir, append([]string{"TRIMARAN_TEST_AHEAD=off"}, d.env...), program, func(before *harness.Cluster) error {
			return b.with(d.dir, d.env, program, func(beside *harness.Cluster) error {
				return b.compare(before, beside)
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// side is one of two clusters, and what was measured there.
type side struct {
	c      *harness.Cluster
	name   string
	leader *harness.Node
	topic  string
	sum    result
	counts counted
}

// compare gives both clusters the same loads in turns.
func (b *bench) compare(before, beside *harness.Cluster) error {
	sides := []*side{{c: before, name: "after it"}, {c: beside, name: "beside it"}}
	for _, s := range sides {
		var err error
		if s.topic, err = topic(s.c, "ahead", 1); err != nil {
			return err
		}
		if err = quiet(s.c); err != nil {
			return err
		}
		if s.leader, err = s.c.Leader(s.topic, 0, time.Minute); err != nil {
			return err
		}
	}
	for _, l := range []struct {
		what string
		load
	}{
		{"1 KB, one at a time", load{p: batch(1, false), inFlight: 1}},
		{"16 KB, one at a time", load{p: batch(16<<10, false), inFlight: 1}},
		{"16 KB, 5 in flight", load{p: batch(16<<10, false), inFlight: 5}},
		{"16 KB, 64 in flight", load{p: batch(16<<10, false), inFlight: 64}},
	} {
		l.partitions, l.conns = 1, 1
		for _, s := range sides {
			s.sum, s.counts = result{}, counted{}
		}
		for turn := range turns * b.windows {
			// A B B A
			s := sides[(turn+1)/2%2]
			if err := s.window(l.load, b.window/turns); err != nil {
				return err
			}
		}
		header()
		for _, s := range sides {
			s.sum.print(l.what + ", " + s.name)
		}
		countsHeader("")
		for _, s := range sides {
			s.counts.print(l.what + ", " + s.name)
		}
		a, z := sides[0], sides[1]
		per := func(n counted, of float64) float64 { return of / float64(max(1, n.times)) }
		fmt.Printf("  beside what it is after it: p50 %.2f, MB/s %.2f, switches %.2f, CPU %.2f\n",
			float64(quantile(z.sum.latency, 0.5))/float64(quantile(a.sum.latency, 0.5)), z.sum.mbs()/a.sum.mbs(),
			per(z.counts, float64(z.counts.Switches()))/per(a.counts, float64(a.counts.Switches())), z.sum.cpuPerMB()/a.sum.cpuPerMB())
	}
	return nil
}

// window is one turn of a side.
func (s *side) window(l load, window time.Duration) error {
	l.topic = s.topic
	w := way{"TCP", func() (net.Conn, error) { return net.Dial("tcp", s.leader.Addr()) }, nil}
	// The first requests find cold caches and connections.
	if _, err := l.produce(s.c, w, window/8); err != nil {
		return err
	}
	n, err := counting(s.c, func() (int, error) {
		r, err := l.produce(s.c, w, window)
		s.sum.add(r)
		return r.records / l.p.records, err
	})
	s.counts.add(n)
	return err
}

func (r *result) add(o result) {
	r.bytes += o.bytes
	r.records += o.records
	r.took += o.took
	r.used.cpu += o.used.cpu
	r.used.wrote += o.used.wrote
	r.latency = append(r.latency, o.latency...)
}

func (n *counted) add(o counted) {
	n.times += o.times
	n.took += o.took
	n.syncs += o.syncs
	n.messages += o.messages
	n.sends += o.sends
	n.CPU += o.CPU
	n.Waits += o.Waits
	n.Preempted += o.Preempted
	n.Reads += o.Reads
	n.Writes += o.Writes
}
