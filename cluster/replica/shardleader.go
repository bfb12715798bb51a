package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
	"github.com/trimaran-io/trimaran/transaction"
)

// shardInFlight is how many entries of commands are handed to Raft and not yet
// committed. It is small, so that commands that wait share the next one.
const shardInFlight = 4

// shardLeader is a shard's leader in one term: the coordinators, and the queue of
// commands on their way into the log. Unlike records, commands hold nothing that
// depends on their place, so one that fails leaves the others as they are.
type shardLeader struct {
	*pump[*shardProposal, shardEntry]
	shard        *Shard
	groups       *coordinator.Coordinator // set before ready
	transactions *transaction.Coordinator // likewise
}

// shardProposal is one call of command.
type shardProposal struct {
	ctx     context.Context
	command fsm.ShardCommand
	fate    chan error // buffered: nobody waits for the caller
}

func (c *shardProposal) caller() context.Context { return c.ctx }
func (c *shardProposal) size() int               { return len(c.command.Bytes) }
func (c *shardProposal) refuse(err error)        { c.fate <- err }

// shardEntry is the commands of one Raft entry.
type shardEntry []*shardProposal

func startShardLeader(s *Shard, term fsm.Term) *shardLeader {
	l := &shardLeader{shard: s}
	l.pump = &pump[*shardProposal, shardEntry]{
		leadership: newLeadership(s.Replica, term), what: "shard",
		form: l.form, decide: l.decide, refusal: l.refused,
		queue: make(chan *shardProposal),
		// one more is being decided, one waits to be sent
		inFlight: make(chan pumped[shardEntry], shardInFlight-2),
	}
	l.start(l.run)
	return l
}

// refused is what a coordinator is told whose command is not proposed. Who waits in it is told
// NOT_COORDINATOR.
func (l *shardLeader) refused() error {
	return fmt.Errorf("%w: %w", coordinator.ErrNotLeader, l.notLeader())
}

// run waits for the barrier, serves, and takes commands.
func (l *shardLeader) run() {
	if !l.barrier() {
		l.fail()
		return
	}
	env := l.replica.env
	host := env.Host
	if !host.AwaitTopics(l.ctx) {
		return
	}
	l.shard.mu.Lock()
	state := l.shard.state
	l.shard.mu.Unlock()
	topicID := func(name string) ([16]byte, bool) {
		topic, ok := host.Topics().Lookup(name)
		if !ok && host.RefreshTopics() {
			topic, ok = host.Topics().Lookup(name)
		}
		if !ok {
			return [16]byte{}, false
		}
		return topic.ID, true
	}
	topicName := func(id [16]byte) (string, bool) {
		topic, ok := host.Topics().ByID(id)
		if !ok && host.RefreshTopics() {
			topic, ok = host.Topics().ByID(id)
		}
		if !ok {
			return "", false
		}
		return topic.Name, true
	}
	logger := env.Logger.With("shard", l.replica.ID.Partition)
	l.groups = coordinator.New(coordinator.Config{
		State:   state.groups,
		Propose: func(ctx context.Context, command []byte) error { return l.propose(ctx, false, command) },
		TopicID: topicID, TopicName: topicName,
		Join:     host.JoinTransactionGroup,
		Awake:    host.Awake,
		Settings: env.Groups,
		Logger:   logger,
	})
	defer l.groups.Close()
	l.transactions = transaction.New(transaction.Config{
		State:         state.transactions,
		Propose:       func(ctx context.Context, command []byte) error { return l.propose(ctx, true, command) },
		Confirm:       l.confirm,
		NewProducerID: host.NewProducerID,
		TopicID:       topicID, TopicName: topicName,
		WriteMarker: host.WriteMarker, EndOffsets: host.EndOffsets,
		Version: func() int {
			if host.Topics().FeatureLevel() < fsm.LevelTransactions {
				return 0
			}
			return 2
		},
		Ahead:    func() bool { return host.Topics().FeatureLevel() >= fsm.LevelTransactionsAhead },
		Awake:    host.Awake,
		Settings: env.Transactions,
		Counters: env.TransactionCounters,
		Logger:   logger,
	})
	defer l.transactions.Close()
	env.Logger.Debug("a shard of consumer groups is coordinated here", "shard", l.replica.ID.Partition, "term", l.term)
	l.begin()
	l.pump.propose()
}

// form puts commands together.
func (l *shardLeader) form(taken []*shardProposal) (shardEntry, []byte) {
	commands := make([]fsm.ShardCommand, len(taken))
	for i, c := range taken {
		commands[i] = c.command
	}
	return taken, fsm.ShardEntry(commands...)
}

