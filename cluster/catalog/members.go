package catalog

import (
	"context"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/fsm"
)

// lead is run once a second and when leadership changes: what the group's leader has to do.
func (c *Catalog) lead(ctx context.Context) {
	m := c.Member()
	if m == nil || m.Raft.State() != raft.Leader {
		return
	}
	view := c.View()
	if forming := c.cfg.Forming(); view.ClusterID() == "" && forming != nil {
		command := fsm.CatalogCommand{FormCluster: &fsm.FormCluster{ClusterID: forming.ClusterID, Nodes: forming.Nodes}}
		if _, err := c.Change(ctx, command); err != nil {
			c.cfg.Logger.Warn("cannot write the cluster into the catalog yet", "error", err)
			return
		}
		view = c.View()
		c.cfg.Logger.Info("cluster formed", "cluster", forming.ClusterID, "nodes", len(forming.Nodes))
	}
	c.raiseFeatureLevel(ctx, view)
	c.dropLost(ctx, m, view)
	servers, err := m.Servers()
	if err != nil {
		return
	}
	if servers, err = c.addMembers(ctx, m, servers, view); err == nil {
		c.removeMembers(ctx, m, servers, view)
	}
}

// dropLost has nodes leave the cluster that it was recovered without, and the group at once: what
// they held goes to others, as soon as there are some, and then they are forgotten. Their groups
// may go on without a majority of those that the catalog names, so nobody else could take them out.
func (c *Catalog) dropLost(ctx context.Context, m *raftgroup.Member, view *fsm.Topics) {
	for _, identity := range c.cfg.Host.Lost() {
		err := c.dropped(ctx, m, view, identity)
		if err != nil {
			c.cfg.Logger.Warn("a node that was lost is not leaving yet", "node", identity, "error", err)
		}
	}
}

func (c *Catalog) dropped(ctx context.Context, m *raftgroup.Member, view *fsm.Topics, identity string) error {
	i := slices.IndexFunc(view.Nodes(), func(node fsm.Node) bool { return node.Identity() == identity })
	if i < 0 || c.cfg.Host.Connected(identity) {
		return nil
	}
	if node := view.Nodes()[i]; node.State != fsm.NodeLeaving {
		command := fsm.CatalogCommand{SetNodeState: &fsm.SetNodeState{ID: node.ID, State: fsm.NodeLeaving}}
		if _, err := c.Change(ctx, command); err != nil {
			return err
		}
		c.cfg.Logger.Info("a node that was lost leaves the cluster", "node", node.ID)
	}
	servers, err := m.Servers()
	if err != nil || !slices.ContainsFunc(servers, func(s raft.Server) bool { return string(s.ID) == identity }) {
		return err
	}
	if !raftgroup.MajorityWithout(servers, identity, c.cfg.Host.Connected) {
		return nil // for now
	}
	return m.Change(ctx, func() raft.Future { return m.Raft.RemoveServer(raft.ServerID(identity), 0, callTimeout) })
}

// addMembers takes the nodes that are registered into the group, and gives votes to as many as may
// vote. It gives the group's members afterwards.
func (c *Catalog) addMembers(ctx context.Context, m *raftgroup.Member, servers []raft.Server, view *fsm.Topics) ([]raft.Server, error) {
	voters := 0
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			voters++
		}
	}
	for _, node := range view.Nodes() {
		id := raft.ServerID(node.Identity())
		// One that leaves gets no vote: it may have given it up already (giveUpVote).
		votes := voters < MaxVoters && node.State != fsm.NodeLeaving
		if i := slices.IndexFunc(servers, func(s raft.Server) bool { return s.ID == id }); i >= 0 && (servers[i].Suffrage == raft.Voter || !votes) {
			continue
		}
		if !c.cfg.Host.Connected(node.Identity()) {
			// It would count for the majority from now on, and may never have been reached.
			continue
		}
		if votes && !raftgroup.MajorityWith(servers, node.Identity(), c.cfg.Host.Connected) {
			c.cfg.Logger.Debug("a node gets no vote in the catalog yet: too few of the others are there", "node", node.ID)
			continue
		}
		var err error
		if votes {
			err = m.Change(ctx, func() raft.Future { return m.Raft.AddVoter(id, raft.ServerAddress(id), 0, callTimeout) })
			voters++
		} else {
			err = m.Change(ctx, func() raft.Future { return m.Raft.AddNonvoter(id, raft.ServerAddress(id), 0, callTimeout) })
		}
		if err != nil {
			c.cfg.Logger.Warn("cannot add a node to the catalog group yet", "node", node.ID, "error", err)
			return nil, err
		}
		c.cfg.Logger.Info("node added to the catalog group", "node", node.ID)
		if servers, err = m.Servers(); err != nil {
			return nil, err
		}
	}
	return servers, nil
}

// removeMembers takes nodes that have left the cluster out of the group, this node last.
func (c *Catalog) removeMembers(ctx context.Context, m *raftgroup.Member, servers []raft.Server, view *fsm.Topics) {
	registered := func(identity string) bool {
		return slices.ContainsFunc(view.Nodes(), func(node fsm.Node) bool { return node.Identity() == identity })
	}
	if view.ClusterID() == "" {
		return
	}
	connected := c.cfg.Host.Connected
	surplus := raftgroup.LeastMissed(servers, c.self, connected, func(identity string) bool { return !registered(identity) })
	if len(surplus) == 0 {
		return
	}
	identity := surplus[0]
	var err error
	switch {
	case identity == c.self:
		err = c.cfg.Host.HandOver(m, registered)
	case !raftgroup.MajorityWithout(servers, identity, connected):
		c.cfg.Logger.Debug("a node that has left stays in the catalog group: too few of the others are there", "node", identity)
		return
	default:
		if connected(identity) {
			// It is to hear that it has left before nobody tells it anything any more.
			err = m.Change(ctx, func() raft.Future { return m.Raft.Barrier(callTimeout) })
		}
		if err == nil {
			err = m.Change(ctx, func() raft.Future { return m.Raft.RemoveServer(raft.ServerID(identity), 0, callTimeout) })
		}
	}
	if err != nil {
		c.cfg.Logger.Warn("a node that has left is still in the catalog group", "node", identity, "error", err)
	} else {
		c.cfg.Logger.Info("a node has left the catalog group", "node", identity)
	}
}

// giveUpVote takes the vote in the group from a node that is to leave the cluster. obstacle says
// why that has to wait. It is called at the leader.
func (c *Catalog) giveUpVote(ctx context.Context, node fsm.Node) (obstacle string, err error) {
	identity := node.Identity()
	m := c.Member()
	if m == nil {
		return "", raftgroup.NotLeader{}
	}
	servers, err := m.Servers()
	if err != nil {
		return "", err
	}
	votes := slices.ContainsFunc(servers, func(s raft.Server) bool { return string(s.ID) == identity && s.Suffrage == raft.Voter })
	switch {
	case !votes:
		return "", nil
	case identity == c.self: // the node hands the catalog over
		return fmt.Sprintf("node %s leads the catalog, and no other node takes over", node.ID), nil
	case !raftgroup.MajorityWithout(servers, identity, c.cfg.Host.Connected):
		return fmt.Sprintf("without node %s the catalog would have no majority: too few of its other voters are there", node.ID), nil
	}
	if err := m.Change(ctx, func() raft.Future { return m.Raft.DemoteVoter(raft.ServerID(identity), 0, callTimeout) }); err != nil {
		return "", err
	}
	c.cfg.Logger.Info("a node that leaves has given up its vote in the catalog", "node", node.ID)
	return "", nil
}
