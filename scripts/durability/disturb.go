package main

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// disturber makes trouble, one node after the other, through scripts/cluster.sh.
type disturber struct {
	script string // path of cluster.sh
	nodes  int
	calm   time.Duration // between troubles, with all nodes up
	down   time.Duration // how long a node is away
	log    io.Writer
	began  time.Time

	kills, pauses, restarts int
}

// run goes on until ctx ends, and ends with all nodes up. Each round is another
// node, and each turn through the nodes another kind of trouble.
func (d *disturber) run(ctx context.Context) error {
	for round := 0; d.wait(ctx, d.calm); round++ {
		node := round%d.nodes + 1
		var err error
		switch round / d.nodes % 3 {
		case 0:
			d.kills++
			err = d.do("kill", node)
			if err == nil {
				d.wait(ctx, d.down)
				err = d.do("restart", node)
			}
		case 1:
			d.pauses++
			err = d.do("pause", node)
			if err == nil {
				d.wait(ctx, d.down)
				err = d.do("resume", node)
			}
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

// wait is false when ctx ended.
func (d *disturber) wait(ctx context.Context, t time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(t):
		return true
	}
}

func (d *disturber) do(what string, node int) error {
	fmt.Fprintf(d.log, "  %5.1f s  %s node %d\n", time.Since(d.began).Seconds(), what, node)
	out, err := exec.Command(d.script, what, strconv.Itoa(node)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s %d: %w\n%s", d.script, what, node, err, strings.TrimSpace(string(out)))
	}
	return nil
}
