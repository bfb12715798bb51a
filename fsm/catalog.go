package fsm

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/trimaran-io/trimaran/outcome"
)

// commandVersion is the version of the envelope of the catalog's commands. All replicas of a group
// must understand a command alike, so a new kind is used only when every registered node runs a
// program that knows it (Level). One of a newer version or kind is ErrNewer; what is no command at
// all is void.
const commandVersion = 1

// CatalogCommand is one change of the catalog, as it stands in the catalog's
// Raft log: JSON, with exactly one of the pointers set.
type CatalogCommand struct {
	Version      int          `json:"version"` // Encode writes the current one if it is 0
	FormCluster  *FormCluster `json:"form_cluster,omitempty"`
	RegisterNode *Node        `json:"register_node,omitempty"`
	RemoveNode   *RemoveNode  `json:"remove_node,omitempty"`
	CreateTopic  *CreateTopic `json:"create_topic,omitempty"`
	DeleteTopic  *DeleteTopic `json:"delete_topic,omitempty"`

	AllocateProducerIDs *AllocateProducerIDs `json:"allocate_producer_ids,omitempty"`
	AlterConfigs        *AlterConfigs        `json:"alter_configs,omitempty"`
	AlterBrokerConfigs  *AlterBrokerConfigs  `json:"alter_broker_configs,omitempty"`
	CreatePartitions    *CreatePartitions    `json:"create_partitions,omitempty"`
	CreateGroupShards   *CreateGroupShards   `json:"create_group_shards,omitempty"`
	RaiseFeatureLevel   *RaiseFeatureLevel   `json:"raise_level,omitempty"`
	SetNodeState        *SetNodeState        `json:"set_node_state,omitempty"`
	Reassign            *Reassign            `json:"reassign,omitempty"`
	Settle              *Settle              `json:"settle,omitempty"`
	AlterCredentials    *AlterCredentials    `json:"alter_credentials,omitempty"`
	AlterACLs           *AlterACLs           `json:"alter_acls,omitempty"`
	AlterTokens         *AlterTokens         `json:"alter_tokens,omitempty"`
	EndRestore          *EndRestore          `json:"end_restore,omitempty"`
}

// FormCluster gives the cluster its id, once, and registers its first nodes.
type FormCluster struct {
	ClusterID string `json:"cluster_id"` // 1 to 64 of a-z, A-Z, 0-9, '-' and '_'
	Nodes     []Node `json:"nodes"`      // at least one
}

// RemoveNode takes a node that holds no replicas out of the catalog.
type RemoveNode struct {
	ID          NodeID `json:"id"`
	Incarnation string `json:"incarnation"` // a node of another incarnation is not meant, and stays
}

// CreateTopic creates a topic. The proposer has minted its id and placed its
// partitions, since neither may happen at apply. A command that arrives twice
// creates once.
type CreateTopic struct {
	Topic Topic `json:"topic"`
}

// DeleteTopic deletes a topic by name, by id or, if both are set, the topic of
// that name if it has that id. By id, deleting twice deletes once.
type DeleteTopic struct {
	Name string  `json:"name,omitempty"`
	ID   TopicID `json:"id"` // zero: whichever topic has the name
}

// AllocateProducerIDs hands out the next ids of idempotent producers, which nobody
// gets again (KIP-98). A command that arrives twice hands out two blocks.
type AllocateProducerIDs struct {
	Count int64 `json:"count"` // 1 to MaxProducerIDBlock
}

// MaxProducerIDBlock is the largest number of producer ids handed out at once.
const MaxProducerIDBlock = 1_000_000

// Encode gives the command as Catalog.Apply takes it.
func (c CatalogCommand) Encode() []byte {
	if c.Version == 0 {
		c.Version = commandVersion
	}
	data, err := json.Marshal(c)
	if err != nil {
		// strings, numbers and maps of them always do
		panic("fsm: a catalog command does not encode: " + err.Error())
	}
	return data
}

