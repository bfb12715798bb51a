package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/election"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/cluster/raftlink"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// Settings of replicas that tests make smaller; 0 is the default.
var (
	trailingEntries   uint64
	shardSegmentBytes int64
)

// replicaConfig gives the settings of the node's replicas.
func (n *Node) replicaConfig() replica.Config {
	return replica.Config{
		Host: replicaHost{n}, Identity: n.identity, NodeID: n.nodeID,
		Logs: n.logs, Stable: n.stable, FS: n.cfg.disk(), Dir: n.dir.Join("partitions"),
		Logger: n.logger, RaftLogger: n.raftLogger,
		TopicDefaults: n.cfg.TopicDefaults, Groups: n.cfg.Groups,
		HeartbeatTimeout: n.cfg.HeartbeatTimeout, CommitTimeout: n.cfg.CommitTimeout,
		RetentionInterval: n.cfg.RetentionInterval, MaxDiskShare: n.cfg.MaxDiskShare,
		CatchUpRate: n.cfg.CatchUpRate, ScrubRate: n.cfg.ScrubRate,
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

// replicaHost is the node as its replicas see it.
type replicaHost struct{ n *Node }

func (h replicaHost) Topics() *fsm.Topics                  { return h.n.Topics() }
func (h replicaHost) AwaitTopics(ctx context.Context) bool { return h.n.awaitTopics(ctx) }
func (h replicaHost) RefreshTopics() bool                  { return h.n.refreshTopics() }
func (h replicaHost) Connected(identity string) bool       { return h.n.connected(identity) }
func (h replicaHost) Wake()                                { h.n.catalog.Wake() }
func (h replicaHost) Room(m *raftgroup.Member) error       { return h.n.room.forRecords(m.Servers) }
func (h replicaHost) SyncDir(dir string) error             { return h.n.lost(syncDir(h.n.cfg.disk(), dir)) }
func (h replicaHost) Awake() time.Time                     { return h.n.election.Awake() }
func (h replicaHost) HandOver(m *raftgroup.Member) error   { return h.n.handOver(m) }

func (h replicaHost) HandOverTo(m *raftgroup.Member, suitable func(identity string) bool) error {
	return h.n.handOverTo(m, suitable)
}

// Opened implements ReplicaHost: the replica knows who leads.
func (h replicaHost) Opened(id fsm.PartitionID) {
	h.n.router.Opened(id)
}

// Settle implements ReplicaCatalog.
func (h replicaHost) Settle(ctx context.Context, settle *fsm.Settle) error {
	_, err := h.n.catalog.Change(ctx, fsm.CatalogCommand{Settle: settle})
	return err
}

// Transport implements ReplicaPeers.
func (h replicaHost) Transport(group string, newcomer bool) raftgroup.Transport {
	transport := h.n.transport(group)
	if t, ok := transport.(*election.Member); ok && newcomer {
		t.Newcomer()
	}
	return transport
}

// Serve implements ReplicaPeers.
func (h replicaHost) Serve(m *raftgroup.Member, offered func(ctx context.Context, from string, req *raft.InstallSnapshotRequest) (bool, error)) {
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
	h.n.vouch(m)
}

// Describe implements ReplicaPeers.
func (h replicaHost) Describe(ctx context.Context, identity string, id fsm.PartitionID, have uint64) (raftlog.Described, error) {
	return calls.Describe.Ask(ctx, h.n.caller, identity, calls.DescribeRequest{Partition: id, Have: have})
}

// Entries implements ReplicaPeers.
func (h replicaHost) Entries(ctx context.Context, identity string, id fsm.PartitionID, from, to uint64, limit uint32) ([]byte, error) {
	return calls.Entries.Ask(ctx, h.n.caller, identity, calls.EntriesRequest{Partition: id, First: from, Last: to, MaxBytes: limit})
}

// Applied implements ReplicaPeers.
func (h replicaHost) Applied(ctx context.Context, identity string, id fsm.PartitionID) (uint64, error) {
	return calls.Applied.Ask(ctx, h.n.caller, identity, id)
}

// Leave implements ReplicaPeers.
func (h replicaHost) Leave(ctx context.Context, leader string, id fsm.PartitionID) (term uint64, err error) {
	return calls.Leave.Ask(ctx, h.n.caller, leader, id)
}

// LeaveLeader implements ReplicaPeers.
func (h replicaHost) LeaveLeader(ctx context.Context, id fsm.PartitionID) (term uint64, leader string, err error) {
	err = h.n.atLeader(ctx, id, holdLeaderless, func(ctx context.Context, at hint, local *replica.Replica) (err error) {
		if local != nil || at.Identity == h.n.identity {
			return fmt.Errorf("%w: another replica has to lead first", outcome.ErrNoLeader)
		}
		leader = at.Identity
		term, err = h.Leave(ctx, at.Identity, id)
		return err
	})
	return term, leader, err
}
