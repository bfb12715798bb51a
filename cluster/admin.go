package cluster

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/fsm"
)

// This file changes topics that are there: their configuration and number of
// partitions through the catalog, the beginning of their logs through the leaders;
// and it tells who produces to a partition.

// AlterConfigs changes what is set for a topic and returns when that is known at
// all connected nodes. With validateOnly nothing is changed. Errors are
// fsm.ErrUnknownTopicOrPartition, fsm.ErrInvalidConfig, fsm.ErrNoLeader,
// fsm.ErrTimeout.
func (n *Node) AlterConfigs(ctx context.Context, alter fsm.AlterConfigs, validateOnly bool) error {
	topic, err := n.topicByID(ctx, alter.Topic)
	if err != nil {
		return err
	}
	configs, err := alter.Apply(topic.Configs)
	if err == nil {
		err = fsm.CheckWish(topic.Configs, configs, topic.ReplicationFactor)
	}
	if err != nil || validateOnly {
		return err
	}
	if err := n.catalog.changeBy(ctx, fsm.CatalogCommand{AlterConfigs: &alter}); err != nil {
		return err
	}
	n.warnOfCompaction(topic, configs)
	return nil
}

// AlterBrokerConfigs changes what is set for the broker and returns when that is known at all
// connected nodes. With validateOnly nothing is changed. Errors are fsm.ErrInvalidConfig,
// fsm.ErrLevel, fsm.ErrNoLeader, fsm.ErrTimeout.
func (n *Node) AlterBrokerConfigs(ctx context.Context, alter fsm.AlterBrokerConfigs, validateOnly bool) error {
	now := n.Topics().BrokerConfigs(alter.All)
	if next, err := alter.Apply(now); err != nil || validateOnly || maps.Equal(next, now) {
		return err
	}
	return n.catalog.changeBy(ctx, fsm.CatalogCommand{AlterBrokerConfigs: &alter})
}

// warnOfCompaction tells an operator once per change that a topic asks for what is
// not done.
func (n *Node) warnOfCompaction(topic *fsm.Topic, configs map[string]string) {
	if policy := configs["cleanup.policy"]; strings.Contains(policy, "compact") && policy != topic.Configs["cleanup.policy"] {
		n.logger.Warn("a topic is to be compacted, which is not done yet: its log keeps every record", "topic", topic.Name, "cleanup.policy", policy)
	}
}

// topicByID finds a topic, if need be in a newer catalog than this node's.
func (n *Node) topicByID(ctx context.Context, id fsm.TopicID) (*fsm.Topic, error) {
	if topic, ok := n.Topics().ByID(id); ok {
		return topic, nil
	}
	if err := n.catalog.catchUp(ctx); err != nil {
		return nil, err
	}
	if topic, ok := n.Topics().ByID(id); ok {
		return topic, nil
	}
	return nil, fmt.Errorf("%w: no topic has id %s", fsm.ErrUnknownTopicOrPartition, id)
}

// createPartitionsAsLeader places partitions and adds them to a topic.
func (n *Node) createPartitionsAsLeader(ctx context.Context, call createPartitionsCall) ([]byte, error) {
	c := n.catalog
	if err := c.placing(ctx); err != nil {
		return nil, err
	}
	defer c.placed()
	if _, err := c.indexAsLeader(ctx); err != nil {
		return nil, err
	}
	view := c.view.Load()
	topic, ok := view.ByID(call.Topic)
	if !ok {
		return nil, fmt.Errorf("%w: no topic has id %s", fsm.ErrUnknownTopicOrPartition, call.Topic)
	}
	has := len(topic.Partitions)
	if has == call.Count && call.From < has {
		return json.Marshal(catalogReply{Index: view.Version()}) // by the same call, whose answer was lost
	}
	if call.Count <= has || call.Count > fsm.MaxPartitions {
		return nil, fmt.Errorf("%w: topic %s has %d partitions, %d are no more, want at most %d", fsm.ErrInvalidPartitions, topic.Name, has, call.Count, fsm.MaxPartitions)
	}
	// The seed decides who begins: another one than the topic's first partitions had,
	// or the first node would get the first of each piece.
	seed := call.Topic
	binary.BigEndian.PutUint64(seed[8:], binary.BigEndian.Uint64(seed[8:])+uint64(has))
	assignment, err := n.place(view, int32(call.Count-has), topic.ReplicationFactor, seed)
	if err != nil {
		return nil, err
	}
	create := &fsm.CreatePartitions{Topic: call.Topic, From: has}
	for _, replicas := range assignment {
		create.Partitions = append(create.Partitions, fsm.Partition{Replicas: replicas, Bootstrap: replicas})
	}
	if call.ValidateOnly {
		if _, err := view.CheckCreatePartitions(create); err != nil {
			return nil, err
		}
		return json.Marshal(catalogReply{Index: view.Version()})
	}
	return c.applyAsLeader(ctx, fsm.CatalogCommand{CreatePartitions: create}.Encode())
}

// CreatePartitions gives a topic so many partitions in all and returns when that is
// known at all connected nodes and the new ones have leaders. If ctx ends before that the
// error is fsm.ErrTimeout and they exist. With validateOnly nothing is created.
func (n *Node) CreatePartitions(ctx context.Context, id fsm.TopicID, count int, validateOnly bool) error {
	topic, err := n.topicByID(ctx, id)
	if err != nil {
		return err
	}
	from := len(topic.Partitions)
	if count <= from {
		return fmt.Errorf("%w: topic %s has %d partitions, %d are no more", fsm.ErrInvalidPartitions, topic.Name, from, count)
	}
	call := createPartitionsCall{Topic: id, Count: count, From: from, ValidateOnly: validateOnly}
	payload, err := json.Marshal(call)
	if err != nil {
		return fmt.Errorf("%w: %w", fsm.ErrUnknown, err)
	}
	err = n.catalog.change(ctx, calls.CreatePartitions.Kind, payload, func(ctx context.Context) ([]byte, error) {
		return n.createPartitionsAsLeader(ctx, call)
	})
	if err != nil || validateOnly {
		return err
	}
	for p := from; p < count; p++ {
		err := n.awaitLeader(ctx, fsm.PartitionID{Topic: id, Partition: int32(p)})
		if err != nil && fsm.Code(err) != fsm.ErrUnknownTopicOrPartition {
			return fmt.Errorf("%w: partition %d of %q exists and has no leader yet: %w", fsm.ErrTimeout, p, topic.Name, err)
		}
	}
	return nil
}
