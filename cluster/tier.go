package cluster

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/cluster/tier"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/ticks"
)

const (
	tierSweepTick = time.Minute
	// tierSweepEvery is how often the store is listed for topics that are gone, if none is known to
	// have gone.
	tierSweepEvery   = 6 * time.Hour
	tierSweepTimeout = 30 * time.Minute
	// tierCacheDir is the folder of what was fetched, in the data directory.
	tierCacheDir = "tier-cache"
)

// openTier opens the way to the store that old records go to, if there is one.
func (n *Node) openTier() (err error) {
	if n.cfg.TierTo == nil {
		// What another start has left: nobody needs it.
		return n.cfg.disk().RemoveAll(n.dir.Join(tierCacheDir))
	}
	n.tier, err = tier.Open(n.ctx, tier.Config{
		Store: n.cfg.TierTo, ClusterID: n.who.ClusterID, FS: n.cfg.disk(), Dir: n.dir.Join(tierCacheDir),
		Full: n.logs.Full, Used: n.tierUsed, Syncs: n.metrics.syncs.Load, CacheBytes: n.cfg.TierCacheBytes, PieceBytes: n.cfg.tierPieceBytes,
		UploadRate: n.cfg.TierUploadRate, Logger: n.logger,
	})
	return err
}

// tierUsed reports whether a replica here has records in the tier.
func (n *Node) tierUsed() bool {
	return slices.ContainsFunc(n.runningReplicas(), func(r *replica.Replica) bool {
		m := r.Records()
		if m == nil {
			return false
		}
		_, end := m.LocalStart()
		return end >= 0
	})
}

// sweepTier deletes from the store what topics had there that were deleted. The node that leads the
// catalog does so.
func (n *Node) sweepTier() {
	if n.tier == nil {
		return
	}
	tick := ticks.New(tierSweepTick)
	defer tick.Stop()
	var last time.Time                 // when this node swept in this leadership; zero: not yet
	known := map[fsm.TopicID]bool(nil) // what there was then
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		}
		if n.logs.Full() {
			n.tier.GiveUp()
		}
		m := n.catalog.Member()
		if m == nil || m.Raft.State() != raft.Leader {
			last, known = time.Time{}, nil
			continue
		}
		topics := topicIDs(n.Topics())
		deleted := func(id fsm.TopicID) bool { return !topics[id] }
		if !last.IsZero() && time.Since(last) < tierSweepEvery && !slices.ContainsFunc(slices.Collect(maps.Keys(known)), deleted) {
			maps.Copy(known, topics)
			continue
		}
		ctx, cancel := context.WithTimeout(n.ctx, tierSweepTimeout)
		count, err := n.tier.DropTopics(ctx, func(all map[fsm.TopicID]bool) (map[fsm.TopicID]bool, error) {
			// Whatever is in the store was in the catalog before.
			if !n.catalog.Await(ctx) {
				return nil, errors.New("the catalog is not known to be up to date")
			}
			there := topicIDs(n.Topics())
			maps.DeleteFunc(all, func(id fsm.TopicID, _ bool) bool { return there[id] })
			return all, nil
		})
		cancel()
		switch {
		case n.ctx.Err() != nil:
			return
		case err != nil:
			n.logger.Warn("what deleted topics have in the tier's store is still there", "error", err)
		default:
			last, known = time.Now(), topics
			if count > 0 {
				n.logger.Info("what deleted topics had in the tier's store is deleted", "objects", count)
			}
		}
	}
}

func topicIDs(topics *fsm.Topics) map[fsm.TopicID]bool {
	ids := map[fsm.TopicID]bool{}
	for _, topic := range topics.Placed() {
		ids[topic.ID] = true
	}
	return ids
}
