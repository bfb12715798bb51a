package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// Answers gives the calls of other nodes' catalogs their functions. Errors are a
// raftgroup.NotLeader where another node leads, and those of what is asked.
func (c *Catalog) Answers(s *calls.Server) {
	calls.Handle(s, calls.CatalogApply, c.propose)
	calls.Handle(s, calls.CatalogIndex, c.index)
	calls.Handle(s, calls.CatalogKnown, func(ctx context.Context, _ string, index fsm.Index) (calls.Nothing, error) {
		return calls.Nothing{}, c.machine.awaitIndex(ctx, index)
	})
	calls.Handle(s, calls.Member, c.answerMember)
	calls.Handle(s, calls.CreateTopic, c.createTopic().here)
	calls.Handle(s, calls.CreatePartitions, c.createPartitions().here)
	calls.Handle(s, calls.CreateShards, c.createShards().here)
	calls.Handle(s, calls.Administer, c.administer().here)
	calls.Handle(s, calls.AlterACLs, c.alterACLs().here)
}

func (c *Catalog) apply() question[[]byte] { return question[[]byte]{calls.CatalogApply, c.propose} }

func (c *Catalog) createTopic() question[calls.CreateTopicRequest] {
	return question[calls.CreateTopicRequest]{calls.CreateTopic, placed(c, c.placer.createTopic)}
}

func (c *Catalog) createPartitions() question[calls.CreatePartitionsRequest] {
	return question[calls.CreatePartitionsRequest]{calls.CreatePartitions, placed(c, c.placer.createPartitions)}
}

func (c *Catalog) administer() question[admin.Request] {
	return question[admin.Request]{calls.Administer, placed(c, c.placer.administer)}
}

func (c *Catalog) createShards() question[calls.Nothing] {
	return question[calls.Nothing]{calls.CreateShards, placed(c, func(view *fsm.Topics, _ calls.Nothing) (fsm.CatalogCommand, error) {
		command, err := c.placer.createShards(view)
		if create := command.CreateGroupShards; err == nil {
			c.cfg.Logger.Info("the shards of consumer groups are created", "shards", len(create.Partitions), "replicas", create.ReplicationFactor)
		}
		return command, err
	})}
}

// errDone says that what is asked for has been done already, or was only to be checked.
var errDone = errors.New("done already")

// placed gives what proposes a command that rests on what is committed, one at a time, so that
// topics created at once do not crowd one node.
func placed[Q any](c *Catalog, command func(*fsm.Topics, Q) (fsm.CatalogCommand, error)) func(context.Context, string, Q) (calls.CatalogReply, error) {
	return func(ctx context.Context, from string, q Q) (at calls.CatalogReply, err error) {
		select {
		case c.placing <- struct{}{}:
			defer func() { <-c.placing }()
		case <-ctx.Done():
			return at, fmt.Errorf("%w: something else is being created", outcome.ErrNoLeader)
		}
		// Place on what is committed, not on what an old leader remembers.
		if _, err := c.index(ctx, from, calls.Nothing{}); err != nil {
			return at, err
		}
		view := c.View()
		made, err := command(view, q)
		if errors.Is(err, errDone) {
			return calls.CatalogReply{Index: view.Version()}, nil
		}
		if err != nil {
			return at, err
		}
		return c.propose(ctx, from, made.Encode())
	}
}

// notLeader says what the member here knows of the leader.
func notLeader(m *raftgroup.Member) error {
	identity, term := m.Leader()
	return raftgroup.NotLeader{Hint: raftgroup.Hint{Identity: identity, Term: term}}
}

// propose proposes an encoded command if this node leads the group. Errors are those of the
// command, a raftgroup.NotLeader, outcome.ErrUnknownFate.
func (c *Catalog) propose(ctx context.Context, _ string, command []byte) (at calls.CatalogReply, err error) {
	m := c.Member()
	if m == nil {
		return at, raftgroup.NotLeader{}
	}
	if err := c.View().CheckProposal(command); err != nil {
		return at, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	if !m.Proposals.Enter(ctx) {
		return at, raftgroup.NotLeader{}
	}
	defer m.Proposals.Leave()
	var future raft.ApplyFuture
	if err := m.Ask(ctx, func() raft.Future {
		f := m.Raft.Apply(command, callTimeout)
		future = f
		return f
	}); err != nil {
		for _, untouched := range []error{raftgroup.ErrBusy, raft.ErrNotLeader, raft.ErrEnqueueTimeout, raft.ErrLeadershipTransferInProgress} {
			if errors.Is(err, untouched) {
				return at, notLeader(m)
			}
		}
		return at, fmt.Errorf("%w: %w", outcome.ErrUnknownFate, err)
	}
	result, ok := future.Response().(fsm.CatalogResult)
	if !ok {
		return at, fmt.Errorf("%w: unexpected answer of the catalog", outcome.ErrUnknown)
	} else if result.Err != nil {
		return at, result.Err
	}
	return calls.CatalogReply{Index: fsm.Index(future.Index()), FirstProducerID: result.FirstProducerID}, nil
}

// index gives the index up to which the catalog is committed, as a confirmed leader that has passed
// its barrier.
func (c *Catalog) index(ctx context.Context, _ string, _ calls.Nothing) (at calls.CatalogReply, err error) {
	m := c.Member()
	if m == nil {
		return at, raftgroup.NotLeader{}
	}
	// A barrier of this term commits whatever earlier terms left behind.
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := m.Ask(ctx, func() raft.Future { return m.Raft.Barrier(callTimeout) }); err != nil {
		return at, notLeader(m)
	}
	if newer := c.machine.outgrown(); newer != nil {
		return at, newer
	}
	// The last change, not the last entry: after a restart from a snapshot a node knows of entries
	// that changed nothing only as far as it replays them.
	return calls.CatalogReply{Index: c.View().Version()}, nil
}
