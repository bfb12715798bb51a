package cluster

import (
	"time"

	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/ticks"
)

// The catalog says which replicas should be here; this loop has them opened and closed.

const (
	reconcileTick = time.Second
	reopenAfter   = 30 * time.Second
)

func (n *Node) reconcileLoop() {
	tick := ticks.New(reconcileTick)
	defer tick.Stop()
	lastBroken := time.Now()
	for n.ctx.Err() == nil {
		changed := n.catalog.Changed()
		current := n.catalog.CaughtUp()
		if current && time.Since(lastBroken) > reopenAfter {
			n.replicas.Retry()
			lastBroken = time.Now()
		}
		n.reconcile(current)
		select {
		case <-n.ctx.Done():
		case <-changed:
			n.failover.Poke() // a node that has just been registered is watched at once
		case <-tick.C:
		}
	}
}

// reconcile makes the replicas here those that the catalog says. With a catalog that may be old
// (current false) none is closed, deleted or formed.
func (n *Node) reconcile(current bool) {
	topics := n.Topics()
	n.router.Tidy(topics)
	n.replicas.Reconcile(topics, current)
}

// replica gives the replica of a partition or shard here, nil if none runs.
func (n *Node) replica(id fsm.PartitionID) *replica.Replica { return n.replicas.Replica(id) }

// records gives the replica of a partition here, nil if none runs.
func (n *Node) records(id fsm.PartitionID) *replica.Records { return n.replicas.Records(id) }

// shard gives the replica of a shard here, nil if none runs.
func (n *Node) shard(id fsm.PartitionID) *replica.Shard { return n.replicas.Shard(id) }

func (n *Node) runningReplicas() []*replica.Replica { return n.replicas.Running() }
