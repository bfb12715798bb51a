package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Shutdown stops the node: leadership is handed to others, then everything
// ends. When ctx ends the handing over is cut short. Whoever still asks is told
// outcome.ErrShuttingDown. It must be called once. What has not ended stopPatience after
// ctx, as with a disk that hangs, is left as it is, and the error says so.
func (n *Node) Shutdown(ctx context.Context) error {
	n.ending.stop()
	// What a group is asked before it is its turn is served here, and behind it the answer names
	// the next leader.
	n.handovers.GiveAll(ctx, n.runningMembers())
	// Requests of other nodes are refused from now on, before they are read; Raft's own messages go
	// on. What was begun, in groups that nobody else can lead, has the time that gossip takes to
	// say goodbye.
	n.link.StopAccepting()
	if err := n.gossip.Leave(time.Second); err != nil {
		n.logger.Debug("gossip was not told of the stop", "error", err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- n.stop() }()
	select {
	case err := <-stopped:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-stopped:
		return err
	case <-time.After(stopPatience):
		return fmt.Errorf("%w: the disk does not answer, or a group of Raft", errNotStopped)
	}
}

// stopPatience is how long Shutdown waits for what has to end after its time is over.
const stopPatience = 5 * time.Second

var errNotStopped = errors.New("the node was not stopped in good order")

// stop ends everything as it is.
func (n *Node) stop() error {
	n.cancel()
	// Whoever waits for Raft, or Raft for a disk, does not end by itself.
	n.replicas.End()
	if g := n.catalog.Member(); g != nil {
		go g.End()
	}
	n.done.Wait()
	if n.tier != nil {
		n.tier.Close()
	}
	err := n.replicas.Close()
	if g := n.catalog.Member(); g != nil {
		err = errors.Join(err, g.Close())
	}
	err = errors.Join(err, n.gossip.Close(), n.link.Close(), n.stable.Close(), n.logs.Close(), n.dir.Close())
	if n.cfg.Registry != nil {
		n.metrics.unregister(n.cfg.Registry)
	}
	n.logger.Info("node stopped")
	return err
}
