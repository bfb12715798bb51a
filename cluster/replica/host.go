package replica

import (
	"context"
	"log/slog"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/cluster/tier"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/transaction"
)

// Host is what replicas need of the node that they run on. Its methods may be called from
// any goroutine, and none is called while a lock of this package is held.
type Host interface {
	Catalog
	Peers
	Transactions

	// Opened is told that a replica runs here now.
	Opened(id fsm.PartitionID)
	// Wake has Reconcile called soon. It does not wait.
	Wake()
	// Room is nil if records can be taken: the disk here, and those of a majority of the group's
	// voters, are not full.
	Room(m *raftgroup.Member) error
	// SyncDir brings the names in a folder to stable storage. The node ends if that fails.
	SyncDir(dir string) error
	// Awake is since when this process has had its turns without a long pause.
	Awake() time.Time
}

// Catalog is what replicas need of the catalog.
type Catalog interface {
	// Topics gives the catalog as this node knows it. It must not be changed.
	Topics() *fsm.Topics
	// AwaitTopics returns true when this node knows the catalog as it was when the call began,
	// false if ctx ends first.
	AwaitTopics(ctx context.Context) bool
	// RefreshTopics brings the catalog here up to date if that was not done a moment ago, and says
	// whether it is.
	RefreshTopics() bool
	// Settle tells the catalog that replicas have left their group.
	Settle(ctx context.Context, settle *fsm.Settle) error
}

// Transactions is what replicas need of those who have to do with a transaction elsewhere: its
// coordinator, and what it touches. Each finds the leader itself, and tries again for a moment.
type Transactions interface {
	// JoinTransaction asks a transaction's coordinator to add a partition to it (t.Add), or whether
	// it was added. ended is the number of the producer's last marker here, or on its way into the
	// log; 0: none is known. Errors are outcome.ErrInvalidTxnState, ErrConcurrentTransactions,
	// ErrProducerFenced, ErrInvalidProducerEpoch, ErrInvalidProducerIDMapping,
	// ErrTransactionAbortable; what is no answer is ErrNoLeader: nothing happened.
	JoinTransaction(ctx context.Context, t fsm.Transaction, producerID int64, epoch int16, p fsm.PartitionID, ended int32) error
	// JoinTransactionGroup is the same for the offsets of a group.
	JoinTransactionGroup(ctx context.Context, t fsm.Transaction, producerID int64, epoch int16, group string) error
	// WriteMarker ends a transaction in a partition. begun: it was ended before, and the producer's
	// next one is open there. outcome.ErrUnknownTopicOrPartition: it is gone for good.
	WriteMarker(ctx context.Context, p fsm.PartitionID, m fsm.Marker) (begun bool, err error)
	// EndOffsets ends it in a group's offsets.
	EndOffsets(ctx context.Context, group string, m fsm.Marker) error
	// NewProducerID gives a producer id that nobody had before.
	NewProducerID(ctx context.Context) (int64, error)
}

// Peers is what replicas need of other nodes.
type Peers interface {
	// Connected reports whether the node is reached right now. A node reaches itself.
	Connected(identity string) bool
	// Transport gives the way to the other members of a group. A newcomer has no vote yet, whatever
	// the group's configuration says.
	Transport(group string, newcomer bool) raftgroup.Transport
	// Serve lets other nodes reach a member that was opened. offered is asked when the group's
	// leader offers a snapshot; it reports whether all of it is here.
	Serve(m *raftgroup.Member, offered func(ctx context.Context, from string, req *raft.InstallSnapshotRequest) (here bool, err error))

	// HandOver gives the leadership of a group to a voter that follows now, HandOverTo to one of
	// those that are suitable. It returns nil when this node does not lead any more.
	HandOver(m *raftgroup.Member) error
	HandOverTo(m *raftgroup.Member, suitable func(identity string) bool) error

	// Describe asks a node for what must be known to copy what it has behind the snapshot at index
	// have (Replica.Describe), Entries for entries (Replica.Entries), Applied for how far its
	// replica is. They change nothing there.
	Describe(ctx context.Context, identity string, id fsm.PartitionID, have uint64) (raftlog.Described, error)
	Entries(ctx context.Context, identity string, id fsm.PartitionID, from, to uint64, limit uint32) ([]byte, error)
	Applied(ctx context.Context, identity string, id fsm.PartitionID) (index uint64, err error)
	// Leave asks the leader to let this node's replica go from its group (Replica.Release), and
	// gives the leader's term.
	Leave(ctx context.Context, leader string, id fsm.PartitionID) (term uint64, err error)
	// LeaveLeader is Leave at whoever leads, which must be another node.
	LeaveLeader(ctx context.Context, id fsm.PartitionID) (term uint64, leader string, err error)
}

