package catalog

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/fsm"
)

var errMalformed = fmt.Errorf("%w: malformed call of another node", fsm.ErrUnknown)

// Answer answers another node's catalog, and this one's where this node leads. from is the identity of who asks.
// Errors are a raftgroup.NotLeader where another node leads, fsm.ErrNewer where more is asked than is known here, and
// those of what is asked.
func (c *Catalog) Answer(ctx context.Context, from string, kind Kind, payload []byte) ([]byte, error) {
	switch kind {
	case Apply:
		return c.propose(ctx, payload)
	case Index:
		return c.index(ctx)
	case Known:
		if len(payload) < 8 {
			return nil, errMalformed
		}
		return nil, c.machine.awaitIndex(ctx, fsm.Index(binary.BigEndian.Uint64(payload)))
	case Membership:
		return c.answerMembership(ctx, from)
	case CreateTopic:
		return placed(ctx, c, payload, c.placer.createTopic)
	case CreatePartitions:
		return placed(ctx, c, payload, c.placer.createPartitions)
	case Administer:
		return placed(ctx, c, payload, c.placer.administer)
	case CreateShards:
		return c.ownTurn(ctx, func(view *fsm.Topics) (fsm.CatalogCommand, error) {
			command, err := c.placer.createShards(view)
			if create := command.CreateGroupShards; err == nil {
				c.cfg.Logger.Info("the shards of consumer groups are created", "shards", len(create.Partitions), "replicas", create.ReplicationFactor)
			}
			return command, err
		})
	}
	return nil, fmt.Errorf("%w: a question %d to the catalog is not known here", fsm.ErrUnknown, kind)
}

// placed reads a call and proposes what it comes to, in its turn.
func placed[T any](ctx context.Context, c *Catalog, payload []byte, command func(*fsm.Topics, T) (fsm.CatalogCommand, error)) ([]byte, error) {
	var call T
	// What is asked may rest on a field that is not known here, so there must be none.
	if err := fsm.DecodeStrictly(payload, &call); errors.Is(err, fsm.ErrNewer) {
		return nil, err
	} else if err != nil {
		return nil, errMalformed
	}
	return c.ownTurn(ctx, func(view *fsm.Topics) (fsm.CatalogCommand, error) { return command(view, call) })
}

// errDone says that what is asked for has been done already, or was only to be checked.
var errDone = errors.New("done already")

// ownTurn proposes a command that rests on what is committed, one at a time, so that topics created at once do not
// crowd one node.
func (c *Catalog) ownTurn(ctx context.Context, command func(view *fsm.Topics) (fsm.CatalogCommand, error)) ([]byte, error) {
	select {
	case c.placing <- struct{}{}:
		defer func() { <-c.placing }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: something else is being created", fsm.ErrNoLeader)
	}
	// Place on what is committed, not on what an old leader remembers.
	if _, err := c.index(ctx); err != nil {
		return nil, err
	}
	view := c.View()
	made, err := command(view)
	if errors.Is(err, errDone) {
		return json.Marshal(Reply{Index: view.Version()})
	}
	if err != nil {
		return nil, err
	}
	return c.propose(ctx, made.Encode())
}

// notLeader says what the member here knows of the leader.
func notLeader(m *raftgroup.Member) error {
	identity, term := m.Leader()
	return raftgroup.NotLeader{Hint: raftgroup.Hint{Identity: identity, Term: term}}
}

// propose proposes an encoded command if this node leads the group. The answer is a Reply. Errors are those of the
// command, a raftgroup.NotLeader, fsm.ErrUnknownFate.
func (c *Catalog) propose(ctx context.Context, command []byte) ([]byte, error) {
	m := c.Member()
	if m == nil {
		return nil, raftgroup.NotLeader{}
	}
	if err := c.View().CheckProposal(command); err != nil {
		return nil, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, CallTimeout)
		defer cancel()
	}
	if !m.Proposals.Enter(ctx) {
		return nil, raftgroup.NotLeader{}
	}
	defer m.Proposals.Leave()
	var future raft.ApplyFuture
	if err := m.Ask(ctx, func() raft.Future {
		f := m.Raft.Apply(command, CallTimeout)
		future = f
		return f
	}); err != nil {
		for _, untouched := range []error{raftgroup.ErrBusy, raft.ErrNotLeader, raft.ErrEnqueueTimeout, raft.ErrLeadershipTransferInProgress} {
			if errors.Is(err, untouched) {
				return nil, notLeader(m)
			}
		}
		return nil, fmt.Errorf("%w: %w", fsm.ErrUnknownFate, err)
	}
	result, ok := future.Response().(fsm.CatalogResult)
	if !ok {
		return nil, fmt.Errorf("%w: unexpected answer of the catalog", fsm.ErrUnknown)
	} else if result.Err != nil {
		return nil, result.Err
	}
	return json.Marshal(Reply{Index: fsm.Index(future.Index()), FirstProducerID: result.FirstProducerID})
}

// index gives the index up to which the catalog is committed, as a confirmed leader that has passed its barrier. The
// answer is a Reply.
func (c *Catalog) index(ctx context.Context) ([]byte, error) {
	m := c.Member()
	if m == nil {
		return nil, raftgroup.NotLeader{}
	}
	// A barrier of this term commits whatever earlier terms left behind.
	ctx, cancel := context.WithTimeout(ctx, CallTimeout)
	defer cancel()
	if err := m.Ask(ctx, func() raft.Future { return m.Raft.Barrier(CallTimeout) }); err != nil {
		return nil, notLeader(m)
	}
	if newer := c.machine.outgrown(); newer != nil {
		return nil, newer
	}
	// The last change, not the last entry: after a restart from a snapshot a node knows of entries that changed
	// nothing only as far as it replays them.
	return json.Marshal(Reply{Index: c.View().Version()})
}
