package fsm

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// MaxPartitions is the largest number of partitions of a topic.
const MaxPartitions = 100_000

// Topic is a topic of the catalog. It is never changed after it was put there,
// only replaced, so that readers need no lock.
type Topic struct {
	Name       string      `json:"name"`
	ID         TopicID     `json:"id"`
	Partitions []Partition `json:"partitions"`
	// ReplicationFactor is what was asked for; while a replica is being moved, a
	// partition may have more.
	ReplicationFactor int `json:"replication_factor"`
	// Configs holds what was set for this topic, Kafka's names. Read it with Config.
	Configs map[string]string `json:"configs,omitempty"`
	// Origin is what the topic was restored from, "" for one that was not. Restoring: that is not
	// over. See restored.go.
	Origin    string `json:"origin,omitempty"`
	Restoring bool   `json:"restoring,omitempty"`
}

// Partition is where one partition of a topic lives.
type Partition struct {
	// Replicas are the nodes that hold the partition; the first is the preferred leader.
	Replicas []NodeID `json:"replicas"`
	// Bootstrap are the names of the nodes that the partition was created on. It never changes. A
	// name may belong to another node by now; who forms the group is in Voters.
	Bootstrap []NodeID `json:"bootstrap"`
	// Voters are the identities that the Raft group is formed with, see formed.go. nil: it has been
	// formed, and its configuration comes from its leader. No command has them.
	Voters []string `json:"voters,omitempty"`
	// Leaving are nodes that hold a replica until those in Replicas do without them.
	Leaving []NodeID `json:"leaving,omitempty"`
	// Begin is where the log begins that the group is formed with; nil: at offset 0.
	Begin *Begin `json:"begin,omitempty"`
}

// TopicSpec is a wish for a topic, before it is placed.
type TopicSpec struct {
	Name              string `json:"name"`
	Partitions        int32  `json:"partitions"`         // -1: the cluster's default
	ReplicationFactor int16  `json:"replication_factor"` // -1: the cluster's default
	// replicas per partition; nil: placement decides
	Assignment [][]NodeID        `json:"assignment,omitempty"`
	Configs    map[string]string `json:"configs,omitempty"`
	// Restore is what is said of a topic that is to be restored; nil: it is a new one.
	Restore *RestoreSpec `json:"restore,omitempty"`
}

// Topics is the catalog at one moment. It never changes and may be read by any
// number of goroutines; what its methods return belongs to it and must not be
// changed either.
type Topics struct {
	clusterID    string
	version      Index
	featureLevel int      // 0 is 1
	nodes        []Node   // by id
	all          []*Topic // by name
	byName       map[string]*Topic
	byID         map[TopicID]*Topic
	// byMetric finds a topic by its name with '.' read as '_': two topics of one
	// such name would share their metrics, which Kafka refuses.
	byMetric map[string]*Topic
	left     []string // identities of nodes that have left, the last one behind
	// groups are the shards of consumer groups, nil before their first use. They are
	// in none of the above.
	groups *Topic
	broker BrokerSettings // replaced, never changed
	// security is nil before the first command about it. Read it with Security.
	security *Security
	// producerFloor is the first producer id that may be handed out, see restored.go.
	producerFloor int64
}

// Lookup finds a topic by name.
func (t *Topics) Lookup(name string) (*Topic, bool) {
	topic, ok := t.byName[name]
	return topic, ok
}

// ByID finds a topic by id.
func (t *Topics) ByID(id TopicID) (*Topic, bool) {
	topic, ok := t.byID[id]
	return topic, ok
}

// All gives all topics of clients, sorted by name.
func (t *Topics) All() []*Topic { return slices.Clip(t.all) }

// Partition finds a partition, or a shard of consumer groups.
func (t *Topics) Partition(id PartitionID) (*Partition, bool) {
	topic, ok := t.placed(id.Topic)
	if !ok || id.Partition < 0 || int(id.Partition) >= len(topic.Partitions) {
		return nil, false
	}
	return &topic.Partitions[id.Partition], true
}

// Has reports whether a topic of clients is there and has that partition.
func (t *Topics) Has(topic string, partition int32) bool {
	found, ok := t.byName[topic]
	return ok && partition >= 0 && int(partition) < len(found.Partitions)
}

