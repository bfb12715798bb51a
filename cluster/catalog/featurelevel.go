package catalog

import (
	"context"
	"fmt"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// register brings the catalog up to date with what this node is: its program may be another one
// than when it joined.
func (c *Catalog) register(ctx context.Context) {
	self := c.cfg.Self
	known, ok := c.View().Node(self.ID)
	self.State, self.Successor = known.State, known.Successor
	if !ok || known.Incarnation != self.Incarnation || known == self {
		return
	}
	if _, err := c.Change(ctx, fsm.CatalogCommand{RegisterNode: &self}); outcome.Code(err) == outcome.ErrFeatureLevel {
		c.cfg.Host.Fail(err)
	} else if err != nil {
		c.cfg.Logger.Debug("not registered anew yet", "error", err)
	}
}

// raiseFeatureLevel is done by the group's leader when every node's program knows more than is
// used.
func (c *Catalog) raiseFeatureLevel(ctx context.Context, view *fsm.Topics) {
	next := view.NextFeatureLevel()
	if next <= view.FeatureLevel() {
		return
	}
	if _, err := c.Change(ctx, fsm.CatalogCommand{RaiseFeatureLevel: &fsm.RaiseFeatureLevel{FeatureLevel: next}}); err != nil {
		c.cfg.Logger.Warn("cannot raise the cluster's level yet", "error", err)
		return
	}
	c.cfg.Logger.Info("cluster's level raised", "from", view.FeatureLevel(), "to", next)
}

// levelPatience is how long a change waits for a level that is about to be reached: the catalog's
// leader raises it within a second.
const levelPatience = 5 * time.Second

// awaitFeatureLevel returns when the catalog here has the level that a command needs. Where all
// nodes' programs know that level it waits for it. Errors are outcome.ErrFeatureLevel where some do
// not, and outcome.ErrNoLeader when the level does not come.
func (c *Catalog) awaitFeatureLevel(ctx context.Context, command fsm.CatalogCommand) error {
	ctx, cancel := context.WithTimeout(ctx, levelPatience)
	defer cancel()
	for {
		changed, view := c.Changed(), c.View()
		err := view.CheckFeatureLevel(&command)
		if err == nil || !view.FeatureLevelComes(&command) {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: the cluster's level is not raised yet: %v", outcome.ErrNoLeader, err)
		case <-c.cfg.Life.Done():
			return outcome.ErrShuttingDown
		}
	}
}
