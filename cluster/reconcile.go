package cluster

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/election"
	"github.com/trimaran-io/trimaran/fsm"
)

// The catalog says which replicas should be here; this loop makes it so. It is
// the only one that opens and closes replicas.

const (
	reconcileTick  = time.Second
	openAtOnce     = 64
	reopenAfter    = 30 * time.Second
	catchUpTimeout = 3 * time.Second
	rebuildPause   = 5 * time.Second
	// tidyEvery is how often it is looked for files of partitions that are gone if the catalog stays as it is.
	tidyEvery = 30 * time.Second
	// askLeftEvery is the pause between two questions whether this node still belongs to the cluster.
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
				n.mu.Lock()
				for id, err := range n.broken {
					if !rebuildable(err) && !errors.Is(err, fsm.ErrNewer) {
						delete(n.broken, id)
					}
				}
				n.mu.Unlock()
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
		case <-g.observations: // this loop is the catalog group's observer
			n.catalog.wake()
		case <-tick.C:
		}
	}
}

// reconcile opens the replicas that should be here and closes the others. With a
// catalog that may be old (current false) it only opens replicas that are on
// disk: it must neither form a group anew nor delete one because it has not yet
// read that far.
func (n *Node) reconcile(current bool) {
	topics := n.Topics()
	desired := map[fsm.PartitionID]*fsm.Partition{}
	for _, topic := range topics.Placed() {
		for p := range topic.Partitions {
			partition := &topic.Partitions[p]
			if partition.Holds(n.nodeID) {
				desired[fsm.PartitionID{Topic: topic.ID, Partition: int32(p)}] = partition
			}
		}
	}
	var toOpen, toClose []fsm.PartitionID
	n.mu.Lock()
	for id := range desired {
		if n.replicas[id] == nil && n.broken[id] == nil && !n.busy[id] {
			toOpen = append(toOpen, id)
		}
	}
	var toReopen []fsm.PartitionID
	for id := range n.replicas {
		switch {
		case desired[id] == nil && current:
			toClose = append(toClose, id)
		case n.reopening[id] || n.damage[id] != nil:
			toReopen = append(toReopen, id)
		}
	}
	clear(n.reopening)
	for id := range n.broken {
		if desired[id] == nil && current {
			delete(n.broken, id)
			delete(n.rebuilt, id)
		}
	}
	for id := range n.hints {
		if _, ok := topics.Partition(id); !ok {
			delete(n.hints, id)
		}
	}
	now := time.Now()
	maps.DeleteFunc(n.askedWho, func(_ string, again time.Time) bool { return again.Before(now) })
	n.mu.Unlock()

	var work inhand
	for _, id := range toClose {
		r := n.letGo(id)
		_, there := topics.Partition(id)
		work.begin(n, id, func() {
			if err := r.close(); err != nil {
				n.logger.Warn("closing a replica of a deleted partition", "partition", id, "error", err)
			}
			n.removeReplica(id, there)
		})
	}
	for _, id := range toReopen {
		r := n.letGo(id)
		n.mu.Lock()
		damage := n.damage[id]
		delete(n.damage, id)
		n.mu.Unlock()
		work.begin(n, id, func() {
			n.closeToReopen(r, damage)
			n.catalog.wake() // it is opened in the next turn
		})
	}
	if current {
		if n.tidied.view != topics || time.Since(n.tidied.at) > tidyEvery {
			n.tidied.view, n.tidied.at = topics, time.Now()
			n.removeLeftovers(desired, topics)
		}
		n.rebuildBroken()
		n.rebuildHurt()
	}
	limit := make(chan struct{}, openAtOnce)
	for _, id := range toOpen {
		if !current {
			if ok, err := fileExists(n.partitionDir(id)); err != nil || !ok {
				continue
			}
		}
		work.begin(n, id, func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			if n.ctx.Err() != nil {
				return
			}
			if err := n.openReplica(id, desired[id]); err != nil {
				n.mu.Lock()
				n.broken[id] = err
				n.mu.Unlock()
				n.logger.Error("cannot open a replica", "partition", id, "error", err)
			}
		})
	}
	work.wait(n)
}

// letGo takes a replica out of those that run; the caller closes it.
func (n *Node) letGo(id fsm.PartitionID) *replica {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.replicas[id]
	delete(n.replicas, id)
	return r
}

// closeToReopen closes a replica that is to be opened again with what it has copied, or, if damage is not nil, to be rebuilt.
func (n *Node) closeToReopen(r *replica, damage error) {
	if damage != nil {
		n.mu.Lock()
		n.broken[r.id] = damage
		n.mu.Unlock()
	}
	err := r.close()
	if err == nil {
		return
	}
	n.logger.Warn("closing a replica to open it again", "partition", r.id, "error", err)
	if damage == nil && isDamage(err) {
		// What was copied goes behind segments that are damaged. Opened again, it would be copied again, for ever.
		n.mu.Lock()
		n.broken[r.id] = err
		n.mu.Unlock()
	}
}

// inhand is the opening and closing of replicas in one turn of the reconcile loop. One that takes longer than the loop
// has patience, as where Raft waits for a disk that hangs, goes on beside it, and its replica is left alone meanwhile.
type inhand struct {
	done sync.WaitGroup
	left atomic.Bool // the loop does not wait any more
}

// reconcilePatience is how long the reconcile loop waits for replicas that are being opened or closed.
const reconcilePatience = 2 * time.Second

