package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/trimaran-io/trimaran/cluster/placement"
	"github.com/trimaran-io/trimaran/fsm"
)

// Administer does what an operator asks and returns when it is in the catalog; what
// follows from it takes its time and is seen in Status. Errors are fsm's: ErrInvalidAssignment where it
// cannot be done, with the reason, ErrLevel while nodes run an older program.
func (n *Node) Administer(ctx context.Context, request fsm.AdminRequest) error {
	payload, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("%w: %w", fsm.ErrUnknown, err)
	}
	reply, err := n.catalog.atLeader(ctx, callAdminister, payload, func(ctx context.Context) ([]byte, error) {
		return n.administerAsLeader(ctx, request)
	})
	if err != nil {
		return err
	}
	n.catalog.makeKnown(ctx, reply.Index)
	return nil
}

func (n *Node) administerAsLeader(ctx context.Context, request fsm.AdminRequest) ([]byte, error) {
	c := n.catalog
	if err := c.placing(ctx); err != nil {
		return nil, err
	}
	defer c.placed()
	if _, err := c.indexAsLeader(ctx); err != nil {
		return nil, err
	}
	view := c.view.Load()
	command, err := n.commandOf(view, request)
	if err != nil {
		return nil, err
	}
	if err := view.CheckLevel(&command); err != nil {
		return nil, err
	}
	return c.applyAsLeader(ctx, command.Encode())
}

func (n *Node) commandOf(view *fsm.Topics, request fsm.AdminRequest) (command fsm.CatalogCommand, err error) {
	if request.Op == fsm.OpReplicationFactor {
		return n.changeFactor(view, request.Topic, request.Factor)
	}
	node, ok := view.Node(request.Node)
	if !ok {
		return command, fmt.Errorf("%w: no node is named %q", fsm.ErrInvalidAssignment, request.Node)
	}
	state := &fsm.SetNodeState{ID: node.ID}
	command.SetNodeState = state
	switch request.Op {
	case fsm.OpDrain:
		state.State = fsm.NodeDraining
	case fsm.OpActivate:
	case fsm.OpDecommission, fsm.OpReplace:
		state.State, state.Successor = fsm.NodeLeaving, request.Successor
		if request.Op == fsm.OpReplace && request.Successor != "" && !n.nodesHere(view)[request.Successor] {
			return command, fmt.Errorf("%w: no node %q is there to take over", fsm.ErrInvalidAssignment, request.Successor)
		}
		return command, n.canLeave(view, node)
	default:
		return command, fmt.Errorf("%w: %q is nothing that can be asked for", fsm.ErrInvalidConfig, request.Op)
	}
	return command, nil
}

// canLeave says whether the others can take the node's replicas.
func (n *Node) canLeave(view *fsm.Topics, node fsm.Node) error {
	here := n.nodesHere(view)
	others := 0
	for _, other := range view.Nodes() {
		if other.ID != node.ID && here[other.ID] && other.State == fsm.NodeActive {
			others++
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
		return fmt.Errorf("%w: without node %s there are %d nodes for replicas, and topics have more: %q%s; add a node, or lower their replication factor",
			fsm.ErrInvalidAssignment, node.ID, others, topics, more)
	}
	if others == 0 {
		return fmt.Errorf("%w: node %s is the only one", fsm.ErrInvalidAssignment, node.ID)
	}
	return nil
}

// changeFactor adds replicas where there are fewest, or takes the last ones of each partition away.
func (n *Node) changeFactor(view *fsm.Topics, name string, factor int) (command fsm.CatalogCommand, err error) {
	topic, ok := view.Lookup(name)
	if name == fsm.GroupShardsName {
		topic, ok = view.GroupShards()
	}
	if !ok {
		return command, fmt.Errorf("%w: %q", fsm.ErrUnknownTopicOrPartition, name)
	}
	here := n.nodesHere(view)
	nodes := candidates(view, here)
	if factor < 1 || factor > len(nodes) && factor > topic.ReplicationFactor {
		return command, fmt.Errorf("%w: %d, and %d nodes take replicas now", fsm.ErrInvalidReplicationFactor, factor, len(nodes))
	}
	reassign := &fsm.Reassign{Topic: topic.ID, ReplicationFactor: factor}
	for i, p := range topic.Partitions {
		to := slices.Clone(p.Replicas)
		for len(to) > factor {
			to = slices.Delete(to, leastUseful(to, here), leastUseful(to, here)+1)
		}
		for len(to) < factor {
			target, ok := placement.Target(nodes, to, "")
			if !ok {
				return command, fmt.Errorf("%w: %d, and no node is left for partition %d", fsm.ErrInvalidReplicationFactor, factor, i)
			}
			to = append(to, target)
			for k := range nodes {
				if nodes[k].ID == target {
					nodes[k].Replicas++
				}
			}
		}
		reassign.Moves = append(reassign.Moves, fsm.Move{Partition: int32(i), From: p.Replicas, To: to})
	}
	command.Reassign = reassign
	return command, nil
}

// leastUseful is the place of the replica to do without: the last one that is not there, else the last.
func leastUseful(replicas []fsm.NodeID, here map[fsm.NodeID]bool) int {
	for i := len(replicas) - 1; i >= 0; i-- {
		if !here[replicas[i]] {
			return i
		}
	}
	return len(replicas) - 1
}
