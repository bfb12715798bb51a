package coordinator

import (
	"time"

	"github.com/trimaran-io/trimaran/fsm/groups"
)

// sweepAll lets offsets expire (KIP-211), removes those of topics that are gone and
// groups of which nothing is left. It waits for each group's command, so that a
// sweep never queues more than one.
func (c *Coordinator) sweepAll() {
	missing := make(map[[16]byte]bool)
	for _, id := range c.all() {
		if c.tenure.Over() {
			return
		}
		c.sweepGroup(id, missing)
	}
	c.forgetMarkers(c.maxMarkers)
	c.mu.Lock()
	c.gone = missing
	c.mu.Unlock()
	c.tenure.After(c.set.RetentionCheckInterval, c.sweepAll)
}

// forgottenAtOnce is how many producers' last markers are forgotten by one command.
const forgottenAtOnce = 4096

// forgetMarkers forgets producers' last markers that are older than markerRetention, and of the
// others the oldest, until no more than most are left.
func (c *Coordinator) forgetMarkers(most int) {
	if !c.forgetting.CompareAndSwap(false, true) {
		return
	}
	defer c.forgetting.Store(false)
	for {
		producers := c.cfg.State.leastNeeded(time.Now().Add(-markerRetention).UnixMilli(), most, forgottenAtOnce)
		if len(producers) == 0 {
			return
		}
		c.forgotten.Add(1)
		var cmd groups.Changes
		for _, p := range producers {
			cmd.ForgetProducer(p.Group, p.ID, p.At)
		}
		if c.propose(groups.Encode(cmd)) != nil {
			return // the next marker or sweep tries again
		}
	}
}

// boundMarkers forgets some if there are too many.
func (c *Coordinator) boundMarkers() {
	if c.cfg.State.lastMarkers() > c.maxMarkers && !c.forgetting.Load() {
		// Some more, so that it is not done for each.
		c.tenure.Go(func() { c.forgetMarkers(c.maxMarkers - c.maxMarkers/16) })
	}
}

// sweepGroup sweeps one group. Topics that are not in the catalog are added to
// missing; their offsets go if the last sweep missed them too. The catalog of this
// node may be behind, but not for that long: a coordinator that is cut off from the
// catalog is hardly not cut off from its shard.
func (c *Coordinator) sweepGroup(id string, missing map[[16]byte]bool) {
	known := make(map[[16]byte]bool)
	for _, o := range c.cfg.State.offsets(id) {
		if _, seen := known[o.TopicID]; !seen {
			_, known[o.TopicID] = c.topicName(o.TopicID)
		}
	}
	now := time.Now()
	g := c.lockGroup(id, false)
	if g == nil {
		return
	}
	if g.unsaved && g.state == empty {
		g.save()
	}
	expired := g.expiry()
	var cmd groups.Changes
	left := 0
	for _, o := range c.cfg.State.offsets(id) {
		// what was not seen was committed just now
		if there, seen := known[o.TopicID]; seen && !there {
			missing[o.TopicID] = true
			if c.gone[o.TopicID] {
				cmd.DeleteOffset(id, o.Topic, o.Partition, o.CommittedAt)
				continue
			}
		} else if expired != nil && !g.subscribes(o.Topic) && expired(o, now) && !c.cfg.State.pending(id, o.Topic, o.TopicID, o.Partition) {
			cmd.DeleteOffset(id, o.Topic, o.Partition, o.CommittedAt)
			continue
		}
		left++
	}
	if n := cmd.Len(); n > 0 {
		c.log.Info("offsets of consumer group expired", "group", id, "offsets", n)
	}
	if left == 0 && g.state == empty && len(g.pending) == 0 {
		cmd.DeleteGroupIfEmpty(id)
	}
	var w *write
	if cmd.Len() > 0 {
		w = g.write(cmd, nil)
	}
	c.unlockGroup(g)
	if w != nil {
		_ = w.wait(c.tenure.Context()) // what was not replicated is found again by the next sweep
	}
}

// expiry gives the rule by which the group's offsets expire, nil: none does now.
func (g *group) expiry() func(o groups.Committed, now time.Time) bool {
	retention := g.c.set.OffsetsRetention
	sinceCommit := func(o groups.Committed, now time.Time) bool {
		return now.Sub(time.UnixMilli(o.CommittedAt)) >= retention
	}
	switch {
	case g.protocolType == "":
		return sinceCommit
	case g.state == empty:
		since := time.UnixMilli(g.since)
		return func(_ groups.Committed, now time.Time) bool { return now.Sub(since) >= retention }
	case g.state == stable && g.protocolType == consumerProtocol && g.subscribed != nil:
		return sinceCommit
	}
	return nil
}