// Config says how replicas run.
type Config struct {
	Host     Host
	Identity string // of this node, its name in every group
	NodeID   fsm.NodeID

	Logs   *raftlog.Store
	Stable *raftlog.Stable
	// Dir is the folder with a folder for each replica, on FS, which Logs is on, too.
	FS  vfs.FS
	Dir string

	Logger     *slog.Logger
	RaftLogger hclog.Logger

	TopicDefaults     map[string]string // topic configurations, for topics that do not set them
	Groups            coordinator.Settings
	Transactions      transaction.Settings
	HeartbeatTimeout  time.Duration // of every group
	CommitTimeout     time.Duration
	RetentionInterval time.Duration // 0: 30 s
	MaxDiskShare      float64       // 0 to 1; 0: no bound
	CatchUpRate       int64         // bytes a second; 0: 100 MiB
	ScrubRate         int64         // bytes a second; 0: 4 MiB, negative: never
	CompactionRate    int64         // bytes a second; 0: 64 MiB, negative: no bound
	CompactionMemory  int64         // bytes for keys; 0: 128 MiB, at least 1 MiB
	// CompactionCounters count what is compacted here; nil: nobody reads them.
	CompactionCounters *CompactionCounters
	// Tier is the store that old records go to; nil: there is none.
	Tier *tier.Tier
	// TierSegmentBytes bounds a segment of the tier that is made of several of the log; 0: 64 MiB.
	TierSegmentBytes int64
	// TransactionCounters count what the coordinators here decide; nil: nobody reads them.
	TransactionCounters *transaction.Counters
	// Trailing is how many entries below a snapshot a leader still sends one by one; 0: 1024. A
	// follower that is further behind copies segments instead.
	Trailing uint64
	// ShardSegmentBytes is the least size of a segment of a shard's log; 0: 4 MiB.
	ShardSegmentBytes int64

	// Seams for tests; nil: nothing happens there.
	BeforeApply func(id fsm.PartitionID, index uint64)
	OnCopy      func(id fsm.PartitionID, step string)
}

const (
	defaultTrailing          = 1024
	defaultShardSegmentBytes = 4 << 20
)

// environment is what all replicas of a node share: how they run, and the node's budgets. It does
// not change.
type environment struct {
	Config
	ctx context.Context // ends when the node stops

	catchUpLimit *rate.Limiter       // bytes that are copied from others
	unpacking    *semaphore.Weighted // batches that are unpacked to look for a time
	hashing      chan struct{}       // capacity 1: one check of replicas reads at a time
	tierRound    chan struct{}       // capacity 1: one tier is compacted at a time
	kept         *keptCache          // what is kept with segments
	sayUnseen    *rate.Sometimes     // that the store of the tier lacks something
}

func newEnvironment(ctx context.Context, config Config) *environment {
	if config.Trailing == 0 {
		config.Trailing = defaultTrailing
	}
	config.Transactions = config.Transactions.WithDefaults()
	if config.ShardSegmentBytes == 0 {
		config.ShardSegmentBytes = defaultShardSegmentBytes
	}
	return &environment{
		Config: config, ctx: ctx,
		catchUpLimit: newCatchUpLimit(config.CatchUpRate),
		// A small batch may become a hundred megabytes.
		unpacking: semaphore.NewWeighted(int64(runtime.GOMAXPROCS(0))),
		hashing:   make(chan struct{}, 1),
		tierRound: make(chan struct{}, 1),
		kept:      new(keptCache),
		sayUnseen: &rate.Sometimes{Interval: sayUnseenEvery},
	}
}

// dirOf gives the folder of a replica.
func (e *environment) dirOf(id fsm.PartitionID) string { return filepath.Join(e.Dir, id.String()) }

// config gives a topic's configuration: its own, the node's default, Kafka's.
func (e *environment) config(topic *fsm.Topic, name string) string {
	return topic.ConfigOr(e.TopicDefaults, name)
}

// configNumber is config for numbers; of a topic that is gone, Kafka's default.
func (e *environment) configNumber(id fsm.TopicID, name string) int64 {
	topic, ok := e.Host.Topics().ByID(id)
	if !ok {
		topic = &fsm.Topic{}
	}
	value, err := strconv.ParseInt(e.config(topic, name), 10, 64)
	if err != nil {
		value, _ = strconv.ParseInt((&fsm.Topic{}).Config(name), 10, 64)
	}
	return value
}

// keeper is who runs a replica, as far as the replica knows it: it is told of what the replica
// cannot mend itself. No method waits.
type keeper interface {
	// damaged is told that Raft cannot go on, since it cannot read the replica's log.
	Damaged(r *Replica, err error)
	// readFailed is told that something a replica keeps cannot be read, and behind which offset it
	// can; 0: not known. Errors that are no damage are ignored.
	ReadFailed(r *Replica, err error, end fsm.Offset)
	// outgrown is told that a newer program wrote what this replica cannot apply.
	outgrown(r *Replica, err error)
	// reopen has the replica closed and opened again.
	reopen(r *Replica)
}
