package cluster

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
	"github.com/trimaran-io/trimaran/transaction"
)

// What replicas need of those who have to do with a transaction elsewhere (replica.Transactions).

// JoinTransaction implements replica.Transactions.
func (h *replicaHost) JoinTransaction(ctx context.Context, t fsm.Transaction, producerID int64, epoch int16, p fsm.PartitionID, ended int32) error {
	if h.coordinatedBy != nil {
		return h.coordinatedBy(ctx, t, producerID, epoch, p, ended)
	}
	return h.join(ctx, t, transaction.JoinPartition(t, producerID, epoch, p, ended))
}

// JoinTransactionGroup implements replica.Transactions.
func (h *replicaHost) JoinTransactionGroup(ctx context.Context, t fsm.Transaction, producerID int64, epoch int16, group string) error {
	return h.join(ctx, t, transaction.JoinGroup(t, producerID, epoch, group))
}

// join asks a transaction's coordinator. That a partition or group is added is as good the second
// time, so whatever is no answer is ErrNoLeader.
func (h *replicaHost) join(ctx context.Context, t fsm.Transaction, req kmsg.Request) error {
	if err := transactionsKnown(h.Topics()); err != nil {
		return err
	}
	resp, err := h.groups.Coordinate(ctx, coordinator.ShardOf(t.ID), transaction.Leader(), req)
	if err != nil {
		return fmt.Errorf("%w: the transaction's coordinator does not answer: %v", outcome.ErrNoLeader, err)
	}
	return transaction.Joined(resp)
}

// transactionsKnown says why nothing of a transaction is done here; nil: it may be.
func transactionsKnown(topics *fsm.Topics) error {
	if topics.FeatureLevel() < fsm.LevelTransactions {
		// Whoever sent it knows a higher level, which will soon be known here.
		return fmt.Errorf("%w: transactions are not known to be allowed", outcome.ErrNoLeader)
	}
	return nil
}

// WriteMarker implements replica.Transactions.
func (h *replicaHost) WriteMarker(ctx context.Context, p fsm.PartitionID, m fsm.Marker) (begun bool, err error) {
	outcomes, err := h.router.WriteMarkers(ctx, p, []fsm.Marker{m})
	if err == nil && outcomes[0] == outcome.ErrConcurrentTransactions {
		return true, nil
	}
	if err == nil && outcomes[0] != 0 {
		err = outcomes[0]
	}
	if outcome.Code(err) == outcome.ErrUnknownTopicOrPartition {
		err = goneForGood(ctx, h, p)
	}
	return false, err
}

// goneForGood gives outcome.ErrUnknownTopicOrPartition if a partition that the catalog here does
// not list is not in the newest either: a new one may not be known here yet, and a transaction
// whose marker it does not get stays open there.
func goneForGood(ctx context.Context, catalog replica.Catalog, p fsm.PartitionID) error {
	if !catalog.AwaitTopics(ctx) {
		return fmt.Errorf("%w: the catalog here may be behind", outcome.ErrNoLeader)
	}
	if _, there := catalog.Topics().Partition(p); there {
		return fmt.Errorf("%w: the catalog here was behind", outcome.ErrNoLeader)
	}
	return outcome.ErrUnknownTopicOrPartition
}

// EndOffsets implements replica.Transactions.
func (h *replicaHost) EndOffsets(ctx context.Context, group string, m fsm.Marker) error {
	return h.groups.EndOffsets(ctx, group, m)
}

// NewProducerID implements replica.Transactions.
func (h *replicaHost) NewProducerID(ctx context.Context) (int64, error) {
	return h.catalog.NewProducerID(ctx)
}
