package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// ownCluster gives the attempt a cluster of its own, until end is called, which gives what a
// process complained of.
func (a *attempt) ownCluster(o harness.Options) (end func() error, err error) {
	o.Dir = filepath.Join(a.dir, "cluster")
	if err := os.MkdirAll(o.Dir, 0o777); err != nil {
		return nil, err
	}
	c, err := harness.Start(o)
	if err != nil {
		if c != nil {
			c.Close()
		}
		return nil, err
	}
	shared := a.bench
	own := *shared
	own.cluster, own.addrs, own.looks, own.driverAddr, own.shimAddr = c, c.Addrs(), c.Addrs(), c.ShimAddr(), c.ShimAddr()
	a.bench = &own
	return func() error {
		a.bench = shared
		if complaint := c.Close(); complaint != "" {
			return errors.New(complaint)
		}
		return nil
	}, nil
}

// Between two kills: how long the nodes are left alone, and how long the killed one is down.
const (
	killCalm = 4 * time.Second
	killDown = 2 * time.Second
)

// killInTurn kills one node after the other with kill -9 and starts it again, until stop is called,
// which waits until all are back. It does nothing in the quiet pass.
func (a *attempt) killInTurn(ctx context.Context) (stop func() error) {
	if a.pass != "kill" {
		return func() error { return nil }
	}
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan error, 1)
	go func() { over <- a.killEachUntil(ctx) }()
	return func() error {
		cancel()
		return <-over
	}
}

// killEachUntil begins with a kill, so that a pass that is soon over has one, too.
func (a *attempt) killEachUntil(ctx context.Context) error {
	kills := 0
	for again := true; again; again = sleep(ctx, killCalm) {
		n := a.cluster.Nodes[kills%len(a.cluster.Nodes)]
		a.trace("kill -9 %s", n.ID)
		if err := n.Kill9(); err != nil {
			return err
		}
		kills++
		sleep(ctx, killDown)
		if err := n.Restart(); err != nil {
			return err
		}
	}
	a.note("%d nodes were killed", kills)
	return nil
}

// sleep is false when ctx ended before the time had passed.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
