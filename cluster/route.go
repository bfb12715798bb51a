package cluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/cluster/catalog"
	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/cluster/route"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// What clients ask of partitions and consumer groups goes its way in package route. This file is
// what the node has for it here.

const retryPause = route.RetryPause

// routed is what runs here as package route sees it.
type routed struct {
	catalog  *catalog.Catalog
	replicas *replica.Set
}

// Topics implements route.Host.
func (h routed) Topics() *fsm.Topics { return h.catalog.View() }

// Guide implements route.Host: a replica that hangs hears of nobody.
func (h routed) Guide(id fsm.PartitionID) route.Guide {
	if r := h.replicas.Replica(id); r != nil && !r.Member.Stuck() {
		return r
	}
	return nil
}

// Broken implements route.Host.
func (h routed) Broken(id fsm.PartitionID) error {
	return replica.DamageOf(h.replicas.WhyBroken(id))
}

// Records implements route.Host.
func (h routed) Records(id fsm.PartitionID) route.Records {
	if r := h.replicas.Records(id); r != nil {
		return r
	}
	return nil
}

// Coordinator implements route.Host.
func (h routed) Coordinator(id fsm.PartitionID) route.Coordinator {
	if s := h.replicas.Shard(id); s != nil {
		return s
	}
	return nil
}

// Append is route.Router.Append.
func (f *front) Append(ctx context.Context, id fsm.PartitionID, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
	return f.router.Append(ctx, id, batches)
}

// AppendInLine is route.Router.AppendInLine.
func (f *front) AppendInLine(ctx context.Context, id fsm.PartitionID, line uint64, txn fsm.Transaction, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
	return f.router.AppendInLine(ctx, id, line, txn, batches)
}

// NewLine is route.Router.NewLine.
func (f *front) NewLine(client uint16) uint64 { return f.router.NewLine(client) }

// Pipe is route.Router.Pipe.
func (f *front) Pipe(id fsm.PartitionID, line uint64) func(ctx context.Context, number uint32, txn fsm.Transaction, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
	return f.router.Pipe(id, line)
}

// Read is route.Router.Read.
func (f *front) Read(ctx context.Context, id fsm.PartitionID, from fsm.Offset, maxBytes int, isolation fsm.Isolation) (fsm.Slice, error) {
	return f.router.Read(ctx, id, from, maxBytes, isolation)
}

// Await is route.Router.Await.
func (f *front) Await(ctx context.Context, id fsm.PartitionID, from fsm.Offset, isolation fsm.Isolation) error {
	return f.router.Await(ctx, id, from, isolation)
}

// LastStable is route.Router.LastStable.
func (f *front) LastStable(ctx context.Context, id fsm.PartitionID) (fsm.Offset, error) {
	return f.router.LastStable(ctx, id)
}

// ListOffsets is route.Router.ListOffsets.
func (f *front) ListOffsets(ctx context.Context, id fsm.PartitionID, timestamp int64, max int) ([]fsm.Offset, error) {
	return f.router.ListOffsets(ctx, id, timestamp, max)
}

// OffsetForTime is route.Router.OffsetForTime.
func (f *front) OffsetForTime(ctx context.Context, id fsm.PartitionID, timestamp int64) (offset fsm.Offset, at int64, epoch fsm.LeaderEpoch, ok bool, err error) {
	return f.router.OffsetForTime(ctx, id, timestamp)
}

// EpochEnd is route.Router.EpochEnd.
func (f *front) EpochEnd(ctx context.Context, id fsm.PartitionID, epoch fsm.LeaderEpoch) (found fsm.LeaderEpoch, end fsm.Offset, err error) {
	return f.router.EpochEnd(ctx, id, epoch)
}

// LeaderEpoch is route.Router.LeaderEpoch.
func (f *front) LeaderEpoch(id fsm.PartitionID) (epoch fsm.LeaderEpoch, newest bool) {
	if r := f.replicas.Replica(id); r != nil {
		return f.router.LeaderEpoch(id, r)
	}
	return f.router.LeaderEpoch(id, nil)
}

// Producers is route.Router.Producers.
func (f *front) Producers(ctx context.Context, id fsm.PartitionID) ([]fsm.ActiveProducer, error) {
	return f.router.Producers(ctx, id)
}

// DeleteRecords is route.Router.DeleteRecords for topics whose records may be deleted: the error is
// outcome.ErrPolicy for one that is only compacted, unless it is being restored: its log may have
// begun within a batch.
func (f *front) DeleteRecords(ctx context.Context, id fsm.PartitionID, before fsm.Offset) (low fsm.Offset, err error) {
	topic, ok := f.Topics().ByID(id.Topic)
	if !ok {
		return -1, outcome.ErrUnknownTopicOrPartition
	}
	if !topic.Restoring && !strings.Contains(topic.ConfigOr(f.defaults, "cleanup.policy"), "delete") {
		return -1, fmt.Errorf("%w: cleanup.policy of topic %s is not delete", outcome.ErrPolicy, topic.Name)
	}
	return f.router.DeleteRecords(ctx, id, before)
}

// Coordinate is route.Groups.Coordinate.
func (f *front) Coordinate(ctx context.Context, index int, client coordinator.Client, req kmsg.Request) (kmsg.Response, error) {
	return f.groups.Coordinate(ctx, index, client, req)
}

// WriteMarkers is route.Router.WriteMarkers.
func (f *front) WriteMarkers(ctx context.Context, id fsm.PartitionID, markers []fsm.Marker) ([]outcome.Error, error) {
	return f.router.WriteMarkers(ctx, id, markers)
}

// awaitLeader is route.Router.AwaitLeader.
func (f *front) awaitLeader(ctx context.Context, id fsm.PartitionID) error {
	return f.router.AwaitLeader(ctx, id)
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
