package catalog

import (
	"context"
	"fmt"
	"slices"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cluster/placement"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// Administer does what an operator asks and returns when it is in the catalog; what follows from it
// takes its time and is seen in the status. Errors are outcome's: ErrInvalidAssignment where it
// cannot be done, with the reason, ErrFeatureLevel while nodes run an older program.
func (c *Catalog) Administer(ctx context.Context, request admin.Request) error {
	// Every request may be made twice: it says how things shall be.
	return askForAll(ctx, c, c.administer(), request)
}

// administer gives the command for what an operator asks.
func (p *placer) administer(view *fsm.Topics, request admin.Request) (fsm.CatalogCommand, error) {
	command, err := p.commandOf(view, request)
	if err == nil {
		err = view.CheckFeatureLevel(&command)
	}
	return command, err
}

func (p *placer) commandOf(view *fsm.Topics, request admin.Request) (command fsm.CatalogCommand, err error) {
	if request.Op == admin.OpReplicationFactor {
		return p.changeFactor(view, request.Topic, request.Factor)
	}
	node, ok := view.Node(request.Node)
	leaves := request.Op == admin.OpDecommission || request.Op == admin.OpReplace
	switch {
	case ok:
	case view.HasLeft(request.Node) && leaves:
		return command, errDone
	case view.HasLeft(request.Node):
		return command, fmt.Errorf("%w: node %q has left the cluster", outcome.ErrInvalidAssignment, request.Node)
	case view.FeatureLevel() < 3: // it is not remembered
		return command, fmt.Errorf("%w: no node is named %q: there never was one, or it has left", outcome.ErrInvalidAssignment, request.Node)
	default:
		return command, fmt.Errorf("%w: no node is named %q", outcome.ErrInvalidAssignment, request.Node)
	}
	state := &fsm.SetNodeState{ID: node.ID}
	command.SetNodeState = state
	switch request.Op {
	case admin.OpDrain:
		state.State = fsm.NodeDraining
	case admin.OpActivate:
	case admin.OpDecommission, admin.OpReplace:
		state.State, state.Successor = fsm.NodeLeaving, request.Successor
		if node.State == state.State && node.Successor == state.Successor {
			return command, errDone
		}
		if request.Op == admin.OpReplace && request.Successor != "" && !p.here(view)[request.Successor] {
			return command, fmt.Errorf("%w: no node %q is there to take over", outcome.ErrInvalidAssignment, request.Successor)
		}
		return command, p.canLeave(view, node)
	default:
		return command, fmt.Errorf("%w: %q is nothing that can be asked for", outcome.ErrInvalidConfig, request.Op)
	}
	return command, nil
}

// canLeave says whether the others can take the node's replicas.
func (p *placer) canLeave(view *fsm.Topics, node fsm.Node) error {
	here := p.here(view)
	others := 0
	var away []fsm.NodeID
	for _, other := range view.Nodes() {
		switch {
		case other.ID == node.ID || other.State != fsm.NodeActive:
		case here[other.ID]:
			others++
		default:
			away = append(away, other.ID)
		}
	}
	var topics []string
	for _, topic := range view.Placed() {
		if topic.ReplicationFactor > others {
			topics = append(topics, topic.Name)
		}
	}
	if len(topics) > 0 {
		more := ""
		if len(topics) > 5 {
			more = fmt.Sprintf(" and %d more", len(topics)-5)
			topics = topics[:5]
		}
		remedy := "add a node, or lower their replication factor"
		if len(away) > 0 {
			remedy = fmt.Sprintf("the catalog's leader does not reach %s now: bring it back, or %s", nodeList(away), remedy)
		}
		return fmt.Errorf("%w: without node %s there are %d nodes for replicas, and topics have more: %q%s; %s",
			outcome.ErrInvalidAssignment, node.ID, others, topics, more, remedy)
	}
	if others == 0 {
		return fmt.Errorf("%w: node %s is the only one", outcome.ErrInvalidAssignment, node.ID)
	}
	return p.servesWithout(view, node, here)
}

// servesWithout says whether the catalog and everything that the node holds keeps a majority that
// is there when the node has left, and those that are leaving already. A group without one now
// cannot even let it go.
func (p *placer) servesWithout(view *fsm.Topics, node fsm.Node, here map[fsm.NodeID]bool) error {
	stay := func(id fsm.NodeID) bool {
		other, ok := view.Node(id)
		return ok && id != node.ID && other.State != fsm.NodeLeaving
	}
	identities, err := p.voters()
	if err != nil {
		return fmt.Errorf("%w: %w", outcome.ErrNoLeader, err)
	}
	var voters []fsm.NodeID
	for _, other := range view.Nodes() {
		if stay(other.ID) && slices.Contains(identities, other.Identity()) {
			voters = append(voters, other.ID)
		}
	}
	if !majorityOf(voters, here) {
		return fmt.Errorf("%w: without node %s the catalog would have the voters %s, and too few of them are there; bring them back first, or take out those that are lost",
			outcome.ErrInvalidAssignment, node.ID, nodeList(voters))
	}
	var stuck error
	lost := p.lost(view)
	eachPartition(view, func(topic *fsm.Topic, i int32, p *fsm.Partition) {
		if stuck != nil || !slices.Contains(p.Replicas, node.ID) {
			return
		}
		// Its place goes to one that is there; those of others that are leaving, too.
		to := slices.DeleteFunc(slices.Clone(p.Replicas), func(id fsm.NodeID) bool { return !stay(id) })
		away := len(to)
		for _, id := range to {
			away -= boolInt(here[id])
		}
		why := cannotMove(topic, i, p, p.Replicas, here, lost)
		if why == "" && 2*away >= len(p.Replicas) {
			why = fmt.Sprintf("%s-%d would have no majority of its replicas: of %s, %d are away", topic.Name, i, nodeList(to), away)
		}
		if why != "" {
			stuck = fmt.Errorf("%w: node %s cannot leave: %s; bring them back first, or delete the topic if they are lost", outcome.ErrInvalidAssignment, node.ID, why)
		}
	})
	return stuck
}

// changeFactor adds replicas where there are fewest, or takes the last ones of each partition away.
func (p *placer) changeFactor(view *fsm.Topics, name string, factor int) (command fsm.CatalogCommand, err error) {
	topic, ok := view.Lookup(name)
	if name == fsm.GroupShardsName {
		topic, ok = view.GroupShards()
	}
	if !ok {
		return command, fmt.Errorf("%w: %q", outcome.ErrUnknownTopicOrPartition, name)
	}
	here := p.here(view)
	nodes := takers(view, here)
	if factor < 1 || factor > len(nodes) && factor > topic.ReplicationFactor {
		return command, fmt.Errorf("%w: %d, and %d nodes take replicas now", outcome.ErrInvalidReplicationFactor, factor, len(nodes))
	}
	lost := p.lost(view)
	reassign := &fsm.Reassign{Topic: topic.ID, ReplicationFactor: factor}
	for i := range topic.Partitions {
		partition := &topic.Partitions[i]
		to, err := withFactor(partition, factor, nodes, here)
		if err != nil {
			return command, fmt.Errorf("%w %d", err, i)
		}
		if len(partition.Replicas) != factor {
			if why := cannotMove(topic, int32(i), partition, to, here, lost); why != "" {
				return command, fmt.Errorf("%w: %s", outcome.ErrInvalidReplicationFactor, why)
			}
		}
		reassign.Moves = append(reassign.Moves, fsm.Move{Partition: int32(i), From: partition.Replicas, To: to})
	}
	command.Reassign = reassign
	return command, nil
}

// withFactor gives a partition's replicas when it has so many, and counts those that are new among
// nodes. Where no node is left for one the error ends where the number of the partition goes.
func withFactor(p *fsm.Partition, factor int, nodes []placement.Node, here map[fsm.NodeID]bool) ([]fsm.NodeID, error) {
	if len(p.Replicas) == factor {
		return p.Replicas, nil
	}
	to := slices.Clone(p.Replicas)
	for len(to) > factor {
		at := leastUseful(to, here)
		to = slices.Delete(to, at, at+1)
	}
	for len(to) < factor {
		target, ok := placement.Target(nodes, to, "")
		if !ok {
			return nil, fmt.Errorf("%w: %d, and no node is left for partition", outcome.ErrInvalidReplicationFactor, factor)
		}
		to = append(to, target)
		taken(nodes, target)
	}
	return to, nil
}

// leastUseful is the place of the replica to do without: the last one that is not there, else the
// last.
func leastUseful(replicas []fsm.NodeID, here map[fsm.NodeID]bool) int {
	for i := len(replicas) - 1; i >= 0; i-- {
		if !here[replicas[i]] {
			return i
		}
	}
	return len(replicas) - 1
}
