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
	"github.com/trimaran-io/trimaran/cluster/leading"
	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/cluster/route"
	"github.com/trimaran-io/trimaran/cluster/status"
	"github.com/trimaran-io/trimaran/fsm"
)

// What the parts of a node are given of each other.

// wire makes the parts that know each other; what they use of the link and of gossip they use
// later. The hosts are those that the catalog and the replicas were made with.
func (n *Node) wire(catalogs *catalogHost, replicas *replicaHost) {
	n.nodes = newPresence(n)
	n.caller = &route.Caller{Self: n.identity, Link: linkLater{func() *link.Link { return n.link }, n.pulse}, Presence: n.nodes, Topics: n.Topics, Serve: func(ctx context.Context, from string, kind uint8, payload []byte) []byte {
		return n.server.Serve(ctx, from, kind, payload)
	}}
	n.router = route.New(route.Config{
		Self: n.identity, NodeID: n.nodeID, Host: routed{n.catalog, n.replicas}, Caller: n.caller, Presence: n.nodes, Stopped: n.ctx,
		Unreadable: func(id fsm.PartitionID, from fsm.Offset, err error) {
			n.logger.Debug("a replica cannot read its log; the leader is asked instead", "partition", id, "offset", from, "error", err)
		},
	})
	n.groups = route.NewGroups(n.router, n.createGroupShards)
	n.room = n.newDiskRoom()
	standings := leading.Standings{
		Self:  n.identity,
		Gone:  func(identity string) bool { return n.election.Gone(identity) },
		Hangs: n.room.Hangs,
	}
	n.failover = leading.NewFailover(leading.FailoverConfig{
		Standings: standings,
		Heartbeat: n.cfg.HeartbeatTimeout,
		Logger:    n.logger,
		Caller:    n.caller,
		Watch:     func(identities []string) { n.election.Watch(identities) },
		Others:    n.electorate,
		Group:     n.candidateNamed,
	})
	n.handovers = &leading.Handovers{
		Standings: standings,
		Stopped:   n.ctx,
		Logger:    n.logger,
		Caller:    n.caller,
		Connected: n.connected,
		Follows:   func(identity, group string, term uint64) bool { return n.election.Follows(identity, group, term) },
	}
	here := seenHere{n.identity, n.catalog, n.replicas, n.logs}
	n.health = &status.Health{Self: n.identity, NodeID: n.nodeID, Presence: n.nodes, Here: here}
	n.overview = status.New(status.Config{
		Self: n.identity, Here: here, Caller: n.caller, ClusterID: n.ClusterID,
		Waiting: func() string { return n.formation.Waiting() }, Members: n.nodes.Members,
		CatchUp: n.catalog.CatchUp, CaughtUp: n.catalog.CaughtUp, Digest: here.digest, Backup: n.cfg.Backup, Compaction: n.compacted,
	})
	*catalogs = catalogHost{
		Caller: n.caller, self: n.identity, who: n.who, ending: n.ending, logger: n.logger,
		logs: n.logs, nodes: n.nodes, router: n.router, handovers: n.handovers,
	}
	*replicas = replicaHost{
		disk: n.cfg.disk(),
		self: n.identity, catalog: n.catalog, replicas: n.replicas, ending: n.ending, room: n.room,
		nodes: n.nodes, caller: n.caller, router: n.router, groups: n.groups, handovers: n.handovers, failover: n.failover,
		pulse: n.pulse, coordinatedBy: n.cfg.joinTransaction,
	}
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

// linkLater is the node's link, which calls back before it is there.
type linkLater struct {
	link  func() *link.Link
	pulse func() *election.Beacons
}

func (l linkLater) Call(ctx context.Context, identity string, kind uint8, payload ...[]byte) ([]byte, error) {
	return l.link().Call(ctx, identity, kind, payload...)
}

func (l linkLater) SuspectedBy(identity string) (suspects []string, known bool) {
	return l.pulse().SuspectedBy(identity)
}

// pulse gives the node's beacons, once it listens.
func (n *Node) pulse() *election.Beacons { return n.election }

// newPreferred gives away what others should lead.
func (n *Node) newPreferred() *leading.Preferred {
	return leading.NewPreferred(leading.PreferredConfig{
		NodeID: n.nodeID, Logger: n.logger, Steady: cmp.Or(n.cfg.steadyFor, leading.DefaultSteadyFor), Balance: !n.cfg.NoAutoBalance,
		Topics: n.Topics, Connected: n.connected, Full: n.logs.Full, SaysFull: n.room.SaysFull,
		Led: func() map[fsm.PartitionID]fsm.Term {
			led := map[fsm.PartitionID]fsm.Term{}
			for _, r := range n.runningReplicas() {
				if p, err := r.Leads(); err == nil {
					led[r.ID] = p.InTerm()
				}
			}
			return led
		},
		Give: func(id fsm.PartitionID, suitable func(identity string) bool) error {
			r := n.replica(id)
			if r == nil {
				return errNotLeader{}
			}
			return n.handovers.GiveTo(leading.Of(r.Member), suitable)
		},
		GiveCatalog: func(suitable func(identity string) bool) error {
			if g := n.catalog.Member(); g != nil && g.Raft.State() == raft.Leader {
				return n.handovers.GiveTo(leading.Of(g), suitable)
			}
			return nil
		},
	})
}

func (n *Node) newStuckMembers() *leading.StuckGroups {
	return leading.NewStuckGroups(leading.StuckConfig{
		Logger: n.logger,
		Groups: n.appendingMembers,
		Offer: func(g leading.Member) {
			if !n.handovers.Offer(g) {
				return
			}
			for _, r := range n.runningReplicas() {
				if leading.Of(r.Member) == g {
					r.Abandon()
				}
			}
		},
		Hangs: n.room.SetHangs,
	})
}

// runningMembers are the groups of the replicas that run here, and the catalog's.
func (n *Node) runningMembers() (groups []leading.Member) {
	for _, r := range n.runningReplicas() {
		groups = append(groups, leading.Of(r.Member))
	}
	if g := n.catalog.Member(); g != nil {
		groups = append(groups, leading.Of(g))
	}
	return groups
}

// appendingMembers are those of runningMembers in whose log an append is under way.
func (n *Node) appendingMembers() (groups []leading.Member) {
	for _, r := range n.runningReplicas() {
		if r.Member.Appending() != 0 {
			groups = append(groups, leading.Of(r.Member))
		}
	}
	if g := n.catalog.Member(); g != nil && g.Appending() != 0 {
		groups = append(groups, leading.Of(g))
	}
	return groups
}

// vouch lets the peer link speak for a member that was opened, and looks whether it has a leader.
func vouch(m *raftgroup.Member, failover *leading.Failover) {
	if t, ok := m.Transport.(*election.Member); ok {
		t.Claim(m.Raft)
	}
	failover.Opened(leading.Of(m))
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

// memberNamed gives the member of a group that runs here, nil if there is none.
func (n *Node) memberNamed(name string) *raftgroup.Member {
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

// candidateNamed is memberNamed for package leading.
func (n *Node) candidateNamed(name string) leading.Member {
	if m := n.memberNamed(name); m != nil {
		return leading.Of(m)
	}
	return nil
}
