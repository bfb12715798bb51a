package fsm

import (
	"fmt"
	"slices"

	"github.com/trimaran-io/trimaran/outcome"
)

// This file holds what moves replicas: states of nodes, and where partitions shall live.
//
// A move never lowers what a group can lose. With Reassign the catalog says where a partition's
// replicas shall be; who holds one and shall not is noted as leaving and keeps it. The group's
// leader takes in who is new, without a vote, lets them catch up and vote, and only then puts out
// who is leaving. When they are out of the group's configuration it says so with Settle, and they
// delete their files. All of that follows from the catalog and the group's own configuration, so it
// goes on wherever a crash cut it.

// NodeState is what an operator wants of a node.
type NodeState string

const (
	NodeActive NodeState = "" // takes replicas and leads
	// NodeDraining keeps its replicas, leads nothing that another can lead, and gets no more
	// replicas.
	NodeDraining NodeState = "draining"
	// NodeLeaving gives its replicas to others, and leaves the cluster when it has none.
	NodeLeaving NodeState = "leaving"
)

func (s NodeState) check() error {
	switch s {
	case NodeActive, NodeDraining, NodeLeaving:
		return nil
	}
	return fmt.Errorf("%w: node state %q", outcome.ErrInvalidConfig, s)
}

// SetNodeState changes the state of a node.
type SetNodeState struct {
	ID    NodeID    `json:"id"`
	State NodeState `json:"state"`
	// Successor is the node that shall get the replicas of one that is leaving; "": whichever
	// suits.
	Successor NodeID `json:"successor,omitempty"`
}

// Reassign says where replicas shall be.
type Reassign struct {
	Topic TopicID `json:"topic"`
	// ReplicationFactor is the topic's from now on; 0: as it is. With another one, Moves must name
	// all partitions.
	ReplicationFactor int    `json:"replication_factor,omitempty"`
	Moves             []Move `json:"moves"`
}

// Move is one partition's part. It is void if the partition's replicas are not From any more.
type Move struct {
	Partition int32    `json:"partition"`
	From      []NodeID `json:"from"`
	To        []NodeID `json:"to"` // the preferred leader first
}

// Settle says that nodes that were leaving a partition are out of its group.
type Settle struct {
	Topic     TopicID  `json:"topic"`
	Partition int32    `json:"partition"`
	Nodes     []NodeID `json:"nodes"`
	// Replicas, if there are any, are those that the leader made its group of: with others by now
	// the command is old, and void. From levelVoters on.
	Replicas []NodeID `json:"replicas,omitempty"`
}

// Holders gives the nodes that have a replica or shall have one: Replicas and those that are
// leaving.
func (p *Partition) Holders() []NodeID {
	if len(p.Leaving) == 0 {
		return p.Replicas
	}
	return slices.Concat(p.Replicas, p.Leaving)
}

// Holds says whether the node is one of Holders.
func (p *Partition) Holds(id NodeID) bool {
	return slices.Contains(p.Replicas, id) || slices.Contains(p.Leaving, id)
}

func (c *Catalog) setNodeState(s *SetNodeState) (*Topics, error) {
	node, ok := c.view.Node(s.ID)
	if !ok {
		return nil, fmt.Errorf("%w: no node %q is registered", outcome.ErrInvalidAssignment, s.ID)
	}
	if err := s.State.check(); err != nil {
		return nil, err
	}
	if s.Successor != "" {
		if _, ok := c.view.Node(s.Successor); !ok || s.Successor == s.ID || s.State != NodeLeaving {
			return nil, fmt.Errorf("%w: node %s cannot be succeeded by %q", outcome.ErrInvalidAssignment, s.ID, s.Successor)
		}
	}
	next := node
	next.State, next.Successor = s.State, s.Successor
	if next == node {
		return c.view, nil
	}
	return c.view.withNode(next), nil
}

func (c *Catalog) reassign(r *Reassign) (*Topics, error) {
	old, ok := c.view.placed(r.Topic)
	if !ok {
		return nil, fmt.Errorf("%w: no topic has id %s", outcome.ErrUnknownTopicOrPartition, r.Topic)
	}
	factor := old.ReplicationFactor
	if r.ReplicationFactor != 0 && r.ReplicationFactor != factor {
		factor = r.ReplicationFactor
		if factor < 1 || factor > len(c.view.nodes) {
			return nil, fmt.Errorf("%w: %d, and the cluster has %d nodes", outcome.ErrInvalidReplicationFactor, factor, len(c.view.nodes))
		}
		if len(r.Moves) != len(old.Partitions) {
			return nil, fmt.Errorf("%w: %d partitions are named, topic %s has %d", outcome.ErrInvalidAssignment, len(r.Moves), old.Name, len(old.Partitions))
		}
	}
	topic := *old
	topic.ReplicationFactor = factor
	topic.Partitions = slices.Clone(old.Partitions)
	changed := factor != old.ReplicationFactor
	seen := map[int32]bool{}
	for _, m := range r.Moves {
		if m.Partition < 0 || int(m.Partition) >= len(topic.Partitions) || seen[m.Partition] {
			return nil, fmt.Errorf("%w: partition %d of topic %s", outcome.ErrUnknownTopicOrPartition, m.Partition, old.Name)
		}
		seen[m.Partition] = true
		if err := CheckAssignment([][]NodeID{m.To}, factor, c.view.isRegistered); err != nil {
			return nil, fmt.Errorf("partition %d: %w", m.Partition, err)
		}
		p := &topic.Partitions[m.Partition]
		if slices.Equal(p.Replicas, m.To) {
			continue
		}
		if !slices.Equal(p.Replicas, m.From) {
			return nil, fmt.Errorf("%w: partition %d has its replicas on %q, not on %q", outcome.ErrInvalidAssignment, m.Partition, p.Replicas, m.From)
		}
		var leaving []NodeID
		for _, id := range p.Holders() {
			if !slices.Contains(m.To, id) {
				leaving = append(leaving, id)
			}
		}
		p.Replicas, p.Leaving = slices.Clone(m.To), leaving
		changed = true
	}
	if !changed {
		return c.view, nil
	}
	return c.view.withTopic(&topic), nil
}

func (c *Catalog) settle(s *Settle) (*Topics, error) {
	old, ok := c.view.placed(s.Topic)
	if !ok || s.Partition < 0 || int(s.Partition) >= len(old.Partitions) {
		return nil, fmt.Errorf("%w: partition %d of topic %s", outcome.ErrUnknownTopicOrPartition, s.Partition, s.Topic)
	}
	if s.Replicas != nil && !slices.Equal(s.Replicas, old.Partitions[s.Partition].Replicas) {
		return c.view, nil
	}
	var left []NodeID
	for _, id := range old.Partitions[s.Partition].Leaving {
		if !slices.Contains(s.Nodes, id) {
			left = append(left, id)
		}
	}
	if len(left) == len(old.Partitions[s.Partition].Leaving) {
		return c.view, nil
	}
	topic := *old
	topic.Partitions = slices.Clone(old.Partitions)
	topic.Partitions[s.Partition].Leaving = left
	// Its leader says so: the group has been formed. Who comes back later does not form it again.
	topic.Partitions[s.Partition].Voters = nil
	return c.view.withTopic(&topic), nil
}
