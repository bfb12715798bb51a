package transaction

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/fsm/transactions"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/internal/tenure"
)

// Client is who sent a request. Version is the request's version as the client sent it: EndTxn v5+
// and AddPartitionsToTxn v4+ are of version 2 of the protocol (KIP-890), and old versions are told
// INVALID_PRODUCER_EPOCH where newer ones are told PRODUCER_FENCED.
type Client = coordinator.Client

// Config is what a Coordinator works with. All are needed but Confirm, Awake, Settings, Counters
// and Logger.
type Config struct {
	// State is the replica of this node. All commands of earlier terms must be applied before New:
	// whoever just won an election lets a barrier pass first.
	State *State
	// Propose replicates a command and returns when it is applied to State here. An error that
	// wraps coordinator.ErrNotLeader means that it surely is not and will not be, any other that
	// this is not known. It must return soon after ctx has ended.
	Propose func(ctx context.Context, command []byte) error
	// Confirm returns nil if this was the shard's coordinator at some time after it was called:
	// then nobody had been told before what is not in State. An error that wraps
	// coordinator.ErrNotLeader says that another one is to be asked. It is called before an answer
	// that rests on State and for which nothing was replicated: what is replicated confirms as
	// well. nil: this is the only one.
	Confirm func(ctx context.Context) error
	// NewProducerID gives a producer id that nobody has.
	NewProducerID func(ctx context.Context) (int64, error)
	// TopicID and TopicName know the topics as the node's catalog has them. They may wait for the
	// catalog to catch up, and are called with no lock held.
	TopicID   func(name string) ([16]byte, bool)
	TopicName func(id [16]byte) (string, bool)
	// WriteMarker has the marker written to the partition, and EndOffsets to the group's offsets;
	// they return when that is committed there. The error outcome.ErrUnknownTopicOrPartition says
	// that the partition is gone for good; after any other it is tried again, without end. begun:
	// the marker was there before, and a transaction of its producer and epoch is open behind it.
	// That it is not is said only by who leads the partition, and lets no batch begin one there for
	// which a coordinator was asked before.
	WriteMarker func(ctx context.Context, p fsm.PartitionID, m fsm.Marker) (begun bool, err error)
	EndOffsets  func(ctx context.Context, group string, m fsm.Marker) error
	// Version is the cluster's transaction.version: 0, transactions are refused; 2.
	Version func() int
	// Ahead is whether every coordinator that may come next knows that a transaction may have begun
	// of which nothing is replicated (next.go). Once it is true it stays so. nil: it is not.
	Ahead func() bool
	// Awake gives since when this process runs without having stood still: nobody was heard before
	// that. nil: always.
	Awake    func() time.Time
	Settings Settings
	Counters *Counters    // nil: nobody reads them
	Logger   *slog.Logger // nil: slog's default
}

// Coordinator serves the transactional ids of one shard on the node that leads it, for one term.
type Coordinator struct {
	cfg      Config
	set      Settings
	log      *slog.Logger
	counters *Counters
	began    time.Time
	// maxState is MaxStateBytes; tests make it less.
	maxState int

	// tenure has all that runs: requests, timers' functions, markers on their way.
	tenure *tenure.Tenure
	// revision is the last that a command named. All of this term are higher than those before.
	revision atomic.Uint64
	markers  *markers

	// mu guards what follows, and what is in the lines. Timers are set (which takes the tenure's)
	// and goroutines started under it; no other mutex is taken, and nothing is waited for.
	mu locks.Mutex[Coordinator]
	// lines are those of ids of which something is asked, or whose markers are on their way. Of all
	// others State knows everything.
	lines map[string]*line
	// abort is the next look at what is open too long; nil: there are no ids.
	abort *tenure.Timer
	// holds are of commits (hold.go).
	holds holds
}

// New takes over the shard. What was decided before goes on from here.
func New(cfg Config) *Coordinator {
	c := &Coordinator{
		cfg: cfg, set: cfg.Settings.WithDefaults(), log: cfg.Logger, counters: cfg.Counters,
		began: time.Now(), maxState: MaxStateBytes, lines: make(map[string]*line), holds: newHolds(), tenure: tenure.New(),
	}
	if c.log == nil {
		c.log = slog.Default()
	}
	if c.counters == nil {
		c.counters = &Counters{}
	}
	c.revision.Store(cfg.State.revision())
	c.markers = newMarkers(c)
	c.tenure.After(c.set.RemoveInterval, c.sweepIDs)
	opened, ids := cfg.State.opened()
	if ids > 0 {
		c.armAbort()
	}
	for _, open := range opened {
		if open.producer.Phase.Preparing() {
			c.end(open.id, true)
		}
	}
	return c
}

