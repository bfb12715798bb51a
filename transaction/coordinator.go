package transaction

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
)

// Client is who sent a request. Version is what the client spoke: EndTxn v5+ is version 2 of the
// protocol (KIP-890), as are AddPartitionsToTxn and AddOffsetsToTxn that a leader sends for a client
// of version 2 (JoinPartition, JoinGroup).
type Client = coordinator.Client

// Config is what a Coordinator works with. All are needed but Awake, Settings, Counters and Logger.
type Config struct {
	// State is the replica of this node. All commands of earlier terms must be applied before New:
	// whoever just won an election lets a barrier pass first.
	State *State
	// Propose replicates a command and returns when it is applied to State here. An error that wraps
	// coordinator.ErrNotLeader means that it surely is not and will not be, any other that this is
	// not known. It must return soon after ctx has ended.
	Propose func(ctx context.Context, command []byte) error
	// NewProducerID gives a producer id that nobody has.
	NewProducerID func(ctx context.Context) (int64, error)
	// TopicID and TopicName know the topics as the node's catalog has them. They may wait for the
	// catalog to catch up, and are called with no lock held.
	TopicID   func(name string) ([16]byte, bool)
	TopicName func(id [16]byte) (string, bool)
	// WriteMarker has the marker written to the partition, and EndOffsets to the group's offsets; they
	// return when that is committed there. The error outcome.ErrUnknownTopicOrPartition says that the
	// partition is gone for good; after any other it is tried again, without end.
	WriteMarker func(ctx context.Context, p fsm.PartitionID, m fsm.Marker) error
	EndOffsets  func(ctx context.Context, group string, m fsm.Marker) error
	// Version is the cluster's transaction.version: 0, transactions are refused; 2.
	Version func() int
	// Awake gives since when this process runs without having stood still: nobody was heard before
	// that. nil: always.
	Awake    func() time.Time
	Settings Settings
	Counters *Counters    // nil: nobody reads them
	Logger   *slog.Logger // nil: slog's default
}

// Coordinator serves the transactional ids of one shard on the node that leads it, for one term.
type Coordinator struct {
	cfg Config
}

// New takes over the shard. What was decided before goes on from here.
func New(cfg Config) *Coordinator {
	return &Coordinator{cfg: cfg}
}

// Close ends everything: who waits gets NOT_COORDINATOR, who comes later coordinator.ErrNotLeader.
// When it returns, no goroutine is left and no timer.
func (c *Coordinator) Close() {}

// Handle answers a request whose API key Version knows. It may wait for a command to be replicated,
// and ends with ctx. The error says that there is no answer: ctx has ended, or the request is of
// another kind, or, if it wraps coordinator.ErrNotLeader, surely nothing was done and another
// coordinator is to be asked.
//
// The response has the request's version.
func (c *Coordinator) Handle(ctx context.Context, client Client, req kmsg.Request) (kmsg.Response, error) {
	if _, ok := Version(req.Key()); !ok {
		return nil, fmt.Errorf("%s is not for the coordinator of transactions", kmsg.NameForKey(req.Key()))
	}
	return nil, coordinator.ErrNotLeader
}
