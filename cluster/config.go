package cluster

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cluster/membership"
	"github.com/trimaran-io/trimaran/cluster/peertls"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/cluster/tier"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/transaction"
)

// Config says how a node starts. Addresses are host:port.
type Config struct {
	DataDir string
	// "" takes the one kept in DataDir, or one made of the host's name at first start
	NodeID  fsm.NodeID
	Zone    string
	Version string // shown in status

	PeerListen      string // node to node traffic, TCP
	PeerAdvertise   string // "" for the address listened on
	GossipListen    string // TCP and UDP
	GossipAdvertise string // "" for the address listened on
	// GossipKeys encrypt gossip, 16, 24 or 32 bytes each, the first what is sent; none: it is not
	// encrypted.
	GossipKeys [][]byte
	// GossipPlaintext says what of gossip counts that is not encrypted although there are keys.
	GossipPlaintext membership.Plaintext
	// PeerTLS secures the connections with other nodes; nil for none.
	PeerTLS       *peertls.Guard
	ClientAddress string // shown in status
	// MaxPeerConnections bounds the connections with other nodes; 0 means 4096.
	MaxPeerConnections int

	Join []string // gossip addresses of any live nodes
	// form the first cluster when this many nodes without one see each other; 0 only joins
	BootstrapExpect int

	DefaultPartitions        int32 // 0 means 1
	DefaultReplicationFactor int16 // 0 means 3; never more than the cluster has nodes
	// created once, when the cluster is formed with this node in it
	InitialTopics []fsm.TopicSpec

	// TopicDefaults are topic configurations, Kafka's names, for topics that do not
	// set them; nil for Kafka's defaults.
	TopicDefaults map[string]string
	// RetentionInterval is the time between two looks for what may be deleted; 0
	// means 30 s.
	RetentionInterval time.Duration
	// MaxDiskShare is the part of the disk, 0 to 1, above which partitions that this
	// node leads let go of their oldest segments whatever their retention says. 0:
	// never.
	MaxDiskShare float64
	// CatchUpRate bounds, in bytes a second, what this node copies from others for
	// replicas that are far behind. 0 means 100 MiB.
	CatchUpRate int64
	// ScrubRate is how fast, in bytes a second, what replicas here keep is checked in
	// the background. 0 means 4 MiB; negative: never.
	ScrubRate int64
	// CompactionRate bounds, in bytes a second, what this node reads and writes to compact its
	// replicas of compacted topics. 0 means 64 MiB; negative: no bound.
	CompactionRate int64
	// CompactionMemory is how much memory, in bytes, the keys of one replica may take that is
	// compacted; with more keys it goes over the log again. 0 means 128 MiB; at least 1 MiB.
	CompactionMemory int64

	// TierTo is the store that old records of topics with remote.storage.enable=true go to, the
	// same for all nodes; nil: there is none.
	TierTo tier.Store
	// TierUploadRate bounds, in bytes a second, what this node puts there. 0 means no bound.
	TierUploadRate int64
	// TierCacheBytes bounds what of the store is kept in the data directory. 0 means 1 GiB.
	TierCacheBytes int64

	// ReplaceAfter is how long a node must be away before its replicas go to others. 0 means 30
	// minutes; negative: never.
	ReplaceAfter time.Duration
	// NoAutoBalance leaves replicas and leaders where they are unless a node leaves or is drained.
	NoAutoBalance bool
	steadyFor     time.Duration // 0: defaultSteadyFor
	// Seams for tests; nil: nothing happens there.
	beforeApply func(id fsm.PartitionID, index uint64)
	// joinTransaction, if not nil, is the coordinator of all transactions
	joinTransaction func(ctx context.Context, t fsm.Transaction, producerID int64, epoch int16, p fsm.PartitionID, ended int32) error
	onCopy          func(id fsm.PartitionID, step string)
	answered        func(group string, req, resp any) // raftlink.Config.Answered
	// what the node says its program knows; 0: fsm.FeatureLevel
	featureLevel     int
	tierPieceBytes   int   // tier.Config.PieceBytes
	tierSegmentBytes int64 // replica.Config.TierSegmentBytes
	// Groups are the settings of consumer groups; the zero value is Kafka's defaults
	// but for the initial rebalance delay, which is none.
	Groups coordinator.Settings
	// Transactions are the settings of transactions; the zero value is Kafka's defaults.
	Transactions transaction.Settings

	// of every Raft group; 0 means 15 min. The death of a node is noticed sooner
	HeartbeatTimeout time.Duration
	CommitTimeout    time.Duration // of every Raft group; 0 means 10 min

	// Backup says how it stands with the backups that this node makes; nil, or nil from it: it
	// makes none. It must not wait.
	Backup func() *admin.BackupStatus

	Logger   *slog.Logger
	Registry prometheus.Registerer // nil for no metrics

	// Seams for tests; nil for the real network and disk.
	Dial   func(ctx context.Context, addr string) (net.Conn, error)
	Listen func(addr string) (net.Listener, error)
	fs     vfs.FS // of the data directory
	gossip memberlist.Transport
}

// disk is where the data directory is.
func (c *Config) disk() vfs.FS {
	if c.fs != nil {
		return c.fs
	}
	return vfs.OS
}

// setDefaults fills in what was left out.
func (c *Config) setDefaults() {
	if c.HeartbeatTimeout <= 0 {
		c.HeartbeatTimeout = raftgroup.DefaultHeartbeatTimeout
	}
	if c.CommitTimeout <= 0 {
		c.CommitTimeout = raftgroup.DefaultCommitTimeout
	}
	if c.DefaultPartitions <= 0 {
		c.DefaultPartitions = 1
	}
	if c.DefaultReplicationFactor <= 0 {
		c.DefaultReplicationFactor = 3
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Listen == nil {
		c.Listen = func(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }
	}
}
