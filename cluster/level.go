package cluster

import (
	"cmp"
	"context"
	"fmt"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// self is this node as it registers.
func (n *Node) self() fsm.Node {
	return fsm.Node{ID: n.nodeID, Incarnation: n.incarnation, Zone: n.cfg.Zone, Level: cmp.Or(n.cfg.level, fsm.Level)}
}

func tooOld(level int) error {
	return fmt.Errorf("the cluster is at level %d and this program knows %d: start a newer one", level, fsm.Level)
}

// levelReached is told the cluster's level when the catalog has come further.
func (n *Node) levelReached(level int) {
	if level > fsm.Level {
		n.fail(tooOld(level))
	}
	if level >= 3 {
		n.logs.Upgrade()
	}
}

// register brings the catalog up to date with what this node is: its program may be
// another one than when it joined.
func (n *Node) register(ctx context.Context) {
	view := n.catalog.view.Load()
	self := n.self()
	known, ok := view.Node(self.ID)
	self.State, self.Successor = known.State, known.Successor
	if !ok || known.Incarnation != self.Incarnation || known == self {
		return
	}
	if _, err := n.catalog.apply(ctx, fsm.CatalogCommand{RegisterNode: &self}); outcome.Code(err) == outcome.ErrLevel {
		n.fail(err)
	} else if err != nil {
		n.logger.Debug("not registered anew yet", "error", err)
	}
}

// raiseLevel is done by the catalog's leader when every node's program knows more than is used.
func (c *catalog) raiseLevel(ctx context.Context, view *fsm.Topics) {
	next := view.NextLevel()
	if next <= view.Level() {
		return
	}
	if _, err := c.apply(ctx, fsm.CatalogCommand{RaiseLevel: &fsm.RaiseLevel{Level: next}}); err != nil {
		c.node.logger.Warn("cannot raise the cluster's level yet", "error", err)
		return
	}
	c.node.logger.Info("cluster's level raised", "from", view.Level(), "to", next)
}
