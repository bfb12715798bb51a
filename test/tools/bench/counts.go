package main

import (
	"fmt"
	"net"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// What is counted beside what the kernel counts: syncs of files, messages between nodes and the
// system calls that sent them.
const (
	syncsMetric    = "trimaran_log_flush_time_seconds_count"
	messagesMetric = "trimaran_peer_messages_out_total"
	sendsMetric    = "trimaran_peer_writes_total"
)

// counted is what all nodes together did in a window.
type counted struct {
	harness.Counts
	took                   time.Duration
	syncs, messages, sends float64
	times                  int // acknowledged requests, by which all is divided
}

// counting runs a window and gives what it took.
func counting(c *harness.Cluster, window func() (requests int, err error)) (n counted, err error) {
	counter := c.NodeCounter()
	read := func() (harness.Counts, map[string]float64, error) {
		m, err := c.Metrics(syncsMetric, messagesMetric, sendsMetric)
		if err != nil {
			return harness.Counts{}, nil, err
		}
		k, err := counter.Read()
		return k, m, err
	}
	before, metrics, err := read()
	if err != nil {
		return n, err
	}
	start := time.Now()
	if n.times, err = window(); err != nil {
		return n, err
	}
	n.took = time.Since(start)
	// The kernel's counts first: asking for the metrics is work, too.
	after, err := counter.Read()
	if err != nil {
		return n, err
	}
	n.Counts = after.Minus(before)
	later, err := c.Metrics(syncsMetric, messagesMetric, sendsMetric)
	n.syncs, n.messages, n.sends = later[syncsMetric]-metrics[syncsMetric], later[messagesMetric]-metrics[messagesMetric], later[sendsMetric]-metrics[sendsMetric]
	return n, err
}

func countsHeader(what string) {
	fmt.Printf("  %-34s %9s %9s %10s %8s %8s %8s %9s %9s\n", what, "per s", "switches", "preempted", "reads", "writes", "syncs", "messages", "CPU")
}

func (n counted) print(what string) {
	by := float64(max(1, n.times))
	fmt.Printf("  %-34s %9.0f %9.1f %10.1f %8.1f %8.1f %8.2f %9.1f %6.2f ms\n", what, float64(n.times)/n.took.Seconds(), float64(n.Switches())/by, float64(n.Preempted)/by,
		float64(n.Reads)/by, float64(n.Writes)/by, n.syncs/by, n.messages/by, float64(n.CPU.Microseconds())/1000/by)
}

// counts says what a record, or a batch, costs in things that can be counted: they say where the
// time goes, and depend on the machine's mood far less than time does. What the nodes do without
// any client is in it, and shown by itself.
func (b *bench) counts() error {
	return b.with(b.diskDir, nil, "", func(c *harness.Cluster) error {
		t, err := topic(c, "counts", 1)
		if err != nil {
			return err
		}
		if err := quiet(c); err != nil {
			return err
		}
		leader, err := c.Leader(t, 0, time.Minute)
		if err != nil {
			return err
		}
		other := c.Nodes[0]
		if other == leader {
			other = c.Nodes[1]
		}
		to := func(n *harness.Node) way {
			return way{"TCP", func() (net.Conn, error) { return net.Dial("tcp", n.Addr()) }, nil}
		}
		idle, err := counting(c, func() (int, error) { time.Sleep(b.window); return 0, nil })
		if err != nil {
			return err
		}
		s := idle.took.Seconds()
		fmt.Printf("  without a client, a second: %.0f switches, %.0f reads, %.0f writes, %.1f syncs, %.0f messages, CPU %.1f ms\n", float64(idle.Switches())/s,
			float64(idle.Reads)/s, float64(idle.Writes)/s, idle.syncs/s, idle.messages/s, float64(idle.CPU.Microseconds())/1000/s)
		countsHeader("of all nodes, for each request:")
		for _, l := range []struct {
			what string
			at   *harness.Node
			load
		}{
			{"1 KB, one at a time, 200/s", leader, load{p: batch(1, false), inFlight: 1, perSecond: 200}},
			{"  the same, not to the leader", other, load{p: batch(1, false), inFlight: 1, perSecond: 200}},
			{"1 KB, one at a time, 500/s", leader, load{p: batch(1, false), inFlight: 1, perSecond: 500}},
			{"1 KB, one at a time, 1000/s", leader, load{p: batch(1, false), inFlight: 1, perSecond: 1000}},
			{"1 KB, one at a time, no pause", leader, load{p: batch(1, false), inFlight: 1}},
			{"16 KB, 5 in flight", leader, load{p: batch(16<<10, false), inFlight: 5}},
			{"  the same, not to the leader", other, load{p: batch(16<<10, false), inFlight: 5}},
			{"16 KB, 64 in flight", leader, load{p: batch(16<<10, false), inFlight: 64}},
		} {
			l.topic, l.partitions, l.conns = t, 1, 1
			if _, err := l.produce(c, to(l.at), b.window/4); err != nil {
				return err
			}
			n, err := counting(c, func() (int, error) {
				r, err := l.produce(c, to(l.at), b.window)
				return r.records / l.p.records, err
			})
			if err != nil {
				return err
			}
			n.print(l.what)
		}
		return nil
	})
}
