package cluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/cluster/route"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// What clients ask of partitions and consumer groups goes its way in package route. This file is
// what the node has for it here.

const (
	holdLeaderless = route.HoldLeaderless
	retryPause     = route.RetryPause
)

// routed is the node as package route sees it.
type routed struct{ n *Node }

// Topics implements route.Host.
func (h routed) Topics() *fsm.Topics { return h.n.Topics() }

// Guide implements route.Host.
func (h routed) Guide(id fsm.PartitionID) route.Guide {
	if r := h.n.guide(id); r != nil {
		return r
	}
	return nil
}

// Broken implements route.Host.
func (h routed) Broken(id fsm.PartitionID) error {
	return replica.DamageOf(h.n.replicas.WhyBroken(id))
}

// Records implements route.Host.
func (h routed) Records(id fsm.PartitionID) route.Records {
	if r := h.n.records(id); r != nil {
		return r
	}
	return nil
}

// Coordinator implements route.Host.
func (h routed) Coordinator(id fsm.PartitionID) route.Coordinator {
	if s := h.n.shard(id); s != nil {
		return s
	}
	return nil
}

// guide gives the replica here that knows who leads a partition, nil if there is none: one that
// hangs hears of nobody.
func (n *Node) guide(id fsm.PartitionID) *replica.Replica {
	if r := n.replica(id); r != nil && !r.Member.Stuck() {
		return r
	}
	return nil
}

// atLeader is route.Router.AtLeader with the replica that leads, nil if it is another node's.
func (n *Node) atLeader(ctx context.Context, id fsm.PartitionID, hold time.Duration, try func(ctx context.Context, h hint, local *replica.Replica) error) error {
	return n.router.AtLeader(ctx, id, hold, func(ctx context.Context, h hint, here bool) error {
		if !here {
			return try(ctx, h, nil)
		}
		if local := n.replica(id); local != nil {
			return try(ctx, h, local)
		}
		return outcome.ErrNoLeader // it is closed this moment, or another node is mistaken
	})
}

// Append is route.Router.Append.
func (n *Node) Append(ctx context.Context, id fsm.PartitionID, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
	return n.router.Append(ctx, id, batches)
}

// Read is route.Router.Read.
func (n *Node) Read(ctx context.Context, id fsm.PartitionID, from fsm.Offset, maxBytes int) (fsm.Slice, error) {
	return n.router.Read(ctx, id, from, maxBytes)
}

// Await is route.Router.Await.
func (n *Node) Await(ctx context.Context, id fsm.PartitionID, from fsm.Offset) error {
	return n.router.Await(ctx, id, from)
}

// ListOffsets is route.Router.ListOffsets.
func (n *Node) ListOffsets(ctx context.Context, id fsm.PartitionID, timestamp int64, max int) ([]fsm.Offset, error) {
	return n.router.ListOffsets(ctx, id, timestamp, max)
}

// OffsetForTime is route.Router.OffsetForTime.
func (n *Node) OffsetForTime(ctx context.Context, id fsm.PartitionID, timestamp int64) (offset fsm.Offset, at int64, epoch fsm.LeaderEpoch, ok bool, err error) {
	return n.router.OffsetForTime(ctx, id, timestamp)
}

// EpochEnd is route.Router.EpochEnd.
func (n *Node) EpochEnd(ctx context.Context, id fsm.PartitionID, epoch fsm.LeaderEpoch) (found fsm.LeaderEpoch, end fsm.Offset, err error) {
	return n.router.EpochEnd(ctx, id, epoch)
}

// LeaderEpoch is route.Router.LeaderEpoch.
func (n *Node) LeaderEpoch(id fsm.PartitionID) (epoch fsm.LeaderEpoch, newest bool) {
	if r := n.replica(id); r != nil {
		return n.router.LeaderEpoch(id, r)
	}
	return n.router.LeaderEpoch(id, nil)
}

// Producers is route.Router.Producers.
func (n *Node) Producers(ctx context.Context, id fsm.PartitionID) ([]fsm.ActiveProducer, error) {
	return n.router.Producers(ctx, id)
}

// DeleteRecords is route.Router.DeleteRecords for topics whose records may be deleted: the error is
// outcome.ErrPolicy for one that is only compacted.
func (n *Node) DeleteRecords(ctx context.Context, id fsm.PartitionID, before fsm.Offset) (low fsm.Offset, err error) {
	topic, ok := n.Topics().ByID(id.Topic)
	if !ok {
		return -1, outcome.ErrUnknownTopicOrPartition
	}
	if !strings.Contains(topic.ConfigOr(n.cfg.TopicDefaults, "cleanup.policy"), "delete") {
		return -1, fmt.Errorf("%w: cleanup.policy of topic %s is not delete", outcome.ErrPolicy, topic.Name)
	}
	return n.router.DeleteRecords(ctx, id, before)
}

// Coordinate is route.Groups.Coordinate.
func (n *Node) Coordinate(ctx context.Context, index int, client coordinator.Client, req kmsg.Request) (kmsg.Response, error) {
	return n.groups.Coordinate(ctx, index, client, req)
}

// awaitLeader is route.Router.AwaitLeader.
func (n *Node) awaitLeader(ctx context.Context, id fsm.PartitionID) error {
	return n.router.AwaitLeader(ctx, id)
}

// severed and askWho are for the catalog's group, which is no partition.

func (n *Node) severed(leader string, members []string) bool {
	return n.router.Severed(leader, members)
}

func (n *Node) askWho(group string, members []string) (hint, bool) {
	return n.router.AskWho(group, members)
}

// answerWho answers calls.Who as soon as the member here follows a leader that it reaches.
func (n *Node) answerWho(ctx context.Context, group string) error {
	tick := time.NewTicker(retryPause)
	defer tick.Stop()
	for {
		g := n.memberNamed(group)
		if g == nil {
			return errNotLeader{}
		}
		if identity, term := g.Leader(); identity == n.identity || identity != "" && n.nodes.Reached(identity) {
			return errNotLeader{Hint: hint{Identity: identity, Term: term}}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return outcome.ErrNoLeader
		}
	}
}
