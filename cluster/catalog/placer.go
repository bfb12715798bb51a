package catalog

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/placement"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// placer says which command makes true what is asked for, by the catalog as it is and by who is
// there. It changes nothing.
type placer struct {
	partitions int32 // of a topic that does not say
	factor     int16 // likewise
	shards     int32 // of consumer groups
	hasTier    bool  // there is a store for old records
	connected  func(identity string) bool
	// voters gives the identities of who votes in the catalog's group; nil: there is no group.
	voters func() ([]string, error)
	// lost gives the nodes that the cluster was recovered without.
	lost func(*fsm.Topics) map[fsm.NodeID]bool
}

func (p *placer) here(view *fsm.Topics) map[fsm.NodeID]bool { return nodesHere(view, p.connected) }

// createTopic places and creates a topic.
func (p *placer) createTopic(view *fsm.Topics, call calls.CreateTopicRequest) (command fsm.CatalogCommand, err error) {
	if view.ClusterID() == "" {
		return command, fmt.Errorf("%w: the cluster is being formed", outcome.ErrNoLeader)
	}
	if old, ok := view.Lookup(call.Spec.Name); ok {
		if old.ID == call.ID && (call.Spec.Restore == nil || old.Origin == call.Spec.Restore.Origin) {
			return command, errDone
		}
		return command, fmt.Errorf("%w: %q", outcome.ErrTopicExists, call.Spec.Name)
	}
	topic := &fsm.Topic{Name: call.Spec.Name, ID: call.ID, Configs: call.Spec.Configs}
	assignment, factor, err := p.assignment(view, call)
	if err != nil {
		return command, err
	}
	topic.ReplicationFactor = factor
	if err := fsm.CheckWish(nil, topic.Configs, factor); err != nil {
		return command, err
	}
	// What is restored is as it was; its records stay here where there is no store.
	if err := checkTier(nil, topic.Configs, p.hasTier || call.Spec.Restore != nil); err != nil {
		return command, err
	}
	topic.Partitions = formedOn(assignment)
	if restore := call.Spec.Restore; restore != nil {
		if len(restore.Begin) != len(topic.Partitions) {
			return command, fmt.Errorf("%w: %d, and it is said of %d where they begin", outcome.ErrInvalidPartitions, len(topic.Partitions), len(restore.Begin))
		}
		topic.Origin, topic.Restoring = restore.Origin, true
		for i := range topic.Partitions {
			topic.Partitions[i].Begin = &restore.Begin[i]
		}
		if err := view.CheckCreate(topic); err != nil {
			return command, err
		}
	}
	if call.ValidateOnly {
		if err := view.CheckCreate(topic); err != nil {
			return command, err
		}
		return command, errDone
	}
	command.CreateTopic = &fsm.CreateTopic{Topic: *topic}
	return command, nil
}

// assignment gives the replicas of a new topic's partitions, and how many each has.
func (p *placer) assignment(view *fsm.Topics, call calls.CreateTopicRequest) ([][]fsm.NodeID, int, error) {
	partitions, factor := call.Spec.Partitions, int(call.Spec.ReplicationFactor)
	nodes := len(view.Nodes())
	if partitions == -1 {
		partitions = p.partitions
	}
	if factor == -1 {
		factor = min(int(p.factor), nodes)
	}
	if assignment := call.Spec.Assignment; assignment != nil {
		if len(assignment) > 0 {
			factor = len(assignment[0])
		}
		return assignment, factor, nil
	}
	if partitions < 1 || partitions > fsm.MaxPartitions {
		return nil, 0, fmt.Errorf("%w: %d, want 1 to %d", outcome.ErrInvalidPartitions, partitions, fsm.MaxPartitions)
	}
	if factor < 1 || factor > nodes {
		return nil, 0, fmt.Errorf("%w: %d, and the cluster has %d nodes", outcome.ErrInvalidReplicationFactor, factor, nodes)
	}
	assignment, err := p.place(view, partitions, factor, call.ID)
	return assignment, factor, err
}

// formedOn gives partitions whose groups are formed by who holds them first.
func formedOn(assignment [][]fsm.NodeID) (partitions []fsm.Partition) {
	for _, replicas := range assignment {
		partitions = append(partitions, fsm.Partition{Replicas: replicas, Bootstrap: replicas})
	}
	return partitions
}

// createPartitions places partitions and adds them to a topic.
func (p *placer) createPartitions(view *fsm.Topics, call calls.CreatePartitionsRequest) (command fsm.CatalogCommand, err error) {
	topic, ok := view.ByID(call.Topic)
	if !ok {
		return command, fmt.Errorf("%w: no topic has id %s", outcome.ErrUnknownTopicOrPartition, call.Topic)
	}
	has := len(topic.Partitions)
	if has == call.Count && call.From < has {
		return command, errDone // by the same call, whose answer was lost
	}
	if call.Count <= has || call.Count > fsm.MaxPartitions {
		return command, fmt.Errorf("%w: topic %s has %d partitions, %d are no more, want at most %d", outcome.ErrInvalidPartitions, topic.Name, has, call.Count, fsm.MaxPartitions)
	}
	// The seed decides who begins: another one than the topic's first partitions had, or the first
	// node would get the first of each piece.
	seed := call.Topic
	binary.BigEndian.PutUint64(seed[8:], binary.BigEndian.Uint64(seed[8:])+uint64(has))
	assignment, err := p.place(view, int32(call.Count-has), topic.ReplicationFactor, seed)
	if err != nil {
		return command, err
	}
	create := &fsm.CreatePartitions{Topic: call.Topic, From: has, Partitions: formedOn(assignment)}
	if call.ValidateOnly {
		if _, err := view.CheckCreatePartitions(create); err != nil {
			return command, err
		}
		return command, errDone
	}
	command.CreatePartitions = create
	return command, nil
}

