package catalog

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/placement"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/ticks"
)

// The catalog's leader plans where replicas go: away from nodes that leave or have been dead for
// long, and to nodes that have fewer than others. A plan is a Reassign in the catalog; the
// partitions' leaders carry it out. It keeps no memory but since when nodes are not there, so a new
// leader goes on where the old one was.

const (
	planTick = time.Second
	// maxMoving bounds the partitions that are on the move at a time, in the whole cluster.
	maxMoving           = 8
	defaultReplaceAfter = 30 * time.Minute
	// settledFor is how long all nodes must have been there before replicas are moved for the sake
	// of balance.
	settledFor  = 10 * time.Second
	planTimeout = 5 * time.Second
)

// changer is what a planner does about what it sees. All may take as long as the context.
type changer interface {
	// Change makes a change to the catalog.
	Change(context.Context, fsm.CatalogCommand) (calls.CatalogReply, error)
	// giveUpVote takes the vote in the catalog's group from a node that is to leave the cluster.
	giveUpVote(ctx context.Context, node fsm.Node) (obstacle string, err error)
	// lost gives the nodes that the cluster was recovered without.
	lost(*fsm.Topics) map[fsm.NodeID]bool
}

// planner belongs to the goroutine that runs it.
type planner struct {
	to           changer
	logger       *slog.Logger
	replaceAfter time.Duration // negative: never
	balances     bool          // for the sake of balance alone, too

	absent map[string]time.Time // identities of nodes that are not there, and since when
	calm   time.Time            // since when all are there; zero: they are not
	said   string               // the last obstacle that was logged
}

func newPlanner(to changer, cfg *Config) *planner {
	p := &planner{to: to, logger: cfg.Logger, replaceAfter: cfg.ReplaceAfter, balances: !cfg.NoAutoBalance, absent: map[string]time.Time{}}
	if p.replaceAfter == 0 {
		p.replaceAfter = defaultReplaceAfter
	}
	return p
}

// forget is for who leads no more.
func (p *planner) forget() {
	clear(p.absent)
	p.calm = time.Time{}
}

// Plan plans while this node leads the group, until ctx ends.
func (c *Catalog) Plan(ctx context.Context) {
	p := newPlanner(c, &c.cfg)
	tick := ticks.New(planTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if m := c.Member(); m == nil || m.Raft.State() != raft.Leader {
			p.forget()
			continue
		}
		view := c.View()
		p.plan(ctx, time.Now(), view, c.here(view))
	}
}

// plan takes the steps that can be taken now.
func (p *planner) plan(ctx context.Context, now time.Time, view *fsm.Topics, here map[fsm.NodeID]bool) {
	if view.ClusterID() == "" || view.FeatureLevel() < 2 {
		return
	}
	p.look(now, view, here)
	moving := 0
	eachPartition(view, func(_ *fsm.Topic, _ int32, partition *fsm.Partition) {
		if len(partition.Leaving) > 0 {
			moving++
		}
	})
	obstacle := ""
	evacuated := 0
	for _, node := range view.Nodes() {
		since, absent := p.absent[node.Identity()]
		dead := absent && p.replaceAfter >= 0 && now.Sub(since) >= p.replaceAfter
		if node.State != fsm.NodeLeaving && !dead {
			continue
		}
		left, stuck := p.evacuate(ctx, view, here, node, &moving)
		evacuated += left
		if stuck != "" {
			obstacle = stuck
		}
		if left == 0 && node.State == fsm.NodeLeaving {
			if why := p.remove(ctx, node); why != "" {
				obstacle = why
			}
		}
	}
	if obstacle != p.said {
		if p.said = obstacle; obstacle != "" {
			p.logger.Warn("replicas cannot be moved", "reason", obstacle)
		}
	}
	if !p.balances || evacuated > 0 || moving > 0 || p.calm.IsZero() || now.Sub(p.calm) < settledFor {
		return
	}
	p.balance(ctx, view, here)
}

// look notes who is not there, and since when.
func (p *planner) look(now time.Time, view *fsm.Topics, here map[fsm.NodeID]bool) {
	for _, node := range view.Nodes() {
		id := node.Identity()
		if here[node.ID] {
			delete(p.absent, id)
		} else if _, known := p.absent[id]; !known {
			p.absent[id] = now
		}
	}
	if len(p.absent) > 0 {
		p.calm = time.Time{}
	} else if p.calm.IsZero() {
		p.calm = now
	}
}

