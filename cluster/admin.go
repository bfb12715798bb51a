package cluster

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/fsm"
)

// This file is what is asked of a partition's leader for an operator: the beginning of its log is
// moved, and who produces to it is told.

// DeleteRecords makes before the first offset that can be read of a partition, -1
// for its high watermark, on all replicas alike; what is below is freed later. low
// is the log start offset afterwards, which may be higher. Errors are
// fsm.ErrOffsetOutOfRange, fsm.ErrPolicy for a topic that is only compacted, and
// those of reaching the leader.
func (n *Node) DeleteRecords(ctx context.Context, id fsm.PartitionID, before fsm.Offset) (low fsm.Offset, err error) {
	topic, ok := n.Topics().ByID(id.Topic)
	if !ok {
		return -1, fsm.ErrUnknownTopicOrPartition
	}
	if !strings.Contains(topic.ConfigOr(n.cfg.TopicDefaults, "cleanup.policy"), "delete") {
		return -1, fmt.Errorf("%w: cleanup.policy of topic %s is not delete", fsm.ErrPolicy, topic.Name)
	}
	err = n.atRecords(ctx, id, holdLeaderless, func(ctx context.Context, h hint, local *replica.Records) (err error) {
		if local != nil {
			low, err = local.DeleteRecords(ctx, before)
			return err
		}
		// Asked again where no answer came: the log start only moves up.
		reply, err := n.ask(ctx, h.Identity, callDeleteRecords, binary.BigEndian.AppendUint64(appendPartition(nil, id), uint64(before)))
		if err != nil {
			return err
		}
		r := reader{b: reply}
		if low = fsm.Offset(r.uint64()); r.bad {
			return fsm.ErrUnknown
		}
		return nil
	})
	if err != nil {
		return -1, err
	}
	return low, nil
}

// Producers gives the idempotent producers that the partition's leader remembers,
// in the order in which they last appended.
func (n *Node) Producers(ctx context.Context, id fsm.PartitionID) ([]fsm.ActiveProducer, error) {
	var producers []fsm.ActiveProducer
	err := n.atRecords(ctx, id, holdLeaderless, func(ctx context.Context, h hint, local *replica.Records) (err error) {
		if local != nil {
			producers, err = local.ActiveProducers(ctx)
			return err
		}
		reply, err := n.ask(ctx, h.Identity, callProducers, appendPartition(nil, id))
		if err != nil {
			return err
		}
		if err := json.Unmarshal(reply, &producers); err != nil {
			return fmt.Errorf("%w: malformed answer of another node", fsm.ErrUnknown)
		}
		return nil
	})
	return producers, err
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
		low, err := replica.DeleteRecords(ctx, before)
		if err != nil {
			return nil, err
		}
		return binary.BigEndian.AppendUint64(nil, uint64(low)), nil
	}
	producers, err := replica.ActiveProducers(ctx)
	if err != nil {
		return nil, err
	}
	return json.Marshal(producers)
}
