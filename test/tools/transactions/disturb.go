package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/trimaran-io/trimaran/test/harness/hostnet"
)

// disturber kills, pauses and restarts one node after the other, and breaks the network.
type disturber struct {
	cluster *harness.Cluster
	field   *field // nil: there is none
	dice    *rand.Rand
	out     io.Writer
	began   time.Time
	err     error // set before run returns

	mu    sync.Mutex // guards times
	times map[string]int
}

// fault does something to node i and says what; end undoes it.
type fault struct {
	name  string
	most  time.Duration // that it lasts
	begin func(d *disturber, i int) (what string, end func() error, err error)
}

const calm = 1500 * time.Millisecond

// ofProcesses are the faults of nodes. A pause may be longer than clients wait for an answer.
var ofProcesses = []fault{
	{"kill", 2500 * time.Millisecond, func(d *disturber, i int) (string, func() error, error) {
		node := d.cluster.Nodes[i]
		return "kill -9 " + node.ID, node.Restart, node.Kill9()
	}},
	{"pause", 2500 * time.Millisecond, stop},
	{"long pause", 8 * time.Second, stop},
	{"restart", 0, func(d *disturber, i int) (string, func() error, error) {
		node := d.cluster.Nodes[i]
		_, err := node.Terminate(time.Minute)
		if errors.Is(err, syscall.ESRCH) {
			err = nil
		}
		return "restart " + node.ID, node.Restart, err
	}},
}

func stop(d *disturber, i int) (string, func() error, error) {
	node := d.cluster.Nodes[i]
	return "SIGSTOP " + node.ID, node.Resume, node.Pause()
}

// ofNetworks are those of links. Packets are lost, and nobody is told: who was cut off goes on as
// what it was, and learns of what happened when the link is back.
var ofNetworks = []fault{
	{"cut node", 8 * time.Second, rules("%s is cut off from everybody", func(_ *disturber, node, _, _ netip.Addr) []*hostnet.Rule {
		return cut(node, netip.Addr{})
	})},
	{"cut peers", 8 * time.Second, rules("%s is cut off from the other nodes", func(_ *disturber, node, one, other netip.Addr) []*hostnet.Rule {
		return append(cut(node, one), cut(node, other)...)
	})},
	{"cut link", 8 * time.Second, rules("%s and another node are cut off from each other", func(_ *disturber, node, one, _ netip.Addr) []*hostnet.Rule {
		return cut(node, one)
	})},
	{"one way", 8 * time.Second, rules("%s is heard or hears by halves", func(d *disturber, node, one, other netip.Addr) []*hostnet.Rule {
		return [][]*hostnet.Rule{
			{{From: node, To: one, Lose: 1}},
			{{From: node, To: one, Lose: 1}, {From: node, To: other, Lose: 1}},
			{{From: one, To: node, Lose: 1}, {From: other, To: node, Lose: 1}},
		}[d.dice.IntN(3)]
	})},
	{"cut clients", 8 * time.Second, rules("%s and clients are cut off from each other", func(d *disturber, node, _, _ netip.Addr) []*hostnet.Rule {
		return cut(node, d.field.clients)
	})},
	{"lost answers", 8 * time.Second, rules("%s hears clients and is not heard by them", func(d *disturber, node, _, _ netip.Addr) []*hostnet.Rule {
		return []*hostnet.Rule{{From: node, To: d.field.clients, Lose: 1}}
	})},
	{"delay", 6 * time.Second, rules("what %s sends is late", func(d *disturber, node, _, _ netip.Addr) []*hostnet.Rule {
		least := d.upTo(100 * time.Millisecond)
		return []*hostnet.Rule{{From: node, Least: least, Most: least + d.upTo(500*time.Millisecond)}}
	})},
	{"delay peers", 6 * time.Second, rules("what %s and another node send each other is late", func(d *disturber, node, one, _ netip.Addr) []*hostnet.Rule {
		least := d.upTo(300 * time.Millisecond)
		most := least + d.upTo(700*time.Millisecond)
		return []*hostnet.Rule{{From: node, To: one, Least: least, Most: most}, {From: one, To: node, Least: least, Most: most}}
	})},
	{"loss", 6 * time.Second, rules("a part of what %s is sent is lost", func(d *disturber, node, _, _ netip.Addr) []*hostnet.Rule {
		return []*hostnet.Rule{{To: node, Lose: 0.02 + 0.3*d.dice.Float64()}}
	})},
	{"reset", 3 * time.Second, rules("connections of %s are reset", func(d *disturber, node, _, _ netip.Addr) []*hostnet.Rule {
		return []*hostnet.Rule{{From: node, Reset: 0.01 + 0.1*d.dice.Float64()}}
	})},
}

