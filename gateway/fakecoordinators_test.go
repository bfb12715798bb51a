package gateway

import (
	"context"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
	"github.com/trimaran-io/trimaran/transaction"
)

// Coordinate has the true coordinators of a shard answer, whose commands are applied at once.
func (f *fakeCluster) Coordinate(ctx context.Context, shard int, client coordinator.Client, req kmsg.Request) (kmsg.Response, error) {
	groups, transactions, err := f.shard(shard)
	if err != nil {
		return nil, err
	}
	if _, ok := transaction.Version(req.Key()); ok {
		return transactions.Handle(ctx, client, req)
	}
	return groups.Handle(ctx, client, req)
}

func (f *fakeCluster) shard(shard int) (*coordinator.Coordinator, *transaction.Coordinator, error) {
	f.coordinating.Lock()
	defer f.coordinating.Unlock()
	if f.coordinateErr != nil {
		return nil, nil, f.coordinateErr
	}
	if f.coordinators[shard] == nil {
		f.coordinators[shard], f.transactions[shard] = f.newShard()
	}
	return f.coordinators[shard], f.transactions[shard], nil
}

func (f *fakeCluster) newShard() (*coordinator.Coordinator, *transaction.Coordinator) {
	logger := slog.New(slog.DiscardHandler)
	propose := func(apply func([]byte) error) func(context.Context, []byte) error {
		return func(_ context.Context, command []byte) error {
			f.coordinating.Lock()
			defer f.coordinating.Unlock()
			return apply(command)
		}
	}
	topicID := func(name string) ([16]byte, bool) {
		if topic, ok := f.Topics().Lookup(name); ok {
			return topic.ID, true
		}
		return [16]byte{}, false
	}
	topicName := func(id [16]byte) (string, bool) {
		if topic, ok := f.Topics().ByID(id); ok {
			return topic.Name, true
		}
		return "", false
	}
	of, ids := coordinator.NewState(), transaction.NewState()
	return coordinator.New(coordinator.Config{
			State: of, Propose: propose(of.Apply), TopicID: topicID, TopicName: topicName, Logger: logger,
			Join: func(ctx context.Context, t fsm.Transaction, producerID int64, epoch int16, group string) error {
				resp, err := f.Coordinate(ctx, coordinator.ShardOf(t.ID), transaction.Leader(), transaction.JoinGroup(t, producerID, epoch, group))
				if err != nil {
					return outcome.ErrNoLeader
				}
				return transaction.Joined(resp)
			},
		}), transaction.New(transaction.Config{
			State: ids, Propose: propose(ids.Apply), TopicID: topicID, TopicName: topicName, Logger: logger,
			NewProducerID: f.NewProducerID, Version: func() int { return 2 },
			WriteMarker: func(ctx context.Context, p fsm.PartitionID, m fsm.Marker) (bool, error) {
				_, err := f.WriteMarkers(ctx, p, []fsm.Marker{m})
				return false, err
			},
			EndOffsets: func(ctx context.Context, group string, m fsm.Marker) error {
				groups, _, err := f.shard(coordinator.ShardOf(group))
				if err != nil {
					return err
				}
				return groups.EndOffsets(ctx, group, m)
			},
		})
}

// WriteMarkers only notes them.
func (f *fakeCluster) WriteMarkers(_ context.Context, p fsm.PartitionID, markers []fsm.Marker) ([]outcome.Error, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.markerErr != nil {
		return nil, f.markerErr
	}
	if f.written == nil {
		f.written = map[fsm.PartitionID][]fsm.Marker{}
	}
	f.written[p] = append(f.written[p], markers...)
	return make([]outcome.Error, len(markers)), nil
}