// Close ends everything: who waits gets NOT_COORDINATOR, who comes later coordinator.ErrNotLeader.
// It waits for commands that are on their way; when it returns, no goroutine is left and no timer.
func (c *Coordinator) Close() { c.tenure.End() }

// Handle answers a request whose API key Version knows. It may wait for a command to be replicated,
// and for the transaction before to be over; it ends with ctx. The error says that there is no
// answer: ctx has ended, or the request is of another kind, or, if it wraps
// coordinator.ErrNotLeader, surely nothing was done and another coordinator is to be asked.
//
// The response has the request's version.
func (c *Coordinator) Handle(ctx context.Context, client Client, req kmsg.Request) (kmsg.Response, error) {
	if _, ok := Version(req.Key()); !ok {
		return nil, fmt.Errorf("%s is not for the coordinator of transactions", kmsg.NameForKey(req.Key()))
	}
	if !c.tenure.Begin() {
		return nil, coordinator.ErrNotLeader
	}
	defer c.tenure.Done()
	switch req := req.(type) {
	case *kmsg.InitProducerIDRequest:
		return c.initProducerID(ctx, client, req)
	case *kmsg.AddPartitionsToTxnRequest:
		return c.addPartitions(ctx, client, req)
	case *kmsg.AddOffsetsToTxnRequest:
		return c.addOffsets(ctx, client, req)
	case *kmsg.EndTxnRequest:
		return c.endTxn(ctx, client, req)
	case *kmsg.DescribeTransactionsRequest:
		return c.describe(req), c.confirm(ctx)
	case *kmsg.ListTransactionsRequest:
		return c.list(req), c.confirm(ctx)
	}
	return nil, fmt.Errorf("%T is not for the coordinator of transactions", req)
}

// topicID is Config.TopicID. It may wait.
func (c *Coordinator) topicID(name string) ([16]byte, bool) {
	locks.MayWait("the catalog")
	return c.cfg.TopicID(name)
}

// topicName is Config.TopicName. It may wait.
func (c *Coordinator) topicName(id [16]byte) (string, bool) {
	locks.MayWait("the catalog")
	return c.cfg.TopicName(id)
}

// propose replicates a command. One that is on its way when the coordinator is closed is waited
// for: whether it got into the log decides what its client is told.
func (c *Coordinator) propose(b []byte) error {
	locks.MayWait("a command to be replicated")
	if c.tenure.Over() {
		return coordinator.ErrNotLeader
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.tenure.Context()), c.set.CommitTimeout)
	defer cancel()
	return c.cfg.Propose(ctx, b)
}

// confirm is Config.Confirm. A read of State before it is as good as one after it: who is the
// coordinator in the end was it all the time. It ends with the tenure: who cannot reach a majority
// would otherwise be waited for by Close.
func (c *Coordinator) confirm(ctx context.Context) error {
	locks.MayWait("a majority to confirm the coordinator")
	if c.cfg.Confirm == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.tenure.Context(), cancel)()
	err := c.cfg.Confirm(ctx)
	if err != nil && c.tenure.Over() {
		return fmt.Errorf("%w: %w", coordinator.ErrNotLeader, err)
	}
	return err
}

// newProducerID gives a producer id that nobody has.
func (c *Coordinator) newProducerID() (int64, error) {
	locks.MayWait("a producer id")
	ctx, cancel := context.WithTimeout(c.tenure.Context(), c.set.CommitTimeout)
	defer cancel()
	return c.cfg.NewProducerID(ctx)
}

// codeOf is what a client is told after Propose or NewProducerID gave err.
func (c *Coordinator) codeOf(err error) int16 {
	switch {
	case err == nil:
		return 0
	case c.tenure.Over(), errors.Is(err, coordinator.ErrNotLeader):
		return kerr.NotCoordinator.Code
	}
	return kerr.CoordinatorNotAvailable.Code
}

// refused is the code of a request for that id at this time, 0: it may be asked.
func (c *Coordinator) refused(id string) int16 {
	switch {
	case id == "" || len(id) > transactions.MaxID:
		return kerr.InvalidRequest.Code
	case c.cfg.Version() == 0:
		return kerr.CoordinatorNotAvailable.Code // not all nodes would understand
	}
	return 0
}

// told is the code for a client whose request is of that version: until version fenced it did not
// know PRODUCER_FENCED.
func told(code int16, version, fenced int16) int16 {
	if code == kerr.ProducerFenced.Code && version < fenced {
		return kerr.InvalidProducerEpoch.Code
	}
	return code
}
