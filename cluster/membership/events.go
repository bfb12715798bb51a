package membership

import (
	"fmt"

	"github.com/hashicorp/memberlist"
)

// memberlist calls these, some of them under its own lock: they only take notes.

// maxForeign bounds the memory for nodes of other clusters.
const maxForeign = 1024

// delegate says what this node says about itself.
type delegate Gossip

func (d *delegate) NodeMeta(limit int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.meta) > limit {
		return nil // cannot be: encodeMeta has checked
	}
	return d.meta
}

func (d *delegate) NotifyMsg([]byte)                {}
func (d *delegate) GetBroadcasts(int, int) [][]byte { return nil }
func (d *delegate) LocalState(bool) []byte          { return nil }
func (d *delegate) MergeRemoteState([]byte, bool)   {}

// gate keeps nodes of other clusters and strangers out of the member list, so that two
// clusters that meet by mistake do not become one list on every node.
type gate Gossip

func (d *gate) NotifyAlive(n *memberlist.Node) error {
	g := (*Gossip)(d)
	m, _, err := decodeMeta(n.Meta)
	if err != nil {
		return err
	}
	if !g.keptOut(n, m) {
		return nil
	}
	if g.cfg.Foreign != nil {
		g.cfg.Foreign(m)
	}
	return fmt.Errorf("it belongs to cluster %q", m.ClusterID)
}

// keptOut reports whether a node is of another cluster, and notes that.
func (g *Gossip) keptOut(n *memberlist.Node, m Member) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.isForeign(m) {
		delete(g.foreign, n.Name)
		return false
	}
	if g.foreign[n.Name] == "" {
		if len(g.foreign) >= maxForeign {
			clear(g.foreign)
		}
		g.foreign[n.Name] = m.ClusterID
		g.log.Warn("node of another cluster kept out", "node", m.Identity, "addr", n.Address(), "cluster", m.ClusterID, "ours", g.self.ClusterID)
	}
	return true
}

// events hears who came and went.
type events Gossip

func (d *events) NotifyJoin(n *memberlist.Node) {
	if (*Gossip)(d).keep(n) {
		d.log.Info("node joined", "node", identityOf(n), "addr", n.Address())
	}
}

func (d *events) NotifyUpdate(n *memberlist.Node) { (*Gossip)(d).keep(n) }

func (d *events) NotifyLeave(n *memberlist.Node) {
	g := (*Gossip)(d)
	g.mu.Lock()
	e, ok := g.entries[n.Name]
	delete(g.entries, n.Name)
	delete(g.foreign, n.Name)
	g.mu.Unlock()
	if !ok {
		return
	}
	event := "node failed"
	if e.Leaving {
		event = "node left"
	}
	g.log.Info(event, "node", e.Identity, "addr", e.GossipAddr)
	g.tick()
}

// keep notes what a live node says about itself; false if there is nothing to note.
func (g *Gossip) keep(n *memberlist.Node) bool {
	m, started, err := decodeMeta(n.Meta)
	if err != nil || n.Name == g.name {
		return false
	}
	m.GossipAddr = n.Address()
	g.mu.Lock()
	g.entries[n.Name] = entry{m, started}
	g.mu.Unlock()
	g.tick()
	return true
}

func identityOf(n *memberlist.Node) string {
	m, _, _ := decodeMeta(n.Meta)
	return m.Identity
}
