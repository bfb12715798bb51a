package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// disturber kills, pauses and restarts one node after the other.
type disturber struct {
	cluster *harness.Cluster
	dice    *rand.Rand
	out     io.Writer
	began   time.Time
	err     error // set before run returns

	kills, pauses, restarts int
}

const (
	calm = 1500 * time.Millisecond
	down = 2500 * time.Millisecond
)

// run goes on until ctx ends, and ends with all nodes up.
func (d *disturber) run(ctx context.Context) {
	for d.err == nil && wait(ctx, d.upTo(calm)) {
		node := d.cluster.Nodes[d.dice.IntN(len(d.cluster.Nodes))]
		switch d.dice.IntN(5) {
		case 0, 1:
			d.kills++
			d.tell("kill -9 %s", node.ID)
			if d.err = node.Kill9(); d.err == nil {
				wait(ctx, d.upTo(down))
				d.err = node.Restart()
			}
		case 2, 3:
			d.pauses++
			d.tell("SIGSTOP %s", node.ID)
			if d.err = node.Pause(); d.err == nil {
				wait(ctx, d.upTo(down))
				d.err = node.Resume()
			}
		case 4:
			d.restarts++
			d.tell("restart %s", node.ID)
			if _, err := node.Terminate(20 * time.Second); err != nil && !errors.Is(err, syscall.ESRCH) {
				d.err = err
				break
			}
			d.err = node.Restart()
		}
	}
}

// upTo rolls a time.
func (d *disturber) upTo(most time.Duration) time.Duration {
	return time.Duration(d.dice.Int64N(int64(most)))
}

func (d *disturber) tell(format string, args ...any) {
	fmt.Fprintf(d.out, "  %5.1f s  %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
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
