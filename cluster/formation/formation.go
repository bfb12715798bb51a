// Package formation is how a node comes to its cluster: it forms one with others, or joins one that
// is there.
//
// You are here: below package cluster, which runs a Formation until the node has a cluster; above
// gossip's list of members (cluster/membership) and the node's identity (cluster/identity), where
// what was agreed is kept. The package opens no connection and knows nothing of the catalog: calls
// to other nodes, and the registration of a node in the catalog, are functions that it is given.
//
// A node without a cluster id watches gossip. If it sees a node that has one, it asks to be
// admitted: the catalog registers it and its leader adds it to the catalog's Raft group. If it sees
// as many nodes without one as the expected size (its own included), the one with the lowest
// identity proposes a cluster of exactly these. A node grants one proposal in its life, on stable
// storage, and the proposer needs the grant of all, so no two clusters can form that share a node.
// The proposer alone bootstraps the catalog's group; a stop at any point is resumed from node.json.
//
//	formation.go  Formation: the loop, and what it waits for
//	step.go       what can be done now: propose, wait, join
//	answer.go     the other side: a proposal is granted, a node is admitted
package formation

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/trimaran-io/trimaran/cluster/identity"
	"github.com/trimaran-io/trimaran/cluster/membership"
	"github.com/trimaran-io/trimaran/fsm"
)

const (
	// tick is how often it is looked what can be done, if gossip brings no news before.
	tick = 200 * time.Millisecond
	// callTimeout bounds each call to another node.
	callTimeout = 5 * time.Second
)

// Identity is who this node is (identity.Identity).
type Identity interface {
	String() string
	ClusterID() string
	Forming() *identity.Proposal
	Grant(*identity.Proposal) error
	Adopt(clusterID string) error
}

// Gossip tells which nodes are there.
type Gossip interface {
	Members() []membership.Member // this one included
	Changed() <-chan struct{}
}

// Config says what a Formation works with. All fields but Expect and Told are needed.
type Config struct {
	Identity Identity
	Self     fsm.Node // as this node registers
	// Expect is the number of nodes that form the first cluster; 0: this node only joins.
	Expect int
	// Told says that the operator named other nodes, which may be there although gossip does not
	// see them.
	Told   bool
	Gossip Gossip

	// Propose asks a node to agree to a proposal; nil when it has, on stable storage.
	Propose func(ctx context.Context, identity string, p *identity.Proposal) error
	// Join asks the node at a peer address to register this one, and gives what Admit gives there.
	Join func(ctx context.Context, addr string, node fsm.Node) (clusterID string, err error)
	// Adopted is told when the node has come to a cluster.
	Adopted func(clusterID string)

	Logger *slog.Logger
}

// Formation brings a node to its cluster. Only Run takes steps, so it has no lock: what others may
// ask at any time is Waiting, and Grant, which the node's identity orders.
type Formation struct {
	cfg     Config
	waiting atomic.Pointer[string]
}

// New makes a Formation. It does nothing until Run, but for granting.
func New(cfg Config) *Formation {
	f := &Formation{cfg: cfg}
	f.waiting.Store(new(string))
	return f
}

// Waiting says what the node waits for, for an operator; "" before Run.
func (f *Formation) Waiting() string { return *f.waiting.Load() }

// Run returns when this node has a cluster id, with an error that only the operator can mend, or
// with that of ctx.
func (f *Formation) Run(ctx context.Context) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		state, err := f.step(ctx, f.cfg.Gossip.Members())
		if err != nil {
			return err
		}
		if f.cfg.Identity.ClusterID() != "" {
			return nil
		}
		if state != f.Waiting() {
			f.waiting.Store(&state)
			f.cfg.Logger.Info("not yet in a cluster", "state", state)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.cfg.Gossip.Changed():
		case <-ticker.C:
		}
	}
}

// adopt makes this node a member of the cluster, for ever.
func (f *Formation) adopt(clusterID string) error {
	if err := f.cfg.Identity.Adopt(clusterID); err != nil {
		return err
	}
	f.cfg.Logger.Info("in cluster", "cluster", clusterID)
	f.cfg.Adopted(clusterID)
	return nil
}
