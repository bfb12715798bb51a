package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/catalog"
	"github.com/trimaran-io/trimaran/cluster/election"
	"github.com/trimaran-io/trimaran/cluster/identity"
	"github.com/trimaran-io/trimaran/cluster/leading"
	"github.com/trimaran-io/trimaran/cluster/liveness"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/cluster/raftlink"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/route"
	"github.com/trimaran-io/trimaran/coordinator"
)

// catalogConfig gives the settings of the node's catalog.
func (n *Node) catalogConfig(host *catalogHost) catalog.Config {
	return catalog.Config{
		Life: n.ctx, Self: n.self(), Host: host, Logger: n.logger, Forming: n.who.Forming, HasTier: n.cfg.TierTo != nil,
		DefaultPartitions: n.cfg.DefaultPartitions, DefaultReplicationFactor: n.cfg.DefaultReplicationFactor,
		Shards: coordinator.Shards, ReplaceAfter: n.cfg.ReplaceAfter, NoAutoBalance: n.cfg.NoAutoBalance,
	}
}

// catalogHost is what the catalog needs of other parts of its node. It is filled in before the
// catalog is opened, and does not change afterwards.
type catalogHost struct {
	calls.Caller
	self      string // this node's identity
	who       *identity.Identity
	ending    *ending
	logger    *slog.Logger
	logs      *raftlog.Store
	nodes     *liveness.Nodes
	router    *route.Router
	handovers *leading.Handovers
}

func (h *catalogHost) Connected(identity string) bool { return h.nodes.Connected(identity) }
func (h *catalogHost) Fail(err error)                 { h.ending.fail(err) }

// Elsewhere implements catalog.Host.
func (h *catalogHost) Elsewhere(leader string, voters []string) (identity string, ok bool) {
	if !h.router.Severed(leader, voters) {
		return "", false
	}
	who, ok := h.router.AskWho(catalog.Group, voters)
	return who.Identity, ok
}

// HandOver implements catalog.Host.
func (h *catalogHost) HandOver(m *raftgroup.Member, suitable func(identity string) bool) error {
	return h.handovers.GiveTo(leading.Of(m), suitable)
}

// Members implements catalog.Host.
func (h *catalogHost) Members() (identities []string) {
	for _, m := range h.nodes.Members() {
		if m.Identity != h.self && m.ClusterID == h.who.ClusterID() {
			identities = append(identities, m.Identity)
		}
	}
	return identities
}

// Lost implements catalog.Host.
func (h *catalogHost) Lost() []string { return h.who.Lost() }

// FeatureLevelReached implements catalog.Host: logs have their newer form where nobody goes back to
// a program that does not read it.
func (h *catalogHost) FeatureLevelReached(level int) {
	if level >= 3 {
		h.logs.Upgrade()
	}
}

// ErrLeft ends a node that was taken out of the cluster, as was asked for, and is what Start gives
// from then on: the data directory belongs to nobody any more.
var ErrLeft = errors.New("this node has left the cluster: its replicas are elsewhere, and it cannot come back with this data directory")

// Left implements catalog.Host.
func (h *catalogHost) Left() {
	if h.ending.err() != nil {
		return
	}
	if err := h.ending.lost(h.who.Leave()); err != nil {
		h.logger.Warn("cannot note that this node has left the cluster", "error", err)
	}
	h.ending.fail(ErrLeft)
}

// openCatalog starts the catalog's group of the cluster that this node is in.
func (n *Node) openCatalog() error {
	var voters, nonvoters []string
	if forming := n.who.Forming(); forming != nil && forming.Proposer == n.identity && forming.ClusterID == n.who.ClusterID() {
		voters, nonvoters = catalog.FirstMembers(forming)
	}
	err := n.catalog.Open(func(machine raft.FSM) (*raftgroup.Member, error) {
		return n.openCatalogMember(machine, voters, nonvoters)
	})
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	return nil
}

// openCatalogMember opens the files of the catalog's group and starts Raft; there are voters at the
// node that forms the cluster.
func (n *Node) openCatalogMember(machine raft.FSM, voters, nonvoters []string) (*raftgroup.Member, error) {
	config := raftgroup.Config(n.identity, n.cfg.HeartbeatTimeout, n.cfg.CommitTimeout, catalogTrailing, n.raftLogger.Named(catalog.Group))
	config.SnapshotThreshold = 1024
	files, machine := n.catalogFiles(machine, catalogTrailing)
	m, err := raftgroup.Open(raftgroup.Options{
		Name: catalog.Group, Files: files, Config: config, Machine: machine,
		Stable: n.stable.Group(catalog.Group), Transport: n.election.Open(catalog.Group), Voters: voters, Nonvoters: nonvoters,
		Ends: n.ctx,
	})
	if err != nil {
		return nil, err
	}
	if t, ok := m.Transport.(*election.Member); ok {
		// Raft would go back to an offered snapshot, and to the members in it, also where it is
		// further.
		t.BeforeInstall(func(_ context.Context, _ string, req *raft.InstallSnapshotRequest) error {
			if m.Raft.AppliedIndex() >= req.LastLogIndex {
				return raftlink.ErrInstalled
			}
			return nil
		})
	}
	vouch(m, n.failover)
	return m, nil
}
