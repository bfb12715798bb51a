package cluster

import (
	"cmp"
	"context"
	"fmt"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cluster/catalog"
	"github.com/trimaran-io/trimaran/cluster/liveness"
	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/cluster/route"
	"github.com/trimaran-io/trimaran/cluster/status"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
	"github.com/trimaran-io/trimaran/security/acl"
)

// front is what a gateway asks of a node: of partitions and groups in route.go, of the catalog in
// this file. Only what takes a partition's leader is more than handing it on. It has no state of
// its own and takes no lock.
type front struct {
	catalog  *catalog.Catalog
	replicas *replica.Set
	nodes    *liveness.Nodes   // who is there
	router   *route.Router     // from a partition to its leader
	groups   *route.Groups     // from a consumer group to its coordinator
	overview *status.Overview  // of all nodes
	defaults map[string]string // configurations of topics that do not set them
}

// self is this node as it registers.
func (n *Node) self() fsm.Node {
	return fsm.Node{ID: n.nodeID, Incarnation: n.who.Incarnation(), Zone: n.cfg.Zone, FeatureLevel: cmp.Or(n.cfg.featureLevel, fsm.FeatureLevel)}
}

// Topics gives the catalog as this node knows it. It must not be changed.
func (f *front) Topics() *fsm.Topics { return f.catalog.View() }

// CatalogKnown says whether the catalog here was once as new as the leader's since this node has
// started.
func (f *front) CatalogKnown() bool { return f.catalog.CaughtUp() }

// NewProducerID gives an id for an idempotent producer that no other has had or
// will have (KIP-98). Errors are outcome.ErrNoLeader, when the catalog has no leader
// within ctx, and outcome.ErrTimeout.
func (f *front) NewProducerID(ctx context.Context) (int64, error) {
	return f.catalog.NewProducerID(ctx)
}

// Administer does what an operator asks and returns when it is in the catalog; what follows from it
// takes its time and is seen in Status. Errors are outcome's: ErrInvalidAssignment where it cannot
// be done, with the reason, ErrFeatureLevel while nodes run an older program.
func (f *front) Administer(ctx context.Context, request admin.Request) error {
	return f.catalog.Administer(ctx, request)
}

// AlterConfigs changes what is set for a topic and returns when that is known at
// all connected nodes. With validateOnly nothing is changed. Errors are
// outcome.ErrUnknownTopicOrPartition, outcome.ErrInvalidConfig, outcome.ErrNoLeader,
// outcome.ErrTimeout.
func (f *front) AlterConfigs(ctx context.Context, alter fsm.AlterConfigs, validateOnly bool) error {
	return f.catalog.AlterConfigs(ctx, alter, validateOnly)
}

// AlterBrokerConfigs changes what is set for the broker and returns when that is known at all
// connected nodes. With validateOnly nothing is changed. Errors are outcome.ErrInvalidConfig,
// outcome.ErrFeatureLevel, outcome.ErrNoLeader, outcome.ErrTimeout.
func (f *front) AlterBrokerConfigs(ctx context.Context, alter fsm.AlterBrokerConfigs, validateOnly bool) error {
	return f.catalog.AlterBrokerConfigs(ctx, alter, validateOnly)
}

// AlterACLs adds ACLs and removes those that filters select, which it gives. It returns when that
// is known at all connected nodes.
func (f *front) AlterACLs(ctx context.Context, add []acl.Binding, remove []acl.Filter) ([][]acl.Binding, error) {
	return f.catalog.AlterACLs(ctx, add, remove)
}

// AlterCredentials gives users passwords and takes them away, as AlterACLs.
func (f *front) AlterCredentials(ctx context.Context, alter fsm.AlterCredentials) error {
	return f.catalog.AlterCredentials(ctx, alter)
}

// AlterTokens changes keys of tokens and what is revoked, as AlterACLs.
func (f *front) AlterTokens(ctx context.Context, alter fsm.AlterTokens) error {
	return f.catalog.AlterTokens(ctx, alter)
}

