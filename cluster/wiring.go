package cluster

import (
	"cmp"
	"context"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/catalog"
	"github.com/trimaran-io/trimaran/cluster/diskroom"
	"github.com/trimaran-io/trimaran/cluster/election"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/cluster/route"
	"github.com/trimaran-io/trimaran/cluster/status"
	"github.com/trimaran-io/trimaran/fsm"
)

// What the parts of a node are given of each other.

// wire makes the parts that know each other; what they use of the link and of gossip they use
// later.
func (n *Node) wire() {
	n.nodes = newPresence(n)
	n.caller = &route.Caller{Self: n.identity, Link: linkLater{n}, Presence: n.nodes, Topics: n.Topics, Serve: func(ctx context.Context, from string, kind uint8, payload []byte) []byte {
		return n.server.Serve(ctx, from, kind, payload)
	}}
	n.router = route.New(route.Config{
		Self: n.identity, NodeID: n.nodeID, Host: routed{n}, Caller: n.caller, Presence: n.nodes, Stopped: n.ctx,
		Unreadable: func(id fsm.PartitionID, from fsm.Offset, err error) {
			n.logger.Debug("a replica cannot read its log; the leader is asked instead", "partition", id, "offset", from, "error", err)
		},
	})
	n.groups = route.NewGroups(n.router, n.createGroupShards)
	n.room = n.newDiskRoom()
	standings := standings{
		self:  n.identity,
		gone:  func(identity string) bool { return n.election.Gone(identity) },
		hangs: n.room.Hangs,
	}
	n.failover = newFailover(failoverConfig{
		standings: standings,
		heartbeat: n.cfg.HeartbeatTimeout,
		logger:    n.logger,
		caller:    n.caller,
		watch:     func(identities []string) { n.election.Watch(identities) },
		others:    n.electorate,
		group:     n.groupNamed,
	})
	n.handovers = &handovers{
		standings: standings,
		stopped:   n.ctx,
		logger:    n.logger,
		caller:    n.caller,
		connected: n.connected,
		follows:   func(identity, group string, term uint64) bool { return n.election.Follows(identity, group, term) },
	}
	here := seenHere{n.identity, n.catalog, n.replicas, n.logs}
	n.health = &status.Health{Self: n.identity, NodeID: n.nodeID, Presence: n.nodes, Here: here}
	n.overview = status.New(status.Config{
		Self: n.identity, Here: here, Caller: n.caller, ClusterID: n.ClusterID,
		Waiting: func() string { return n.formation.Waiting() }, Members: n.nodes.Members,
		CatchUp: n.catalog.CatchUp, CaughtUp: n.catalog.CaughtUp, Digest: here.digest,
	})
	n.server = n.answers()
}

// newDiskRoom gives what the node knows of room on disks.
func (n *Node) newDiskRoom() *diskroom.Room {
	return diskroom.New(diskroom.Config{
		Full: n.logs.Full,
		Others: func() (identities []string) {
			for _, node := range n.Topics().Nodes() {
				if identity := node.Identity(); identity != n.identity && n.connected(identity) {
					identities = append(identities, identity)
				}
			}
			return identities
		},
		Tell: func(ctx context.Context, identity string, full bool) error {
			_, err := calls.Full.Ask(ctx, n.caller, identity, full)
			return err
		},
	})
}

// linkLater is the node's link, which calls back before it is known here.
type linkLater struct{ n *Node }

func (l linkLater) Call(ctx context.Context, identity string, kind uint8, payload ...[]byte) ([]byte, error) {
	return l.n.link.Call(ctx, identity, kind, payload...)
}

func (l linkLater) SuspectedBy(identity string) (suspects []string, known bool) {
	return l.n.election.SuspectedBy(identity)
}

// leads gives leadershipsConfig and its loop.
func (n *Node) newLeaderships() *leaderships {
	return newLeaderships(leadershipsConfig{
		nodeID: n.nodeID, logger: n.logger, steady: cmp.Or(n.cfg.steadyFor, defaultSteadyFor), balance: !n.cfg.NoAutoBalance,
		topics: n.Topics, connected: n.connected, full: n.logs.Full, saysFull: n.room.SaysFull,
		led: func() map[fsm.PartitionID]fsm.Term {
			led := map[fsm.PartitionID]fsm.Term{}
			for _, r := range n.runningReplicas() {
				if p, err := r.Leads(); err == nil {
					led[r.ID] = p.InTerm()
				}
			}
			return led
		},
		give: func(id fsm.PartitionID, suitable func(identity string) bool) error {
			r := n.replica(id)
			if r == nil {
				return errNotLeader{}
			}
			return n.handOverTo(r.Member, suitable)
		},
		giveCatalog: func(suitable func(identity string) bool) error {
			if g := n.catalog.Member(); g != nil && g.Raft.State() == raft.Leader {
				return n.handOverTo(g, suitable)
			}
			return nil
		},
	})
}

func (n *Node) newStuckGroups() *stuckGroups {
	return newStuckGroups(stuckConfig{
		logger: n.logger,
		groups: func() (all []stallable) {
			for _, g := range n.runningGroups() {
				all = append(all, g)
			}
			return all
		},
		name:  func(g stallable) string { return g.(*raftgroup.Member).Name },
		leads: func(g stallable) bool { return g.(*raftgroup.Member).Raft.State() == raft.Leader },
		offer: func(g stallable) {
			if !n.handovers.offer(g.(*raftgroup.Member)) {
				return
			}
			for _, r := range n.runningReplicas() {
				if stallable(r.Member) == g {
					r.Abandon()
				}
			}
		},
		hangs: n.room.SetHangs,
	})
}

// runningGroups are the groups of the replicas that run here, and the catalog's.
func (n *Node) runningGroups() (groups []*raftgroup.Member) {
	for _, r := range n.runningReplicas() {
		groups = append(groups, r.Member)
	}
	if g := n.catalog.Member(); g != nil {
		groups = append(groups, g)
	}
	return groups
}

// vouch lets the peer link speak for a group that was opened.
func (n *Node) vouch(g *raftgroup.Member) {
	if t, ok := g.Transport.(*election.Member); ok {
		t.Vouch(g.Raft)
	}
	n.failover.poke()
}

// electorate gives the nodes whose death matters here: those of the catalog, and of
// the catalog's group, which is known before the catalog is.
func (n *Node) electorate() []string {
	var out []string
	for _, node := range n.Topics().Nodes() {
		out = append(out, node.Identity())
	}
	if g := n.catalog.Member(); g != nil {
		if servers, err := g.Servers(); err == nil {
			for _, s := range servers {
				out = append(out, string(s.ID))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// groupNamed gives a group that runs here, nil if there is none.
func (n *Node) groupNamed(name string) *raftgroup.Member {
	if name == catalog.Group {
		return n.catalog.Member()
	}
	id, err := fsm.ParsePartitionID(name)
	if err != nil {
		return nil
	}
	if r := n.replica(id); r != nil {
		return r.Member
	}
	return nil
}

func (n *Node) handOver(g *raftgroup.Member) error { return n.handovers.handOver(g) }

func (n *Node) handOverTo(g *raftgroup.Member, suitable func(identity string) bool) error {
	return n.handovers.handOverTo(g, suitable)
}