// rules makes a fault of rules for a node and two others, which may be the same one.
func rules(what string, of func(d *disturber, node, one, other netip.Addr) []*hostnet.Rule) func(*disturber, int) (string, func() error, error) {
	return func(d *disturber, i int) (string, func() error, error) {
		n := len(d.field.nodes)
		others := []netip.Addr{d.field.nodes[(i+1)%n], d.field.nodes[(i+n-1)%n]}
		d.dice.Shuffle(2, func(a, b int) { others[a], others[b] = others[b], others[a] })
		end := d.field.net.Apply(of(d, d.field.nodes[i], others[0], others[1])...)
		return fmt.Sprintf(what, d.cluster.Nodes[i].ID), func() error { end(); return nil }, nil
	}
}

// run goes on until ctx ends, and ends with all nodes up and the network as it should be.
func (d *disturber) run(ctx context.Context) {
	d.times = map[string]int{}
	for d.err == nil && wait(ctx, d.upTo(calm)) {
		kinds := ofProcesses
		if d.field != nil && d.dice.IntN(2) == 0 {
			kinds = ofNetworks
		}
		var beside sync.WaitGroup
		if d.field != nil && d.dice.IntN(3) == 0 {
			// The dice are not for two.
			f, i := ofNetworks[d.dice.IntN(len(ofNetworks))], d.dice.IntN(len(d.cluster.Nodes))
			end, lasts := d.begin(f, i), d.upTo(f.most)
			beside.Go(func() { wait(ctx, lasts); _ = end() })
		}
		f := kinds[d.dice.IntN(len(kinds))]
		end := d.begin(f, d.dice.IntN(len(d.cluster.Nodes)))
		if d.err == nil {
			wait(ctx, d.upTo(f.most))
			d.err = end()
		}
		beside.Wait()
	}
	if d.err == nil {
		d.err = d.cluster.WaitReady(time.Minute)
	}
}

// upgrade has one node after the other become one of this tree, with a pause before each and behind
// the last.
func (d *disturber) upgrade(ctx context.Context, pause time.Duration) {
	newer, err := harness.Program("trimaran")
	d.times = map[string]int{}
	for _, node := range d.cluster.Nodes {
		if d.err = err; err != nil || !wait(ctx, pause) {
			return
		}
		d.times["upgrade"]++
		fmt.Fprintf(d.out, "  %5.1f s  %s becomes a new one\n", time.Since(d.began).Seconds(), node.ID)
		if _, err = node.Terminate(time.Minute); err == nil {
			node.Path = newer
			err = node.Restart()
		}
	}
	d.err = err
	wait(ctx, pause)
}

func (d *disturber) begin(f fault, i int) (end func() error) {
	what, end, err := f.begin(d, i)
	d.err = errors.Join(d.err, err)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.times[f.name]++
	fmt.Fprintf(d.out, "  %5.1f s  %s\n", time.Since(d.began).Seconds(), what)
	return end
}

// upTo rolls a time.
func (d *disturber) upTo(most time.Duration) time.Duration {
	return time.Duration(d.dice.Int64N(int64(most) + 1))
}

// String says how often there was what.
func (d *disturber) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return times(d.times)
}

// wait is false when ctx ended.
func wait(ctx context.Context, t time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(t):
		return true
	}
}