func (w *inhand) begin(n *Node, id fsm.PartitionID, job func()) {
	n.mu.Lock()
	n.busy[id] = true
	n.mu.Unlock()
	n.done.Add(1)
	w.done.Add(1)
	go func() {
		defer n.done.Done()
		defer w.done.Done()
		job()
		n.mu.Lock()
		delete(n.busy, id)
		n.mu.Unlock()
		if w.left.Load() {
			n.catalog.wake()
		}
	}()
}

// wait returns when all is done, or the patience is over.
func (w *inhand) wait(n *Node) {
	done := make(chan struct{})
	go func() { w.done.Wait(); close(done) }()
	patience := time.NewTimer(reconcilePatience)
	defer patience.Stop()
	select {
	case <-done:
	case <-patience.C:
		w.left.Store(true)
	}
}

// openReplica starts this node's member of a partition's group.
func (n *Node) openReplica(id fsm.PartitionID, partition *fsm.Partition) error {
	anew, err := n.stable.Group(id.String()).Anew()
	if err != nil {
		return err
	}
	voters := partition.Voters
	if anew || !slices.Contains(voters, n.identity) {
		voters = nil // came later: the configuration comes from the group's leader
	}
	name := id.String()
	r := newReplica(n, id)
	config := raftConfig(n.identity, n.cfg.HeartbeatTimeout, n.cfg.CommitTimeout, trailingEntries, n.raftLogger.Named(name))
	config.SnapshotThreshold, config.SnapshotInterval = math.MaxUint64, never // the node's housekeeping takes them
	transport := n.transport(name)
	if t, ok := transport.(*election.Member); ok && anew {
		t.Newcomer()
	}
	g, err := openGroup(name, n.partitionFiles(r), config, observed{r.machine, r}, n.stable.Group(name), transport, voters, nil)
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		return cmp.Or(r.newer, err) // Raft does not say why it cannot restore a snapshot
	}
	r.start(g)
	if t, ok := g.transport.(interface {
		BeforeInstall(func(context.Context, string, *raft.InstallSnapshotRequest) error)
	}); ok {
		t.BeforeInstall(n.beforeInstall(r))
	}
	n.vouch(g)
	n.mu.Lock()
	n.replicas[id] = r
	delete(n.hints, id)
	n.mu.Unlock()
	r.mu.Lock()
	newer := r.newer
	r.mu.Unlock()
	if newer != nil { // met before it was one of the replicas
		n.outgrown(r, newer)
	}
	return nil
}

// rebuildBroken begins to get damaged replicas out of their groups. Those that are
// out are opened again, with nothing.
func (n *Node) rebuildBroken() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, err := range n.broken {
		if !rebuildable(err) || n.busy[id] || time.Since(n.rebuilt[id]) < rebuildPause {
			continue
		}
		err := damageOf(err)
		n.busy[id] = true // nor is it opened if it goes from here and comes back meanwhile
		n.done.Add(1)
		go func() {
			defer n.done.Done()
			rerr := n.rebuild(id)
			n.mu.Lock()
			defer n.mu.Unlock()
			delete(n.busy, id)
			n.rebuilt[id] = time.Now()
			if rerr != nil {
				n.broken[id] = errStaysOut{err, rerr}
				n.logger.Error("a damaged replica stays out of its group", "partition", id, "damage", err, "error", rerr)
				return
			}
			delete(n.broken, id)
			n.catalog.wake()
		}()
	}
}

// removeReplica frees the disk of a partition that is no longer in the catalog or, if moved, has its
// replicas elsewhere. What was voted is kept then: the replica may come back, in the same term.
func (n *Node) removeReplica(id fsm.PartitionID, moved bool) {
	dir := n.partitionDir(id)
	// Renamed first: what is half deleted must never be opened again.
	gone := dir + ".deleted"
	if err := os.Rename(dir, gone); err != nil && !errors.Is(err, os.ErrNotExist) {
		n.logger.Error("cannot delete a partition's files", "partition", id, "error", err)
		return
	}
	if err := os.RemoveAll(gone); err != nil {
		n.logger.Error("cannot delete a partition's files", "partition", id, "error", err)
	}
	var err error
	if moved {
		err = n.stable.Group(id.String()).BeginAnew(0, "")
	} else {
		err = n.stable.Delete(id.String())
	}
	if err != nil {
		n.logger.Error("cannot delete a partition's votes", "partition", id, "error", err)
	}
	n.logger.Info("replica deleted", "partition", id, "moved", moved)
}

// removeLeftovers deletes the files of partitions that were deleted while this
// node was away. Folders with other names are not touched.
func (n *Node) removeLeftovers(desired map[fsm.PartitionID]*fsm.Partition, topics *fsm.Topics) {
	entries, err := os.ReadDir(n.dir.join("partitions"))
	if err != nil {
		return
	}
	for _, entry := range entries {
		name, deleted := strings.CutSuffix(entry.Name(), ".deleted")
		id, err := fsm.ParsePartitionID(name)
		if err != nil {
			continue
		}
		n.mu.Lock()
		busy := n.busy[id]
		n.mu.Unlock()
		if busy {
			continue
		}
		switch {
		case deleted:
			os.RemoveAll(n.dir.join("partitions", entry.Name()))
		case desired[id] == nil:
			_, there := topics.Partition(id)
			n.removeReplica(id, there)
		}
	}
}

func fileExists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