// CatalogChanged gives a channel that is closed when the catalog here may have changed.
func (f *front) CatalogChanged() <-chan struct{} { return f.catalog.Changed() }

// CreateTopic creates a topic and returns when it is known at all connected nodes and all
// its partitions have a leader. If ctx ends before that the error is
// outcome.ErrTimeout and the topic exists. With validateOnly nothing is created.
func (f *front) CreateTopic(ctx context.Context, spec fsm.TopicSpec, validateOnly bool) error {
	topic, err := f.catalog.CreateTopic(ctx, spec, validateOnly)
	if err != nil || topic == nil {
		return err
	}
	for p := range topic.Partitions {
		err := f.awaitLeader(ctx, fsm.PartitionID{Topic: topic.ID, Partition: int32(p)})
		if err != nil && outcome.Code(err) != outcome.ErrUnknownTopicOrPartition {
			return fmt.Errorf("%w: topic %q exists, partition %d has no leader yet: %w", outcome.ErrTimeout, spec.Name, p, err)
		}
	}
	return nil
}

// CreatePartitions gives a topic so many partitions in all and returns when that is
// known at all connected nodes and the new ones have leaders. If ctx ends before that the
// error is outcome.ErrTimeout and they exist. With validateOnly nothing is created.
func (f *front) CreatePartitions(ctx context.Context, id fsm.TopicID, count int, validateOnly bool) error {
	topic, err := f.catalog.ByID(ctx, id)
	if err != nil {
		return err
	}
	from, err := f.catalog.CreatePartitions(ctx, topic, count, validateOnly)
	if err != nil || validateOnly {
		return err
	}
	for p := from; p < count; p++ {
		err := f.awaitLeader(ctx, fsm.PartitionID{Topic: id, Partition: int32(p)})
		if err != nil && outcome.Code(err) != outcome.ErrUnknownTopicOrPartition {
			return fmt.Errorf("%w: partition %d of %q exists and has no leader yet: %w", outcome.ErrTimeout, p, topic.Name, err)
		}
	}
	return nil
}

// DeleteTopic deletes a topic and its records, and returns when that is known at
// all connected nodes. Replicas free their disk on their own.
func (f *front) DeleteTopic(ctx context.Context, name string) error {
	topic, err := f.catalog.Lookup(ctx, name)
	if err != nil {
		return err
	}
	return f.catalog.DeleteTopic(ctx, topic)
}

// DeleteTopicByID is DeleteTopic of the topic that has that id.
func (f *front) DeleteTopicByID(ctx context.Context, id fsm.TopicID) error {
	topic, err := f.catalog.ByID(ctx, id)
	if err != nil {
		return err
	}
	return f.catalog.DeleteTopic(ctx, topic)
}

// Status is status.Overview.Status.
func (f *front) Status(ctx context.Context) (*admin.Status, error) { return f.overview.Status(ctx) }

// CheckReplicas is status.Overview.CheckReplicas.
func (f *front) CheckReplicas(ctx context.Context, id fsm.PartitionID, from fsm.Offset) (*admin.PartitionCheck, error) {
	return f.overview.CheckReplicas(ctx, id, from)
}

// createGroupShards returns when the catalog here has the shards of consumer groups.
func (f *front) createGroupShards(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, createShardsTimeout)
	defer cancel()
	return f.catalog.CreateShards(ctx)
}

// newInitialTopics gives what creates the topics of the configuration.
func (n *Node) newInitialTopics() *catalog.InitialTopics {
	return &catalog.InitialTopics{
		Topics: n.cfg.InitialTopics,
		Formed: func() bool { return n.who.Forming() != nil },
		Create: func(ctx context.Context, spec fsm.TopicSpec) error { return n.CreateTopic(ctx, spec, false) },
		Notes:  n.dir,
		Logger: n.logger,
	}
}

// createInitialTopics creates the topics of the configuration when this node's cluster is new.
func (n *Node) createInitialTopics() {
	if err := n.lost(n.initial.Run(n.ctx)); err != nil {
		n.logger.Warn("cannot note that the initial topics were created", "error", err)
	}
}