// decodeCatalogCommand takes nothing that it does not understand whole: a field
// that was ignored here and obeyed by a newer program would make replicas differ.
func decodeCatalogCommand(data []byte) (CatalogCommand, error) {
	var c CatalogCommand
	if err := DecodeStrictly(data, &c); err != nil {
		return c, fmt.Errorf("catalog command: %w", err)
	}
	if c.Version > commandVersion {
		return c, newer("catalog command of version %d, this program knows %d", c.Version, commandVersion)
	}
	if c.Version != commandVersion {
		return c, fmt.Errorf("%w: catalog command of version %d, this program knows %d", outcome.ErrUnknown, c.Version, commandVersion)
	}
	set := 0
	for _, is := range []bool{c.FormCluster != nil, c.RegisterNode != nil, c.RemoveNode != nil, c.CreateTopic != nil, c.DeleteTopic != nil,
		c.AllocateProducerIDs != nil, c.AlterConfigs != nil, c.AlterBrokerConfigs != nil, c.CreatePartitions != nil, c.CreateGroupShards != nil,
		c.RaiseFeatureLevel != nil, c.SetNodeState != nil, c.Reassign != nil, c.Settle != nil,
		c.AlterCredentials != nil, c.AlterACLs != nil, c.AlterTokens != nil, c.EndRestore != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		return c, fmt.Errorf("%w: catalog command with %d changes, want 1", outcome.ErrUnknown, set)
	}
	return c, nil
}

// CatalogResult is what the proposer of a command is told. If Err is not nil it
// wraps one of the package's errors, and nothing was changed.
type CatalogResult struct {
	Err error
	// FirstProducerID is the first of the ids that AllocateProducerIDs handed out.
	FirstProducerID int64
}

// maxDeleted is how many ids of deleted topics the catalog remembers.
const maxDeleted = 1024

// Catalog is the state machine of the catalog group: cluster id, nodes, topics
// and where their partitions live. It is not safe for concurrent use; its View is.
type Catalog struct {
	applied Index   // of the last command applied, whether it changed anything or not
	view    *Topics // view.version <= applied
	// deleted are the ids of the topics deleted last, oldest first. An id in it is
	// never used again, so a creation that arrives a second time after the topic
	// was deleted does not bring its groups back to life.
	deleted []TopicID
	// nextProducerID is the first producer id that was never handed out. It is not
	// in the view, since nobody but the command that takes ids asks for it.
	nextProducerID int64
}

// NewCatalog gives the empty catalog.
func NewCatalog() *Catalog { return &Catalog{view: emptyTopics()} }

// View gives the catalog as it is now. It never changes; after the next change
// View gives another one.
func (c *Catalog) View() *Topics { return c.view }

// LastApplied is the Raft index of the last command applied, void ones too; 0
// before the first. What a client was told about any command up to it is true of
// View.
func (c *Catalog) LastApplied() Index { return c.applied }

