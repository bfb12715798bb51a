package catalog

import (
	"context"
	"fmt"
	"time"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

const (
	// retryPause is the pause before the leader is looked for again. What the member here hears
	// tells sooner.
	retryPause = 25 * time.Millisecond
	// makeKnownTimeout is longer than a commit takes to reach a node that is well, and short for
	// who creates a topic while one is not.
	makeKnownTimeout = 500 * time.Millisecond
)

// question is what the leader is asked: a call to it where that is another node, and what answers
// it here.
type question[Q any] struct {
	call *calls.Call[Q, calls.CatalogReply]
	here func(ctx context.Context, from string, q Q) (calls.CatalogReply, error)
}

// atLeader asks the group's leader, again as long as nothing happened, until ctx ends (10 s where
// it has no deadline); then it waits until the result is known here. Errors are the leader's,
// outcome.ErrNoLeader when ctx ends, outcome.ErrUnknownFate when it may have been done,
// outcome.ErrTimeout when it was and is not known here, and outcome.ErrShuttingDown.
func atLeader[Q any](ctx context.Context, c *Catalog, what question[Q], q Q) (calls.CatalogReply, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 2*callTimeout)
		defer cancel()
	}
	for {
		changed := c.Changed()
		at, err := tryLeader(ctx, c, what, q)
		if err == nil {
			return at, c.machine.awaitIndex(ctx, at.Index)
		}
		if !outcome.NotAppended(err) {
			return calls.CatalogReply{}, err
		}
		select {
		case <-changed:
		case <-time.After(retryPause):
		case <-ctx.Done():
			return calls.CatalogReply{}, fmt.Errorf("%w: the catalog: %w", outcome.ErrNoLeader, err)
		case <-c.cfg.Life.Done():
			return calls.CatalogReply{}, outcome.ErrShuttingDown
		}
	}
}

// tryLeader asks the leader that is known now, once.
func tryLeader[Q any](ctx context.Context, c *Catalog, what question[Q], q Q) (at calls.CatalogReply, err error) {
	m := c.Member()
	if m == nil {
		return at, outcome.ErrNoLeader
	}
	leader, _ := m.Leader()
	if who, ok := c.cfg.Host.Elsewhere(leader, m.Voters()); ok {
		leader = who
	}
	switch leader {
	case "":
		return at, outcome.ErrNoLeader
	case c.self:
		return what.here(ctx, c.self, q)
	default:
		return what.call.Ask(ctx, c.cfg.Host, leader, q)
	}
}

// Change makes a change to the catalog and returns when it is known here. Errors are those of the
// change, outcome.ErrFeatureLevel while nodes run an older program, and those of atLeader.
func (c *Catalog) Change(ctx context.Context, command fsm.CatalogCommand) (calls.CatalogReply, error) {
	if err := c.View().CheckFeatureLevel(&command); err != nil {
		return calls.CatalogReply{}, err
	}
	return atLeader(ctx, c, c.apply(), command.Encode())
}

// ChangeForAll is Change for what is made once however often it is asked for, and returns when it
// is known here and at all nodes that are connected.
func (c *Catalog) ChangeForAll(ctx context.Context, command fsm.CatalogCommand) error {
	if err := c.View().CheckFeatureLevel(&command); err != nil {
		return err
	}
	return askForAll(ctx, c, c.apply(), command.Encode())
}

// askForAll has the leader make a change that is made once however often it is asked for, and
// returns when it is known here and at all nodes that are connected: whoever asked for it may turn
// to another gateway next.
func askForAll[Q any](ctx context.Context, c *Catalog, what question[Q], q Q) error {
	_, err := askAndTell(ctx, c, what, q)
	return err
}

// askAndTell is askForAll for who wants the leader's reply, too.
func askAndTell[Q any](ctx context.Context, c *Catalog, what question[Q], q Q) (calls.CatalogReply, error) {
	for {
		at, err := atLeader(ctx, c, what, q)
		if outcome.Code(err) == outcome.ErrUnknownFate && ctx.Err() == nil {
			continue
		}
		if err == nil {
			c.makeKnown(ctx, at.Index)
		}
		return at, err
	}
}

// makeKnown returns when all nodes that are connected know the catalog as it is at index. One that
// does not say so within makeKnownTimeout, paused or just dead, is not waited for: what is changed
// stays changed without it.
func (c *Catalog) makeKnown(ctx context.Context, index fsm.Index) {
	ctx, cancel := context.WithTimeout(ctx, makeKnownTimeout)
	defer cancel()
	var others []fsm.Node
	for _, node := range c.View().Nodes() {
		if identity := node.Identity(); identity != c.self && c.cfg.Host.Connected(identity) {
			others = append(others, node)
		}
	}
	calls.AskAll(ctx, others, func(ctx context.Context, node fsm.Node) (calls.Nothing, error) {
		return calls.CatalogKnown.Ask(ctx, c.cfg.Host, node.Identity(), index)
	}, func(node fsm.Node, _ calls.Nothing, err error) bool {
		if err != nil {
			c.cfg.Logger.Debug("a node may not know a change of the catalog yet", "node", node.ID, "error", err)
		}
		return false
	})
}

// CatchUp returns when this node knows the catalog as it was, or newer, when the call began. Errors
// are those of atLeader.
func (c *Catalog) CatchUp(ctx context.Context) error {
	_, err := atLeader(ctx, c, question[calls.Nothing]{calls.CatalogIndex, c.index}, calls.Nothing{})
	return err
}