// decide tells every command of an entry its fate.
func (l *shardLeader) decide(commands shardEntry, _ bool, response any, err error) {
	var results shardApplied
	if err != nil {
		if err = l.proposalError(err); outcome.Code(err) == outcome.ErrNotLeader {
			err = fmt.Errorf("%w: %w", coordinator.ErrNotLeader, err)
		}
	} else if results, _ = response.(shardApplied); len(results) != len(commands) {
		err = fmt.Errorf("%w: unexpected answer of the state machine", outcome.ErrUnknown)
	}
	for i, c := range commands {
		if err != nil {
			c.fate <- err
		} else {
			c.fate <- results[i]
		}
	}
}

// propose is a coordinator's way into the log (Config.Propose).
func (l *shardLeader) propose(ctx context.Context, transactional bool, command []byte) error {
	c := &shardProposal{ctx: ctx, command: fsm.ShardCommand{Transactional: transactional, Bytes: command}, fate: make(chan error, 1)}
	if err := l.submit(ctx, c); err != nil {
		return err
	}
	err, late := awaitFate(ctx, l.leadership, c.fate)
	return cmp.Or(late, err)
}

// Coordinate hands a request to the coordinator here that it is for. The error is
// raftgroup.NotLeader if it was surely not handled, or if it may be handed to another one all the
// same.
//
// A leader that was deposed without noticing must not bring back what is over: old offsets, or a
// transaction that has ended. So one that answers from what is replicated is confirmed first;
// package transaction has those confirmed for which it replicates nothing.
func (s *Shard) Coordinate(ctx context.Context, client coordinator.Client, req kmsg.Request) (kmsg.Response, error) {
	l, err := s.coordinating()
	if err != nil {
		return nil, err
	}
	handle := l.groups.Handle
	if _, ok := transaction.Version(req.Key()); ok {
		handle = l.transactions.Handle
	} else if committed(req) {
		if err := s.ReadIndex(ctx, l.term); err != nil {
			return nil, err
		}
	}
	resp, err := handle(ctx, client, req)
	switch {
	case err == nil && l.ctx.Err() != nil && calls.Repeatable(req):
		return nil, l.notLeader()
	case err == nil:
		return resp, nil
	}
	return nil, l.unanswered(ctx, err)
}

// confirm is transaction.Config.Confirm.
func (l *shardLeader) confirm(ctx context.Context) error {
	err := l.shard.ReadIndex(ctx, l.term)
	if outcome.Code(err) == outcome.ErrNotLeader {
		return fmt.Errorf("%w: %w", coordinator.ErrNotLeader, err)
	}
	return err
}

// unanswered is what a coordinator's error means for who asks.
func (l *shardLeader) unanswered(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, coordinator.ErrNotLeader):
		return l.notLeader()
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", outcome.ErrTimeout, err)
	}
	return errors.Join(outcome.ErrUnknown, err)
}

// EndOffsets has the coordinator here end a transaction in a group. Errors are as those of
// Coordinate; asking again does no harm.
func (s *Shard) EndOffsets(ctx context.Context, group string, m fsm.Marker) error {
	l, err := s.coordinating()
	if err != nil {
		return err
	}
	if err := l.groups.EndOffsets(ctx, group, m); err != nil {
		return l.unanswered(ctx, err)
	}
	return nil
}

// HoldCommits has the coordinator here hold commits of transactions, and gives the hold. Or, if
// that is not 0, it has it let go, and gives it back if it stood all along, else 0. Errors are as
// those of Coordinate, or transaction.ErrNotSettled.
func (s *Shard) HoldCommits(ctx context.Context, hold uint64) (uint64, error) {
	l, err := s.coordinating()
	if err != nil {
		return 0, err
	}
	if hold == 0 {
		hold, err = l.transactions.HoldCommits(ctx)
	} else if held, herr := l.transactions.ReleaseCommits(ctx, hold); !held || herr != nil {
		hold, err = 0, herr
	}
	if err != nil && !errors.Is(err, transaction.ErrNotSettled) {
		err = l.unanswered(ctx, err)
	}
	return hold, err
}

// committed reports whether a request of a group asks for what is replicated.
func committed(req kmsg.Request) bool {
	switch kmsg.Key(req.Key()) {
	case kmsg.OffsetFetch, kmsg.DescribeGroups, kmsg.ListGroups:
		return true
	}
	return false
}
