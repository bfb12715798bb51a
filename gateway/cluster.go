package gateway

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
)

// Cluster is all that the gateway knows of the nodes behind it. Errors are in
// outcome's list. All methods may be called concurrently.
type Cluster interface {
	// Topics gives the catalog as this node knows it: immutable, do not change.
	Topics() *fsm.Topics
	// Coordinate hands a request of a consumer group to the coordinator of its shard and returns the response.
	// Both have the version that coordinator.Version names. If outcome.NotAppended(err), surely nothing was done.
	Coordinate(ctx context.Context, shard int, client coordinator.Client, req kmsg.Request) (kmsg.Response, error)
	// Administer returns when what an operator asks for is in the catalog.
	Administer(ctx context.Context, request admin.Request) error
	// CatalogKnown says whether Topics was once as new as the cluster's since this node has started.
	CatalogKnown() bool
	// Gateways gives the addresses, host:port, at which the nodes that are there take
	// clients, as far as this node knows; "" of one that has not said so.
	Gateways() map[fsm.NodeID]string
	// CreateTopic returns when the topic is known at all connected nodes and its
	// partitions have leaders, or ctx ends (then outcome.ErrTimeout: it exists).
	// validateOnly checks and creates nothing.
	CreateTopic(ctx context.Context, spec fsm.TopicSpec, validateOnly bool) error
	// DeleteTopic returns when the deletion is known at all connected nodes.
	DeleteTopic(ctx context.Context, name string) error
	// DeleteTopicByID is DeleteTopic of the topic that has that id.
	DeleteTopicByID(ctx context.Context, id fsm.TopicID) error
	// AlterConfigs returns when the topic's new configuration is known at all connected nodes.
	// validateOnly checks and changes nothing.
	AlterConfigs(ctx context.Context, alter fsm.AlterConfigs, validateOnly bool) error
	// AlterBrokerConfigs is AlterConfigs for the one broker, of what has no effect here.
	AlterBrokerConfigs(ctx context.Context, alter fsm.AlterBrokerConfigs, validateOnly bool) error
	// CreatePartitions gives a topic so many partitions in all, as CreateTopic.
	CreatePartitions(ctx context.Context, id fsm.TopicID, count int, validateOnly bool) error
	// DeleteRecords makes before, -1 for the high watermark, the first offset that can
	// be read, and gives the log start offset afterwards.
	DeleteRecords(ctx context.Context, p fsm.PartitionID, before fsm.Offset) (low fsm.Offset, err error)
	// Producers gives the idempotent producers that a partition remembers.
	Producers(ctx context.Context, p fsm.PartitionID) ([]fsm.ActiveProducer, error)
	// Append hands batches (whole record batches, magic 2, checked) to the
	// partition's leader, wherever it is, in this order, and returns when they are
	// committed. One result per batch: one of an idempotent producer that was there
	// already has the place of the first, and one that must not be there has Err. Waits for a leader at most ~1.5 s within
	// ctx. err is in outcome's list; outcome.NotAppended(err) tells whether trying again
	// is safe (Append itself already tried again as long as it could).
	Append(ctx context.Context, p fsm.PartitionID, batches [][]byte) ([]fsm.Appended, error)
	// NewProducerID gives an id for an idempotent producer that nobody had before.
	NewProducerID(ctx context.Context) (int64, error)
	// Read never waits for records. maxBytes bounds the answer but for one whole batch.
	Read(ctx context.Context, p fsm.PartitionID, from fsm.Offset, maxBytes int) (fsm.Slice, error)
	// Await returns nil when a record at offset from or above is committed and
	// readable, ctx.Err() when ctx ends first.
	Await(ctx context.Context, p fsm.PartitionID, from fsm.Offset) error
	// ListOffsets answers in the form of ListOffsets v0: -1 latest, -2 earliest,
	// else segments last written at or before timestamp (ms), newest first, at most max.
	ListOffsets(ctx context.Context, p fsm.PartitionID, timestamp int64, max int) ([]fsm.Offset, error)
	// OffsetForTime finds the first record, as the partition's leader knows them,
	// whose timestamp is at or after timestamp (ms since epoch), for -3 the first of
	// those with the largest timestamp (KIP-734). ok is false if there is none.
	OffsetForTime(ctx context.Context, p fsm.PartitionID, timestamp int64) (offset fsm.Offset, at int64, epoch fsm.LeaderEpoch, ok bool, err error)
	// EpochEnd answers OffsetForLeaderEpoch (KIP-101, KIP-279) as the partition's
	// leader: the largest epoch at or below epoch that has records, and the offset
	// at which the next one begins, or the log end. Where no epoch at or below
	// has records: the asked one, and where the first one begins. An epoch that is
	// still to come gives -1, -1.
	EpochEnd(ctx context.Context, p fsm.PartitionID, epoch fsm.LeaderEpoch) (fsm.LeaderEpoch, fsm.Offset, error)
	// LeaderEpoch gives the epoch of the leader that this node knows, -1 for none.
	// newest is false where a newer one may have begun without this node hearing of
	// it. It asks nobody.
	LeaderEpoch(p fsm.PartitionID) (epoch fsm.LeaderEpoch, newest bool)
	// Ready is nil when this node serves: catalog known, caught up, leader known.
	// The error says what is missing.
	Ready() error
	// Serving is nil while this node serves as well as any. elsewhere says that it is cut off, and that others may
	// serve. It is asked ten times a second and must not wait.
	Serving() (elsewhere bool, err error)
	// ClusterID is "" until the cluster is formed.
	ClusterID() string
	// Status is what `trimaran cluster status` shows.
	Status(ctx context.Context) (*admin.Status, error)
	// CheckReplicas compares what the partition's replicas have on disk from offset
	// from on, or from the log start if that is above, some tens of megabytes of it.
	CheckReplicas(ctx context.Context, p fsm.PartitionID, from fsm.Offset) (*admin.PartitionCheck, error)
}
