package catalog

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/identity"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// CreateTopic creates a topic and returns it when it is known at all connected nodes; its
// partitions need not have a leader yet. nil where nothing is to be created, or where somebody has
// deleted it since. With validateOnly nothing is created.
func (c *Catalog) CreateTopic(ctx context.Context, spec fsm.TopicSpec, validateOnly bool) (*fsm.Topic, error) {
	// What no catalog takes may be as large as a request, and is not for other nodes to read.
	if err := fsm.CheckConfigs(spec.Configs); err != nil {
		if _, there := c.View().Lookup(spec.Name); there {
			return nil, fmt.Errorf("%w: %q", outcome.ErrTopicExists, spec.Name)
		}
		return nil, err
	}
	call := calls.CreateTopicRequest{Spec: spec, ID: identity.NewUUID(), ValidateOnly: validateOnly}
	if spec.Restore != nil {
		if level := c.View().FeatureLevel(); level < fsm.LevelRestore {
			return nil, fmt.Errorf("%w: to restore needs level %d on all nodes, and the cluster is at %d", outcome.ErrFeatureLevel, fsm.LevelRestore, level)
		}
		call.ID = spec.Restore.ID
	}
	// The same id asked for twice creates once.
	if err := askForAll(ctx, c, c.createTopic(), call); err != nil || validateOnly {
		return nil, err
	}
	c.warnOfCompaction(&fsm.Topic{Name: spec.Name}, spec.Configs)
	topic, _ := c.View().ByID(call.ID)
	return topic, nil
}

// CreatePartitions gives a topic so many partitions in all and returns how many it had, when that
// is known at all connected nodes. With validateOnly nothing is created.
func (c *Catalog) CreatePartitions(ctx context.Context, topic *fsm.Topic, count int, validateOnly bool) (had int, err error) {
	had = len(topic.Partitions)
	if count <= had {
		return had, fmt.Errorf("%w: topic %s has %d partitions, %d are no more", outcome.ErrInvalidPartitions, topic.Name, had, count)
	}
	return had, askForAll(ctx, c, c.createPartitions(), calls.CreatePartitionsRequest{Topic: topic.ID, Count: count, From: had, ValidateOnly: validateOnly})
}

// CreateShards returns when the catalog here has the shards of consumer groups, and all connected
// nodes know it.
func (c *Catalog) CreateShards(ctx context.Context) error {
	return askForAll(ctx, c, c.createShards(), calls.Nothing{})
}

// Lookup finds a topic, if need be in a newer catalog than this node's. The error is
// outcome.ErrUnknownTopicOrPartition where there is none.
func (c *Catalog) Lookup(ctx context.Context, name string) (*fsm.Topic, error) {
	if topic, ok := c.View().Lookup(name); ok {
		return topic, nil
	}
	if err := c.CatchUp(ctx); err != nil {
		return nil, err
	}
	if topic, ok := c.View().Lookup(name); ok {
		return topic, nil
	}
	return nil, fmt.Errorf("%w: %q", outcome.ErrUnknownTopicOrPartition, name)
}

// ByID is Lookup of the topic that has that id.
func (c *Catalog) ByID(ctx context.Context, id fsm.TopicID) (*fsm.Topic, error) {
	if topic, ok := c.View().ByID(id); ok {
		return topic, nil
	}
	if err := c.CatchUp(ctx); err != nil {
		return nil, err
	}
	if topic, ok := c.View().ByID(id); ok {
		return topic, nil
	}
	return nil, fmt.Errorf("%w: no topic has id %s", outcome.ErrUnknownTopicOrPartition, id)
}

// DeleteTopic deletes a topic and its records, and returns when that is known at all connected
// nodes. Replicas free their disk on their own.
func (c *Catalog) DeleteTopic(ctx context.Context, topic *fsm.Topic) error {
	// By id: deleting twice deletes once.
	return c.ChangeForAll(ctx, fsm.CatalogCommand{DeleteTopic: &fsm.DeleteTopic{Name: topic.Name, ID: topic.ID}})
}

// AlterConfigs changes what is set for a topic and returns when that is known at all connected
// nodes. With validateOnly nothing is changed. Errors are outcome.ErrUnknownTopicOrPartition,
// outcome.ErrInvalidConfig, outcome.ErrNoLeader, outcome.ErrTimeout.
func (c *Catalog) AlterConfigs(ctx context.Context, alter fsm.AlterConfigs, validateOnly bool) error {
	topic, err := c.ByID(ctx, alter.Topic)
	if err != nil {
		return err
	}
	configs, err := alter.Apply(topic.Configs)
	if err == nil {
		err = fsm.CheckWish(topic.Configs, configs, topic.ReplicationFactor)
	}
	if err == nil {
		err = checkTier(topic.Configs, configs, c.cfg.HasTier)
	}
	if err != nil || validateOnly {
		return err
	}
	if err := c.ChangeForAll(ctx, fsm.CatalogCommand{AlterConfigs: &alter}); err != nil {
		return err
	}
	c.warnOfCompaction(topic, configs)
	return nil
}

// checkTier says whether a topic may have the configurations wanted, where set was before, as far
// as that depends on whether there is a store for old records. The error is
// outcome.ErrInvalidConfig.
func checkTier(set, wanted map[string]string, hasTier bool) error {
	old, next := fsm.Topic{Configs: set}, fsm.Topic{Configs: wanted}
	if !hasTier && next.Tiered(nil) && !old.Tiered(nil) {
		return fmt.Errorf("%w: remote.storage.enable=true, and the nodes were not told of a store (--tier-to)", outcome.ErrInvalidConfig)
	}
	return nil
}

// AlterBrokerConfigs changes what is set for the broker and returns when that is known at all
// connected nodes. With validateOnly nothing is changed. Errors are outcome.ErrInvalidConfig,
// outcome.ErrFeatureLevel, outcome.ErrNoLeader, outcome.ErrTimeout.
func (c *Catalog) AlterBrokerConfigs(ctx context.Context, alter fsm.AlterBrokerConfigs, validateOnly bool) error {
	now := c.View().BrokerConfigs(alter.All)
	if next, err := alter.Apply(now); err != nil || validateOnly || maps.Equal(next, now) {
		return err
	}
	return c.ChangeForAll(ctx, fsm.CatalogCommand{AlterBrokerConfigs: &alter})
}

// warnOfCompaction tells an operator once per change that a topic asks for what is not done yet.
func (c *Catalog) warnOfCompaction(topic *fsm.Topic, configs map[string]string) {
	if policy := configs["cleanup.policy"]; c.View().FeatureLevel() < fsm.LevelCompaction && strings.Contains(policy, "compact") && policy != topic.Configs["cleanup.policy"] {
		c.cfg.Logger.Warn("a topic is to be compacted, which is not done before all nodes run a version that knows how: its log keeps every record", "topic", topic.Name, "cleanup.policy", policy)
	}
}
