package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// disturber makes trouble through scripts/cluster.sh, in one of three ways.
type disturber struct {
	script   string // path of cluster.sh
	trimaran string // path of trimaran, for comeAndGo
	shim     string
	nodes    []int         // their numbers for cluster.sh
	calm     time.Duration // between troubles, with all nodes up
	down     time.Duration // how long a node is away
	dice     *rand.Rand    // of storm
	began    time.Time

	mu  sync.Mutex // of log
	log io.Writer

	kills, pauses, restarts int
}

// turns goes on until ctx ends, and ends with all nodes up. Each round is another
// node, and each turn through the nodes another kind of trouble.
func (d *disturber) turns(ctx context.Context) error {
	for round := 0; d.wait(ctx, d.calm); round++ {
		node := d.nodes[round%len(d.nodes)]
		var err error
		switch round / len(d.nodes) % 3 {
		case 0:
			err = d.killed(ctx, node, d.down)
		case 1:
			err = d.paused(ctx, node, d.down)
		case 2:
			d.restarts++
			err = d.do("restart", node)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// moment is the longest time for which a storm takes a majority of nodes away.
const moment = 500 * time.Millisecond

// storm goes on until ctx ends, and ends with all nodes up. Each blow hits several
// nodes at once, of which a minority is killed; when a majority is away, then for a
// moment. The dice say which, and for how long.
func (d *disturber) storm(ctx context.Context) error {
	minority := max(1, (len(d.nodes)-1)/2)
	most := min(len(d.nodes), minority+1)
	if len(d.nodes) < 3 {
		most = 1
	}
	for d.wait(ctx, d.upTo(d.calm)) {
		kills, pauses := d.dice.IntN(minority+1), d.dice.IntN(minority+1)
		if kills == 0 {
			pauses = max(pauses, 1)
		}
		pauses = min(pauses, most-kills)
		asleep := d.down
		if kills+pauses > minority {
			asleep = min(asleep, moment)
		}
		errs := make([]error, kills+pauses)
		var hit sync.WaitGroup
		for i, at := range d.dice.Perm(len(d.nodes))[:kills+pauses] {
			node := d.nodes[at]
			if i < kills {
				d.kills++
				away := d.upTo(d.down)
				hit.Go(func() { errs[i] = d.away(ctx, "kill", "restart", node, away) })
			} else {
				d.pauses++
				away := d.upTo(asleep)
				hit.Go(func() { errs[i] = d.away(ctx, "pause", "resume", node, away) })
			}
		}
		hit.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return nil
}

// upTo rolls a time.
func (d *disturber) upTo(most time.Duration) time.Duration {
	return time.Duration(d.dice.Int64N(max(1, int64(most))))
}

func (d *disturber) killed(ctx context.Context, node int, away time.Duration) error {
	d.kills++
	return d.away(ctx, "kill", "restart", node, away)
}

func (d *disturber) paused(ctx context.Context, node int, away time.Duration) error {
	d.pauses++
	return d.away(ctx, "pause", "resume", node, away)
}

// away takes a node away and brings it back, sooner when ctx ends.
func (d *disturber) away(ctx context.Context, take, bring string, node int, away time.Duration) error {
	if err := d.do(take, node); err != nil {
		return err
	}
	d.wait(ctx, away)
	return d.do(bring, node)
}

// wait is false when ctx ended.
func (d *disturber) wait(ctx context.Context, t time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(t):
		return true
	}
}

func (d *disturber) tell(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.log, "  %5.1f s  %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

func (d *disturber) do(what string, node int) error {
	d.tell("%s node %d", what, node)
	_, err := output(d.script, what, strconv.Itoa(node))
	return err
}

// output runs a program and gives what it prints; the error has it, too.
func output(program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, strings.TrimSpace(out.String()+errs.String()))
	}
	return out.String(), nil
}