// Nodes gives the registered nodes, sorted by id.
func (t *Topics) Nodes() []Node { return slices.Clip(t.nodes) }

// Node finds a registered node.
func (t *Topics) Node(id NodeID) (Node, bool) {
	i, ok := t.findNode(id)
	if !ok {
		return Node{}, false
	}
	return t.nodes[i], true
}

func (t *Topics) findNode(id NodeID) (int, bool) {
	return slices.BinarySearchFunc(t.nodes, id, func(n Node, id NodeID) int { return strings.Compare(string(n.ID), string(id)) })
}

// Version is the Raft index of the command that made this catalog from the one
// before; 0 for the empty catalog.
func (t *Topics) Version() Index { return t.version }

// ClusterID is the name that the cluster was formed with, "" before.
func (t *Topics) ClusterID() string { return t.clusterID }

// CheckCreate reports whether the topic could be created now: its name is free
// and allowed, its partitions are placed on registered nodes, its configuration
// is known. It is what Catalog.Apply asks, so a proposer, or a request that
// wants validation only, can ask beforehand. The error is the outcome.Error that
// Apply would answer, with details.
func (t *Topics) CheckCreate(topic *Topic) error {
	if _, ok := t.byName[topic.Name]; ok {
		return fmt.Errorf("%w: %s", outcome.ErrTopicExists, topic.Name)
	}
	if err := t.checkNew(topic); err != nil {
		return err
	}
	replicas := make([][]NodeID, len(topic.Partitions))
	for i, p := range topic.Partitions {
		if !slices.Equal(p.Replicas, p.Bootstrap) {
			return fmt.Errorf("%w: partition %d: its group is formed with %q and its replicas are %q", outcome.ErrInvalidAssignment, i, p.Bootstrap, p.Replicas)
		}
		if len(p.Leaving) > 0 {
			return fmt.Errorf("%w: partition %d: nobody can be leaving it yet", outcome.ErrInvalidAssignment, i)
		}
		if err := p.checkNoVoters(); err != nil {
			return err
		}
		replicas[i] = p.Replicas
	}
	if err := CheckAssignment(replicas, topic.ReplicationFactor, t.isRegistered); err != nil {
		return err
	}
	if err := CheckConfigs(topic.Configs); err != nil {
		return err
	}
	return t.checkLists(topic.Configs)
}

// checkNew checks name, id and numbers of a topic that is to stand beside the
// others.
func (t *Topics) checkNew(topic *Topic) error {
	if err := kafkaproto.CheckTopicName(topic.Name); err != nil {
		return outcome.With(outcome.ErrInvalidTopicName, err)
	}
	if other, ok := t.byMetric[metricName(topic.Name)]; ok {
		return fmt.Errorf("%w: %s collides with %s, since '.' and '_' are the same in metrics", outcome.ErrInvalidTopicName, topic.Name, other.Name)
	}
	if topic.Internal() {
		return fmt.Errorf("%w: topic %s has an id that is kept for the shards of consumer groups", outcome.ErrUnknown, topic.Name)
	}
	if topic.ID.IsZero() {
		return fmt.Errorf("%w: topic %s has no id", outcome.ErrUnknown, topic.Name)
	}
	if other, ok := t.byID[topic.ID]; ok {
		return fmt.Errorf("%w: id %s is that of %s", outcome.ErrTopicExists, topic.ID, other.Name)
	}
	if n := len(topic.Partitions); n < 1 || n > MaxPartitions {
		return fmt.Errorf("%w: %d, want 1 to %d", outcome.ErrInvalidPartitions, n, MaxPartitions)
	}
	if rf := topic.ReplicationFactor; rf < 1 || rf > len(t.nodes) {
		return fmt.Errorf("%w: %d, and the cluster has %d nodes", outcome.ErrInvalidReplicationFactor, rf, len(t.nodes))
	}
	return topic.checkRestoring()
}

