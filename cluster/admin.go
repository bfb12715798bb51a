package cluster

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// This file changes topics that are there: their configuration and number of
// partitions through the catalog, the beginning of their logs through the leaders;
// and it tells who produces to a partition.

// AlterConfigs changes what is set for a topic and returns when that is known at
// all connected nodes. With validateOnly nothing is changed. Errors are
// outcome.ErrUnknownTopicOrPartition, outcome.ErrInvalidConfig, outcome.ErrNoLeader,
// outcome.ErrTimeout.
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
// connected nodes. With validateOnly nothing is changed. Errors are outcome.ErrInvalidConfig,
// outcome.ErrLevel, outcome.ErrNoLeader, outcome.ErrTimeout.
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
	return nil, fmt.Errorf("%w: no topic has id %s", outcome.ErrUnknownTopicOrPartition, id)
}

// createPartitionsCall is what a node asks the catalog's leader to do.
type createPartitionsCall struct {
	Topic        fsm.TopicID `json:"topic"`
	Count        int         `json:"count"` // in all, afterwards
	From         int         `json:"from"`  // that the asking node knows of: asking twice creates once
	ValidateOnly bool        `json:"validate_only,omitempty"`
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
		return nil, fmt.Errorf("%w: no topic has id %s", outcome.ErrUnknownTopicOrPartition, call.Topic)
	}
	has := len(topic.Partitions)
	if has == call.Count && call.From < has {
		return json.Marshal(catalogReply{Index: view.Version()}) // by the same call, whose answer was lost
	}
	if call.Count <= has || call.Count > fsm.MaxPartitions {
		return nil, fmt.Errorf("%w: topic %s has %d partitions, %d are no more, want at most %d", outcome.ErrInvalidPartitions, topic.Name, has, call.Count, fsm.MaxPartitions)
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
// error is outcome.ErrTimeout and they exist. With validateOnly nothing is created.
func (n *Node) CreatePartitions(ctx context.Context, id fsm.TopicID, count int, validateOnly bool) error {
	topic, err := n.topicByID(ctx, id)
	if err != nil {
		return err
	}
	from := len(topic.Partitions)
	if count <= from {
		return fmt.Errorf("%w: topic %s has %d partitions, %d are no more", outcome.ErrInvalidPartitions, topic.Name, from, count)
	}
	call := createPartitionsCall{Topic: id, Count: count, From: from, ValidateOnly: validateOnly}
	payload, err := json.Marshal(call)
	if err != nil {
		return fmt.Errorf("%w: %w", outcome.ErrUnknown, err)
	}
	err = n.catalog.change(ctx, callCreatePartitions, payload, func(ctx context.Context) ([]byte, error) {
		return n.createPartitionsAsLeader(ctx, call)
	})
	if err != nil || validateOnly {
		return err
	}
	for p := from; p < count; p++ {
		err := n.awaitLeader(ctx, fsm.PartitionID{Topic: id, Partition: int32(p)})
		if err != nil && outcome.Code(err) != outcome.ErrUnknownTopicOrPartition {
			return fmt.Errorf("%w: partition %d of %q exists and has no leader yet: %w", outcome.ErrTimeout, p, topic.Name, err)
		}
	}
	return nil
}

// DeleteRecords makes before the first offset that can be read of a partition, -1
// for its high watermark, on all replicas alike; what is below is freed later. low
// is the log start offset afterwards, which may be higher. Errors are
// outcome.ErrOffsetOutOfRange, outcome.ErrPolicy for a topic that is only compacted, and
// those of reaching the leader.
func (n *Node) DeleteRecords(ctx context.Context, id fsm.PartitionID, before fsm.Offset) (low fsm.Offset, err error) {
	topic, ok := n.Topics().ByID(id.Topic)
	if !ok {
		return -1, outcome.ErrUnknownTopicOrPartition
	}
	if !strings.Contains(n.config(topic, "cleanup.policy"), "delete") {
		return -1, fmt.Errorf("%w: cleanup.policy of topic %s is not delete", outcome.ErrPolicy, topic.Name)
	}
	err = n.atRecords(ctx, id, holdLeaderless, func(ctx context.Context, h hint, local *records) (err error) {
		if local != nil {
			low, err = local.deleteRecords(ctx, before)
			return err
		}
		// Asked again where no answer came: the log start only moves up.
		reply, err := n.ask(ctx, h.identity, callDeleteRecords, binary.BigEndian.AppendUint64(appendPartition(nil, id), uint64(before)))
		if err != nil {
			return err
		}
		r := reader{b: reply}
		if low = fsm.Offset(r.uint64()); r.bad {
			return outcome.ErrUnknown
		}
		return nil
	})
	if err != nil {
		return -1, err
	}
	return low, nil
}

// deleteRecords is DeleteRecords at the leader.
func (r *records) deleteRecords(ctx context.Context, before fsm.Offset) (fsm.Offset, error) {
	// What a deposed leader does not know to be committed may be.
	p, start, next, err := r.asConfirmedLeader(ctx)
	if err != nil {
		return -1, err
	}
	if before == -1 {
		before = next
	}
	if before < 0 || before > next {
		return -1, fmt.Errorf("%w: %d is not within %d to %d", outcome.ErrOffsetOutOfRange, before, start, next)
	}
	if before > start {
		if err := p.control(ctx, fsm.LogStartCommand(before)); err != nil {
			return -1, err
		}
		start, _ = r.bounds()
	}
	return start, nil
}

// Producers gives the idempotent producers that the partition's leader remembers,
// in the order in which they last appended.
func (n *Node) Producers(ctx context.Context, id fsm.PartitionID) ([]fsm.ActiveProducer, error) {
	var producers []fsm.ActiveProducer
	err := n.atRecords(ctx, id, holdLeaderless, func(ctx context.Context, h hint, local *records) (err error) {
		if local != nil {
			producers, err = local.activeProducers(ctx)
			return err
		}
		reply, err := n.ask(ctx, h.identity, callProducers, appendPartition(nil, id))
		if err != nil {
			return err
		}
		if err := json.Unmarshal(reply, &producers); err != nil {
			return fmt.Errorf("%w: malformed answer of another node", outcome.ErrUnknown)
		}
		return nil
	})
	return producers, err
}

func (r *records) activeProducers(ctx context.Context) ([]fsm.ActiveProducer, error) {
	if _, _, _, err := r.asConfirmedLeader(ctx); err != nil {
		return nil, err
	}
	r.mu.Lock()
	states := r.state.Producers()
	r.mu.Unlock()
	producers := make([]fsm.ActiveProducer, len(states))
	for i, s := range states {
		producers[i] = s.Active()
	}
	return producers, nil
}

// answerAdmin answers the calls of this file that are for one partition.
func (n *Node) answerAdmin(ctx context.Context, kind uint8, r *reader) ([]byte, error) {
	replica := n.records(r.partition())
	before := fsm.Offset(-1)
	if kind == callDeleteRecords {
		before = fsm.Offset(r.uint64())
	}
	if r.bad {
		return nil, errMalformed
	}
	if replica == nil {
		return nil, errNotLeader{}
	}
	if kind == callDeleteRecords {
		low, err := replica.deleteRecords(ctx, before)
		if err != nil {
			return nil, err
		}
		return binary.BigEndian.AppendUint64(nil, uint64(low)), nil
	}
	producers, err := replica.activeProducers(ctx)
	if err != nil {
		return nil, err
	}
	return json.Marshal(producers)
}
