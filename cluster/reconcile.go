package cluster

import (
	"context"
	"errors"
	"maps"
	"os"
	"time"

	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/fsm"
)

// The catalog says which replicas should be here; this loop has them opened and closed, and does
// what else follows from the catalog.

const (
	reconcileTick  = time.Second
	reopenAfter    = 30 * time.Second
	catchUpTimeout = 3 * time.Second
	// askLeftEvery is the pause between two questions whether this node still belongs to the
	// cluster.
	askLeftEvery = 5 * time.Second
)

func (n *Node) reconcileLoop() {
	tick := time.NewTicker(reconcileTick)
	defer tick.Stop()
	lastBroken := time.Now()
	var askedLeft time.Time
	for {
		g := n.catalog.raftGroup()
		n.catalog.mu.Lock()
		changed := n.catalog.changed
		n.catalog.mu.Unlock()

		n.catalog.lead(n.ctx)
		n.mu.Lock()
		caughtUp := n.caughtUp
		n.mu.Unlock()
		if !caughtUp {
			n.reconcile(false)
			ctx, cancel := context.WithTimeout(n.ctx, catchUpTimeout)
			err := n.catalog.catchUp(ctx)
			cancel()
			if err == nil {
				n.mu.Lock()
				n.caughtUp = true
				n.mu.Unlock()
				caughtUp = true
			} else if n.ctx.Err() != nil {
				return
			} else if left, _ := n.hasLeft(n.ctx); left {
				n.leave()
			}
		}
		if caughtUp {
			if time.Since(lastBroken) > reopenAfter {
				n.replicas.Retry()
				lastBroken = time.Now()
			}
			n.reconcile(true)
			n.register(n.ctx)
			if view := n.Topics(); view.ClusterID() != "" {
				if _, ok := view.Node(n.nodeID); !ok {
					n.leave()
				}
			}
			if n.wasCut.Load() && time.Since(askedLeft) > askLeftEvery {
				n.wasCut.Store(false)
				askedLeft = time.Now()
				left, known := n.hasLeft(n.ctx)
				if left {
					n.leave()
				} else if !known {
					n.wasCut.Store(true)
				}
			}
		}
		select {
		case <-n.ctx.Done():
			return
		case <-changed:
		case <-g.Observations: // this loop is the catalog group's observer
			n.catalog.wake()
		case <-tick.C:
		}
	}
}

// reconcile makes the replicas here those that the catalog says. With a catalog that may be old
// (current false) none is closed, deleted or formed.
func (n *Node) reconcile(current bool) {
	topics := n.Topics()
	n.forgetHints(topics)
	n.replicas.Reconcile(topics, current)
}

// forgetHints drops what is remembered of leaders of partitions that are gone.
func (n *Node) forgetHints(topics *fsm.Topics) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id := range n.hints {
		if _, ok := topics.Partition(id); !ok {
			delete(n.hints, id)
		}
	}
	now := time.Now()
	maps.DeleteFunc(n.askedWho, func(_ string, again time.Time) bool { return again.Before(now) })
}

// replica gives the replica of a partition or shard here, nil if none runs.
func (n *Node) replica(id fsm.PartitionID) *replica.Replica { return n.replicas.Replica(id) }

// records gives the replica of a partition here, nil if none runs.
func (n *Node) records(id fsm.PartitionID) *replica.Records { return n.replicas.Records(id) }

// shard gives the replica of a shard here, nil if none runs.
func (n *Node) shard(id fsm.PartitionID) *replica.Shard { return n.replicas.Shard(id) }

func (n *Node) runningReplicas() []*replica.Replica { return n.replicas.Running() }

func fileExists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
