package catalog

import (
	"context"
	"slices"
	"time"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/fsm"
)

// A node that is taken out of the cluster hears of it as a member of the catalog's group, ends, and
// remembers it in its data directory. One that was away then, or cut off, is in that group no more
// when it is back, so that nobody tells it anything: it asks.

const (
	// leftTimeout bounds the question of one turn, all nodes asked together.
	leftTimeout = time.Second
	// askLeftEvery is the pause between two questions whether this node still belongs to the
	// cluster.
	askLeftEvery = 5 * time.Second
)

// departure belongs to the goroutine that runs the catalog.
type departure struct {
	asked time.Time // when others were asked last
}

// WasCut says that a connection with another node has ended: this node may have been taken out of
// the cluster without hearing of it. It does not wait.
func (c *Catalog) WasCut() { c.cut.Store(true) }

// depart ends the node if it was taken out of the cluster.
func (c *Catalog) depart(ctx context.Context, d *departure) {
	if view := c.View(); view.ClusterID() != "" {
		if _, ok := view.Node(c.cfg.Self.ID); !ok {
			c.cfg.Host.Left()
		}
	}
	if !c.cut.Load() || time.Since(d.asked) <= askLeftEvery {
		return
	}
	c.cut.Store(false)
	d.asked = time.Now()
	switch left, known := c.hasLeft(ctx); {
	case left:
		c.cfg.Host.Left()
	case !known:
		c.cut.Store(true)
	}
}

// hasLeft asks the nodes that gossip names, of which the group's leader can tell; known says that
// it did. All that this node knows of the cluster may be gone: those that are there now it has
// never been connected with.
func (c *Catalog) hasLeft(ctx context.Context) (left, known bool) {
	ctx, cancel := context.WithTimeout(ctx, leftTimeout)
	defer cancel()
	calls.AskAll(ctx, c.cfg.Host.Members(), func(ctx context.Context, identity string) (bool, error) {
		return calls.Member.Ask(ctx, c.cfg.Host, identity, calls.Nothing{})
	}, func(_ string, member bool, err error) (enough bool) {
		if err == nil {
			left, known = !member, true
		}
		return known // the others need not be waited for
	})
	return left, known
}

// answerMember tells a node whether it belongs to the cluster. Only a confirmed leader knows.
// Before the catalog says who the first nodes are, all that ask belong to it.
func (c *Catalog) answerMember(ctx context.Context, identity string, _ calls.Nothing) (member bool, err error) {
	if _, err := c.index(ctx, identity, calls.Nothing{}); err != nil {
		return false, err
	}
	view := c.View()
	return view.ClusterID() == "" || slices.ContainsFunc(view.Nodes(), func(node fsm.Node) bool { return node.Identity() == identity }), nil
}