// createShards places and creates the shards of consumer groups.
func (p *placer) createShards(view *fsm.Topics) (command fsm.CatalogCommand, err error) {
	if view.ClusterID() == "" {
		return command, fmt.Errorf("%w: the cluster is being formed", outcome.ErrNoLeader)
	}
	if _, ok := view.GroupShards(); ok {
		return command, errDone
	}
	// Clients ask again, also while a node's program is too old.
	if err := view.CheckFeatureLevel(&fsm.CatalogCommand{CreateGroupShards: &fsm.CreateGroupShards{}}); err != nil {
		return command, fmt.Errorf("%w: %w", outcome.ErrNoLeader, err)
	}
	create := &fsm.CreateGroupShards{ReplicationFactor: min(max(int(p.factor), 3), len(view.Nodes()))}
	assignment, err := p.place(view, p.shards, create.ReplicationFactor, fsm.GroupShardsID)
	if err != nil {
		return command, err
	}
	create.Partitions = formedOn(assignment)
	command.CreateGroupShards = create
	return command, nil
}

// place assigns partitions to nodes that are alive, and to absent ones only as far as the
// replication factor needs them: they catch up when they return. A majority of every partition's
// replicas must be alive.
func (p *placer) place(view *fsm.Topics, partitions int32, factor int, seed fsm.TopicID) ([][]fsm.NodeID, error) {
	alive := p.here(view)
	candidates := p.choices(view, alive, factor)
	assignment, err := placement.Assign(candidates, partitions, factor, seedOf(seed))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", outcome.ErrInvalidReplicationFactor, err)
	}
	for i, replicas := range assignment {
		if !majorityOf(replicas, alive) {
			return nil, fmt.Errorf("%w: %d, and only %d nodes are alive", outcome.ErrInvalidReplicationFactor, factor, len(alive))
		}
		// An absent node cannot lead: the first replica is the preferred leader.
		slices.SortStableFunc(assignment[i], func(a, b fsm.NodeID) int {
			return boolInt(alive[b]) - boolInt(alive[a])
		})
	}
	return assignment, nil
}

// choices are the nodes among which new replicas are spread, with what they hold now: those that
// are alive and take replicas, and as many others as are missing to so many, those who are draining
// first.
func (p *placer) choices(view *fsm.Topics, alive map[fsm.NodeID]bool, factor int) []placement.Node {
	load := map[fsm.NodeID]*placement.Node{}
	var here, absent []*placement.Node
	draining := 0
	for _, node := range view.Nodes() {
		candidate := &placement.Node{ID: node.ID, Zone: node.Zone}
		load[node.ID] = candidate
		switch {
		case node.State == fsm.NodeLeaving:
		case alive[node.ID] && node.State == fsm.NodeActive:
			here = append(here, candidate)
		case alive[node.ID]:
			absent = slices.Insert(absent, draining, candidate)
			draining++
		default:
			absent = append(absent, candidate)
		}
	}
	countLoad(view, load)
	for len(here) < factor && len(absent) > 0 {
		here, absent = append(here, absent[0]), absent[1:]
	}
	return values(here)
}

// takers are the nodes that may get replicas of what is there, with what they hold now.
func takers(view *fsm.Topics, here map[fsm.NodeID]bool) []placement.Node {
	load := map[fsm.NodeID]*placement.Node{}
	var list []*placement.Node
	for _, node := range view.Nodes() {
		if here[node.ID] && node.State == fsm.NodeActive {
			candidate := &placement.Node{ID: node.ID, Zone: node.Zone}
			load[node.ID] = candidate
			list = append(list, candidate)
		}
	}
	countLoad(view, load)
	return values(list)
}

// countLoad adds what nodes hold.
func countLoad(view *fsm.Topics, load map[fsm.NodeID]*placement.Node) {
	eachPartition(view, func(_ *fsm.Topic, _ int32, partition *fsm.Partition) {
		for i, id := range partition.Replicas {
			if node := load[id]; node != nil {
				node.Replicas++
				if i == 0 {
					node.Leaders++
				}
			}
		}
	})
}

func values(list []*placement.Node) []placement.Node {
	out := make([]placement.Node, len(list))
	for i, node := range list {
		out[i] = *node
	}
	return out
}

// taken counts one more replica of a node.
func taken(nodes []placement.Node, by fsm.NodeID) {
	for i := range nodes {
		if nodes[i].ID == by {
			nodes[i].Replicas++
		}
	}
}

func eachPartition(view *fsm.Topics, visit func(topic *fsm.Topic, p int32, partition *fsm.Partition)) {
	for _, topic := range view.Placed() {
		for i := range topic.Partitions {
			visit(topic, int32(i), &topic.Partitions[i])
		}
	}
}

// majorityOf reports whether more than half of the nodes are among those here.
func majorityOf(nodes []fsm.NodeID, here map[fsm.NodeID]bool) bool {
	there := 0
	for _, id := range nodes {
		there += boolInt(here[id])
	}
	return there > len(nodes)/2
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func seedOf(id fsm.TopicID) uint64 {
	return binary.BigEndian.Uint64(id[:8]) ^ binary.BigEndian.Uint64(id[8:])
}
