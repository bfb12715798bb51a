package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/catalog"
	"github.com/trimaran-io/trimaran/cluster/diskroom"
	"github.com/trimaran-io/trimaran/cluster/election"
	"github.com/trimaran-io/trimaran/cluster/leading"
	"github.com/trimaran-io/trimaran/cluster/liveness"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/cluster/raftlink"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/cluster/route"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// Settings of replicas that tests make smaller; 0 is the default.
var (
	trailingEntries   uint64
	shardSegmentBytes int64
)

// replicaConfig gives the settings of the node's replicas.
func (n *Node) replicaConfig(host *replicaHost) replica.Config {
	return replica.Config{
		Host: host, Identity: n.identity, NodeID: n.nodeID,
		Logs: n.logs, Stable: n.stable, FS: n.cfg.disk(), Dir: n.dir.Join("partitions"),
		Logger: n.logger, RaftLogger: n.raftLogger,
		TopicDefaults: n.cfg.TopicDefaults, Groups: n.cfg.Groups, Transactions: n.cfg.Transactions,
		TransactionCounters: &n.transactionCounters, CompactionCounters: &n.compactionCounters,
		HeartbeatTimeout: n.cfg.HeartbeatTimeout, CommitTimeout: n.cfg.CommitTimeout,
		RetentionInterval: n.cfg.RetentionInterval, MaxDiskShare: n.cfg.MaxDiskShare,
		CatchUpRate: n.cfg.CatchUpRate, ScrubRate: n.cfg.ScrubRate,
		CompactionRate: n.cfg.CompactionRate, CompactionMemory: n.cfg.CompactionMemory, Tier: n.tier, TierSegmentBytes: n.cfg.tierSegmentBytes,
		Trailing: trailingEntries, ShardSegmentBytes: shardSegmentBytes,
		BeforeApply: func(id fsm.PartitionID, index uint64) {
			if n.cfg.beforeApply != nil {
				n.cfg.beforeApply(id, index)
			}
		},
		OnCopy: func(id fsm.PartitionID, step string) {
			if n.cfg.onCopy != nil {
				n.cfg.onCopy(id, step)
			}
		},
	}
}

// replicaHost is what replicas need of other parts of their node. It is filled in before the first
// replica is opened, and does not change afterwards.
type replicaHost struct {
	self      string // this node's identity
	disk      vfs.FS
	catalog   *catalog.Catalog
	replicas  *replica.Set // for LeaveLeader: whether a replica here leads
	ending    *ending
	room      *diskroom.Room
	nodes     *liveness.Nodes
	caller    *route.Caller
	router    *route.Router
	groups    *route.Groups
	handovers *leading.Handovers
	failover  *leading.Failover
	pulse     func() *election.Beacons // there once the node listens
	// coordinatedBy, if not nil, stands for the coordinators of transactions; a seam for tests.
	coordinatedBy func(ctx context.Context, t fsm.Transaction, producerID int64, epoch int16, p fsm.PartitionID, ended int32) error
}

func (h *replicaHost) Topics() *fsm.Topics                  { return h.catalog.View() }
func (h *replicaHost) AwaitTopics(ctx context.Context) bool { return h.catalog.Await(ctx) }
func (h *replicaHost) RefreshTopics() bool                  { return h.catalog.Refresh() }
func (h *replicaHost) Connected(identity string) bool       { return h.nodes.Connected(identity) }
func (h *replicaHost) Wake()                                { h.catalog.Wake() }
func (h *replicaHost) Room(m *raftgroup.Member) error       { return h.room.ForRecords(m.Servers) }
func (h *replicaHost) SyncDir(dir string) error             { return h.ending.lost(syncDir(h.disk, dir)) }
func (h *replicaHost) Awake() time.Time                     { return h.pulse().Awake() }
func (h *replicaHost) HandOver(m *raftgroup.Member) error   { return h.handovers.Give(leading.Of(m)) }

func (h *replicaHost) HandOverTo(m *raftgroup.Member, suitable func(identity string) bool) error {
	return h.handovers.GiveTo(leading.Of(m), suitable)
}

// Opened implements ReplicaHost: the replica knows who leads.
func (h *replicaHost) Opened(id fsm.PartitionID) {
	h.router.Opened(id)
}

// Settle implements ReplicaCatalog.
func (h *replicaHost) Settle(ctx context.Context, settle *fsm.Settle) error {
	_, err := h.catalog.Change(ctx, fsm.CatalogCommand{Settle: settle})
	return err
}

// Transport implements ReplicaPeers.
func (h *replicaHost) Transport(group string, newcomer bool) raftgroup.Transport {
	member := h.pulse().Open(group)
	if newcomer {
		member.Newcomer()
	}
	return member
}

// Serve implements ReplicaPeers.
func (h *replicaHost) Serve(m *raftgroup.Member, offered func(ctx context.Context, from string, req *raft.InstallSnapshotRequest) (bool, error)) {
	if t, ok := m.Transport.(interface {
		BeforeInstall(func(context.Context, string, *raft.InstallSnapshotRequest) error)
	}); ok {
		t.BeforeInstall(func(ctx context.Context, from string, req *raft.InstallSnapshotRequest) error {
			here, err := offered(ctx, from, req)
			if here {
				return raftlink.ErrInstalled
			}
			return err
		})
	}
	vouch(m, h.failover)
}

// Describe implements ReplicaPeers.
func (h *replicaHost) Describe(ctx context.Context, identity string, id fsm.PartitionID, have uint64) (raftlog.Described, error) {
	return calls.Describe.Ask(ctx, h.caller, identity, calls.DescribeRequest{Partition: id, Have: have})
}

// Entries implements ReplicaPeers.
func (h *replicaHost) Entries(ctx context.Context, identity string, id fsm.PartitionID, from, to uint64, limit uint32) ([]byte, error) {
	return calls.Entries.Ask(ctx, h.caller, identity, calls.EntriesRequest{Partition: id, First: from, Last: to, MaxBytes: limit})
}

// Applied implements ReplicaPeers.
func (h *replicaHost) Applied(ctx context.Context, identity string, id fsm.PartitionID) (uint64, error) {
	return calls.Applied.Ask(ctx, h.caller, identity, id)
}

// Leave implements ReplicaPeers.
func (h *replicaHost) Leave(ctx context.Context, leader string, id fsm.PartitionID) (term uint64, err error) {
	return calls.Leave.Ask(ctx, h.caller, leader, id)
}

// LeaveLeader implements ReplicaPeers.
func (h *replicaHost) LeaveLeader(ctx context.Context, id fsm.PartitionID) (term uint64, leader string, err error) {
	err = h.router.AtLeader(ctx, id, route.HoldLeaderless, func(ctx context.Context, at calls.Hint, here bool) (err error) {
		switch {
		case here && h.replicas.Replica(id) == nil:
			return outcome.ErrNoLeader // it is closed this moment, or another node is mistaken
		case here || at.Identity == h.self:
			return fmt.Errorf("%w: another replica has to lead first", outcome.ErrNoLeader)
		}
		leader = at.Identity
		term, err = h.Leave(ctx, at.Identity, id)
		return err
	})
	return term, leader, err
}