// checkStored checks a topic of a snapshot. Replicas on the move may be more or
// fewer than the replication factor says.
func (t *Topics) checkStored(topic *Topic) error {
	check := t.checkNew
	if topic.Internal() {
		check = t.checkShards
	}
	if err := check(topic); err != nil {
		return err
	}
	for i, p := range topic.Partitions {
		if err := CheckAssignment([][]NodeID{p.Replicas}, len(p.Replicas), t.isRegistered); err != nil {
			return fmt.Errorf("topic %s, partition %d: %w", topic.Name, i, err)
		}
		for j, id := range p.Leaving {
			if !t.isRegistered(id) || slices.Contains(p.Replicas, id) || slices.Contains(p.Leaving[:j], id) {
				return fmt.Errorf("topic %s, partition %d: node %q cannot be leaving it", topic.Name, i, id)
			}
		}
		if len(p.Bootstrap) == 0 {
			return fmt.Errorf("topic %s, partition %d: not known with which nodes its group was formed", topic.Name, i)
		}
		if err := p.checkVoters(); err != nil {
			return fmt.Errorf("topic %s, partition %d: %w", topic.Name, i, err)
		}
	}
	return nil
}

func (t *Topics) isRegistered(id NodeID) bool {
	_, ok := t.findNode(id)
	return ok
}

// CheckAssignment reports whether every partition has rf replicas on different
// nodes, all of which are registered. The error is ErrInvalidAssignment or
// ErrInvalidPartitions.
func CheckAssignment(replicas [][]NodeID, rf int, registered func(NodeID) bool) error {
	if n := len(replicas); n < 1 || n > MaxPartitions {
		return fmt.Errorf("%w: %d, want 1 to %d", outcome.ErrInvalidPartitions, n, MaxPartitions)
	}
	for p, nodes := range replicas {
		if len(nodes) != rf || rf < 1 {
			return fmt.Errorf("%w: partition %d has %d replicas, want %d", outcome.ErrInvalidAssignment, p, len(nodes), rf)
		}
		for i, id := range nodes {
			if slices.Contains(nodes[:i], id) {
				return fmt.Errorf("%w: partition %d has two replicas on node %q", outcome.ErrInvalidAssignment, p, id)
			}
			if !registered(id) {
				return fmt.Errorf("%w: partition %d: no node %q is registered", outcome.ErrInvalidAssignment, p, id)
			}
		}
	}
	return nil
}

func metricName(topic string) string { return strings.ReplaceAll(topic, ".", "_") }

func compareTopicName(t *Topic, name string) int { return strings.Compare(t.Name, name) }

func emptyTopics() *Topics {
	return &Topics{byName: map[string]*Topic{}, byID: map[TopicID]*Topic{}, byMetric: map[string]*Topic{}}
}

// The methods below give a changed copy; t stays what it is.

func (t *Topics) withNode(node Node) *Topics {
	next := *t
	i, ok := t.findNode(node.ID)
	next.nodes = slices.Clone(t.nodes)
	if ok {
		next.nodes[i] = node
	} else {
		next.nodes = slices.Insert(next.nodes, i, node)
	}
	return &next
}

func (t *Topics) withoutNode(id NodeID) *Topics {
	next := *t
	next.nodes = slices.DeleteFunc(slices.Clone(t.nodes), func(n Node) bool { return n.ID == id })
	return &next
}

func (t *Topics) withTopic(topic *Topic) *Topics {
	if topic.Internal() {
		next := *t
		next.groups = topic
		return &next
	}
	next := t.cloneTopics()
	i, ok := slices.BinarySearchFunc(next.all, topic.Name, compareTopicName)
	if ok {
		next.all[i] = topic
	} else {
		next.all = slices.Insert(next.all, i, topic)
	}
	next.byName[topic.Name] = topic
	next.byID[topic.ID] = topic
	next.byMetric[metricName(topic.Name)] = topic
	return next
}

func (t *Topics) withoutTopic(topic *Topic) *Topics {
	next := t.cloneTopics()
	if i, ok := slices.BinarySearchFunc(next.all, topic.Name, compareTopicName); ok {
		next.all = slices.Delete(next.all, i, i+1)
	}
	delete(next.byName, topic.Name)
	delete(next.byID, topic.ID)
	delete(next.byMetric, metricName(topic.Name))
	return next
}

func (t *Topics) cloneTopics() *Topics {
	next := *t
	next.all = slices.Clone(t.all)
	next.byName, next.byID, next.byMetric = maps.Clone(t.byName), maps.Clone(t.byID), maps.Clone(t.byMetric)
	return &next
}