// evacuate moves replicas away from a node, a few at a time. left is how many it still holds, stuck
// why one cannot be moved.
func (p *planner) evacuate(ctx context.Context, view *fsm.Topics, here map[fsm.NodeID]bool, node fsm.Node, moving *int) (left int, stuck string) {
	nodes, lost := takers(view, here), p.to.lost(view)
	eachPartition(view, func(topic *fsm.Topic, i int32, partition *fsm.Partition) {
		if !partition.Holds(node.ID) {
			return
		}
		left++
		if !slices.Contains(partition.Replicas, node.ID) || *moving >= maxMoving {
			return
		}
		target, ok := node.Successor, here[node.Successor] && !slices.Contains(partition.Replicas, node.Successor)
		if !ok {
			target, ok = placement.Target(nodes, partition.Replicas, node.ID)
		}
		if !ok {
			stuck = fmt.Sprintf("node %s holds a replica of %s-%d, and no other node is there that has none", node.ID, topic.Name, i)
			return
		}
		to := slices.Clone(partition.Replicas)
		to[slices.Index(to, node.ID)] = target
		if why := cannotMove(topic, i, partition, to, here, lost); why != "" {
			stuck = why
			return
		}
		if p.reassign(ctx, topic, i, partition.Replicas, to) {
			*moving++
			taken(nodes, target)
		}
	})
	return left, stuck
}

// cannotMove says why a partition must stay where it is; "": it may move. Its group needs a
// majority that is there to carry the move out, and must have one when it is over. From the catalog
// alone: who votes meanwhile is known to the group's leader, who looks at each step again. Nodes
// that the cluster was recovered without count for nothing: the groups that go on do so without
// them.
func cannotMove(topic *fsm.Topic, i int32, p *fsm.Partition, to []fsm.NodeID, here, lost map[fsm.NodeID]bool) string {
	counts := func(of []fsm.NodeID) []fsm.NodeID {
		return slices.DeleteFunc(slices.Clone(of), func(id fsm.NodeID) bool { return lost[id] })
	}
	missing := func(of []fsm.NodeID) string {
		return nodeList(slices.DeleteFunc(slices.Clone(of), func(id fsm.NodeID) bool { return here[id] }))
	}
	switch {
	case len(p.Leaving) == 0 && !majorityOf(counts(p.Replicas), here):
		return fmt.Sprintf("%s-%d has no majority of its replicas: %s not there", topic.Name, i, missing(p.Replicas))
	case !majorityOf(counts(to), here):
		return fmt.Sprintf("%s-%d would have no majority of its replicas: %s not there", topic.Name, i, missing(to))
	}
	return ""
}

func (p *planner) reassign(ctx context.Context, topic *fsm.Topic, i int32, from, to []fsm.NodeID) bool {
	ctx, cancel := context.WithTimeout(ctx, planTimeout)
	defer cancel()
	command := fsm.CatalogCommand{Reassign: &fsm.Reassign{Topic: topic.ID, Moves: []fsm.Move{{Partition: i, From: from, To: to}}}}
	if _, err := p.to.Change(ctx, command); err != nil {
		p.logger.Warn("a replica cannot be moved yet", "topic", topic.Name, "partition", i, "error", err)
		return false
	}
	p.logger.Info("replicas move", "topic", topic.Name, "partition", i, "from", nodeList(from), "to", nodeList(to))
	return true
}

func nodeList(ids []fsm.NodeID) string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = string(id)
	}
	return strings.Join(names, ",")
}

// remove takes a node that holds nothing out of the cluster, and says what keeps it if it is to
// stay for now. The node ends when it hears of it, so it gives up its vote in the catalog's group
// first: there must be a majority without it. As a member without a vote it goes with the next turn
// of the catalog's leader.
func (p *planner) remove(ctx context.Context, node fsm.Node) (obstacle string) {
	ctx, cancel := context.WithTimeout(ctx, planTimeout)
	defer cancel()
	obstacle, err := p.to.giveUpVote(ctx, node)
	if err == nil && obstacle == "" {
		_, err = p.to.Change(ctx, fsm.CatalogCommand{RemoveNode: &fsm.RemoveNode{ID: node.ID, Incarnation: node.Incarnation}})
	}
	switch {
	case err != nil:
		p.logger.Warn("a node cannot leave the cluster yet", "node", node.ID, "error", err)
	case obstacle == "":
		p.logger.Info("a node has left the cluster", "node", node.ID)
	}
	return obstacle
}

// balance moves replicas to nodes that have fewer.
func (p *planner) balance(ctx context.Context, view *fsm.Topics, here map[fsm.NodeID]bool) {
	nodes, lost := takers(view, here), p.to.lost(view)
	type place struct {
		topic     *fsm.Topic
		partition int32
	}
	var places []place
	var placed []placement.Placed
	eachPartition(view, func(topic *fsm.Topic, i int32, partition *fsm.Partition) {
		places = append(places, place{topic, i})
		placed = append(placed, placement.Placed{Replicas: partition.Replicas})
	})
	// Moves of one partition follow each other; only the first of each can be made now.
	begun := map[int]bool{}
	for _, move := range placement.Balance(nodes, placed, maxMoving) {
		if begun[move.Partition] {
			continue
		}
		begun[move.Partition] = true
		from := placed[move.Partition].Replicas
		to := slices.Clone(from)
		to[slices.Index(to, move.From)] = move.To
		at := places[move.Partition]
		if why := cannotMove(at.topic, at.partition, &at.topic.Partitions[at.partition], to, here, lost); why != "" {
			continue
		}
		if !p.reassign(ctx, at.topic, at.partition, from, to) {
			return
		}
	}
}
