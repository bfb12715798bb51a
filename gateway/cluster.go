package gateway

import (
	"context"

	"github.com/trimaran-io/trimaran/fsm"
)

// Cluster is all that the gateway knows of the nodes behind it. Errors are in
// fsm's list. All methods may be called concurrently.
type Cluster interface {
	// Topics gives the catalog as this node knows it: immutable, do not change.
	Topics() *fsm.Topics
	// CreateTopic returns when the topic is committed (known at this node) and its
	// partitions have leaders, or ctx ends (then fsm.ErrTimeout: it exists).
	// validateOnly checks and creates nothing.
	CreateTopic(ctx context.Context, spec fsm.TopicSpec, validateOnly bool) error
	// DeleteTopic returns when the deletion is known at this node.
	DeleteTopic(ctx context.Context, name string) error
	// Usable reports whether every partition of the topic has had a leader as far
	// as this node knows.
	Usable(id fsm.TopicID) bool
	// Append hands batches (whole record batches, magic 2, checked) to the
	// partition's leader, wherever it is, in this order, and returns when they are
	// committed. One result per batch. Waits for a leader at most ~1.5 s within
	// ctx. err is in fsm's list; fsm.NotAppended(err) tells whether trying again
	// is safe (Append itself already tried again as long as it could).
	Append(ctx context.Context, p fsm.PartitionID, batches [][]byte) ([]fsm.Appended, error)
	// Read never waits for records. maxBytes bounds the answer but for one whole batch.
	Read(ctx context.Context, p fsm.PartitionID, from fsm.Offset, maxBytes int) (fsm.Slice, error)
	// Await returns nil when a record at offset from or above is committed and
	// readable, ctx.Err() when ctx ends first.
	Await(ctx context.Context, p fsm.PartitionID, from fsm.Offset) error
	// ListOffsets answers in the form of ListOffsets v0: -1 latest, -2 earliest,
	// else segments last written at or before timestamp (ms), newest first, at most max.
	ListOffsets(ctx context.Context, p fsm.PartitionID, timestamp int64, max int) ([]fsm.Offset, error)
	// Ready is nil when this node serves: catalog known, caught up, leader known.
	// The error says what is missing.
	Ready() error
	// ClusterID is "" until the cluster is formed.
	ClusterID() string
	// Status is what `trimaran cluster status` shows.
	Status(ctx context.Context) (*fsm.Status, error)
}