// Apply changes the catalog as the command at index of the catalog's log says.
// It decides by the catalog and the command alone, so all replicas answer alike.
// A command that is hostile or not allowed changes nothing but LastApplied; one
// that a newer program wrote nothing at all, and the error is ErrNewer: nothing behind it may be
// applied then. A command at or below LastApplied is not applied again.
func (c *Catalog) Apply(index Index, cmd []byte) CatalogResult {
	if index <= c.applied {
		return CatalogResult{Err: fmt.Errorf("%w: catalog command %d applied after %d", outcome.ErrUnknown, index, c.applied)}
	}
	command, err := decodeCatalogCommand(cmd)
	if errors.Is(err, ErrNewer) {
		return CatalogResult{Err: err}
	}
	if err == nil && c.view.FeatureLevel() >= levelChecked {
		if err := command.checkWords(); err != nil {
			return CatalogResult{Err: newer("catalog command: %v", err)}
		}
	}
	c.applied = index
	if err != nil {
		return CatalogResult{Err: err}
	}
	if err := c.view.CheckFeatureLevel(&command); err != nil {
		return CatalogResult{Err: err}
	}
	if command.AllocateProducerIDs != nil {
		return c.allocateProducerIDs(command.AllocateProducerIDs.Count)
	}
	var next *Topics
	switch {
	case command.FormCluster != nil:
		next, err = c.formCluster(command.FormCluster)
	case command.RegisterNode != nil:
		next, err = c.registerNode(*command.RegisterNode)
	case command.RemoveNode != nil:
		next, err = c.removeNode(command.RemoveNode)
	case command.CreateTopic != nil:
		next, err = c.createTopic(&command.CreateTopic.Topic)
	case command.DeleteTopic != nil:
		next, err = c.deleteTopic(command.DeleteTopic)
	case command.AlterConfigs != nil:
		next, err = c.alterConfigs(command.AlterConfigs)
	case command.AlterBrokerConfigs != nil:
		next, err = c.alterBrokerConfigs(command.AlterBrokerConfigs)
	case command.CreatePartitions != nil:
		next, err = c.createPartitions(command.CreatePartitions)
	case command.CreateGroupShards != nil:
		next, err = c.createGroupShards(command.CreateGroupShards)
	case command.RaiseFeatureLevel != nil:
		next, err = c.raiseFeatureLevel(command.RaiseFeatureLevel)
	case command.SetNodeState != nil:
		next, err = c.setNodeState(command.SetNodeState)
	case command.Reassign != nil:
		next, err = c.reassign(command.Reassign)
	case command.Settle != nil:
		next, err = c.settle(command.Settle)
	case command.AlterCredentials != nil:
		next, err = c.alterCredentials(index, command.AlterCredentials)
	case command.AlterACLs != nil:
		next, err = c.alterACLs(index, command.AlterACLs)
	case command.AlterTokens != nil:
		next, err = c.alterTokens(index, command.AlterTokens)
	case command.EndRestore != nil:
		next, err = c.endRestore(command.EndRestore)
	}
	if err != nil {
		return CatalogResult{Err: err}
	}
	if next != c.view {
		next.version = index
		c.view = next
	}
	return CatalogResult{}
}

// The methods below give the view after the change: c.view itself if there is
// nothing to change, a changed copy otherwise.

func (c *Catalog) formCluster(f *FormCluster) (*Topics, error) {
	if c.view.clusterID != "" {
		if c.view.clusterID == f.ClusterID {
			return c.view, nil
		}
		return nil, fmt.Errorf("%w: this cluster is %s and stays it", outcome.ErrClusterMismatch, c.view.clusterID)
	}
	if err := checkClusterID(f.ClusterID); err != nil {
		return nil, err
	}
	if len(f.Nodes) == 0 {
		return nil, fmt.Errorf("%w: a cluster is formed by one node at least", outcome.ErrInvalidConfig)
	}
	next := c.view
	for _, node := range f.Nodes {
		if err := node.check(); err != nil {
			return nil, err
		}
		if _, ok := next.Node(node.ID); ok {
			return nil, fmt.Errorf("%w: two nodes are named %s; give each its own --node-id", outcome.ErrNodeConflict, node.ID)
		}
		next = next.withNode(node)
	}
	next.clusterID = f.ClusterID
	return next, nil
}

func checkClusterID(id string) error {
	if id == "" || len(id) > 64 {
		return fmt.Errorf("%w: cluster id of %d characters, want 1 to 64", outcome.ErrInvalidConfig, len(id))
	}
	for i := range len(id) {
		if c := id[i]; !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return fmt.Errorf("%w: cluster id %q, want a-z, A-Z, 0-9, '-' and '_' only", outcome.ErrInvalidConfig, id)
		}
	}
	return nil
}

func (c *Catalog) registerNode(node Node) (*Topics, error) {
	if err := node.check(); err != nil {
		return nil, err
	}
	if c.view.clusterID == "" {
		// The first nodes must not find their names taken by one that came in between.
		return nil, fmt.Errorf("%w: the cluster is not formed yet", outcome.ErrNoLeader)
	}
	old, ok := c.view.Node(node.ID)
	node.State, node.Successor = old.State, old.Successor
	switch {
	case !ok:
	case old.Incarnation != node.Incarnation:
		return nil, fmt.Errorf("%w: node %s is registered with data directory %s and came with %s; start it with a new --node-id, or bring back the old data directory",
			outcome.ErrNodeConflict, node.ID, old.Incarnation, node.Incarnation)
	case old == node:
		return c.view, nil
	}
	if node.featureLevel() < c.view.FeatureLevel() {
		return nil, fmt.Errorf("%w: node %s knows level %d, and the cluster is at %d: start it with a newer program", outcome.ErrFeatureLevel, node.ID, node.featureLevel(), c.view.FeatureLevel())
	}
	return c.view.withNode(node), nil
}

func (c *Catalog) removeNode(r *RemoveNode) (*Topics, error) {
	old, ok := c.view.Node(r.ID)
	if !ok || old.Incarnation != r.Incarnation {
		return c.view, nil
	}
	if len(c.view.nodes) == 1 {
		return nil, fmt.Errorf("%w: node %s is the cluster's last", outcome.ErrInvalidAssignment, r.ID)
	}
	for _, topic := range c.view.Placed() {
		for i, p := range topic.Partitions {
			if p.Holds(r.ID) {
				return nil, fmt.Errorf("%w: node %s still holds a replica of %s-%d", outcome.ErrInvalidAssignment, r.ID, topic.Name, i)
			}
		}
	}
	next := c.view.withoutNode(r.ID)
	if c.view.FeatureLevel() >= 3 {
		next.left = rememberLeft(c.view.left, old.Identity())
	}
	return next, nil
}

func (c *Catalog) createTopic(topic *Topic) (*Topics, error) {
	if old, ok := c.view.byID[topic.ID]; ok && old.Name == topic.Name {
		return c.view, nil
	}
	if slices.Contains(c.deleted, topic.ID) {
		return nil, fmt.Errorf("%w: id %s was that of a topic that is deleted, and is not given again: restore it with another one (--new-ids)", outcome.ErrTopicExists, topic.ID)
	}
	if err := c.view.CheckCreate(topic); err != nil {
		return nil, err
	}
	created := *topic
	created.Partitions = c.view.toForm(topic.Partitions)
	return c.view.withTopic(&created), nil
}

func (c *Catalog) deleteTopic(d *DeleteTopic) (*Topics, error) {
	topic, ok := c.view.byName[d.Name]
	if d.Name == "" {
		topic, ok = c.view.byID[d.ID]
	}
	if !ok || !d.ID.IsZero() && topic.ID != d.ID {
		if slices.Contains(c.deleted, d.ID) {
			return c.view, nil
		}
		if d.Name == "" {
			return nil, fmt.Errorf("%w: no topic has id %s", outcome.ErrUnknownTopicOrPartition, d.ID)
		}
		return nil, fmt.Errorf("%w: %q", outcome.ErrUnknownTopicOrPartition, d.Name)
	}
	c.deleted = append(c.deleted, topic.ID)
	c.deleted = c.deleted[max(0, len(c.deleted)-maxDeleted):]
	return c.view.withoutTopic(topic), nil
}

func (c *Catalog) allocateProducerIDs(count int64) CatalogResult {
	if c.view.clusterID == "" {
		return CatalogResult{Err: fmt.Errorf("%w: the cluster is not formed yet", outcome.ErrNoLeader)}
	}
	first := max(c.nextProducerID, c.view.producerFloor)
	if count < 1 || count > MaxProducerIDBlock || first > math.MaxInt64-count {
		return CatalogResult{Err: fmt.Errorf("%w: %d producer ids after %d, want 1 to %d", outcome.ErrInvalidConfig, count, first, MaxProducerIDBlock)}
	}
	c.nextProducerID = first + count
	return CatalogResult{FirstProducerID: first}
}
