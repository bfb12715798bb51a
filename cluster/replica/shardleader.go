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
)

// shardInFlight is how many entries of commands are handed to Raft and not yet
// committed. It is small, so that commands that wait share the next one.
const shardInFlight = 4

// shardLeader is a shard's leader in one term: the coordinator, and the queue of
// commands on their way into the log. Unlike records, commands hold nothing that
// depends on their place, so one that fails leaves the others as they are.
type shardLeader struct {
	*pump[*groupCommand, groupEntry]
	shard       *Shard
	coordinator *coordinator.Coordinator // set before ready
}

// groupCommand is one call of command.
type groupCommand struct {
	ctx  context.Context
	b    []byte
	fate chan error // buffered: nobody waits for the caller
}

func (c *groupCommand) caller() context.Context { return c.ctx }
func (c *groupCommand) size() int               { return len(c.b) }
func (c *groupCommand) refuse(err error)        { c.fate <- err }

// groupEntry is the commands of one Raft entry.
type groupEntry []*groupCommand

func startShardLeader(s *Shard, term fsm.Term) *shardLeader {
	l := &shardLeader{shard: s}
	l.pump = &pump[*groupCommand, groupEntry]{
		leadership: newLeadership(s.Replica, term), what: "shard",
		form: l.form, decide: l.decide, refusal: l.refused,
		queue: make(chan *groupCommand),
		// one more is being decided, one waits to be sent
		inFlight: make(chan pumped[groupEntry], shardInFlight-2),
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
	l.coordinator = coordinator.New(coordinator.Config{
		State:   state,
		Propose: l.command,
		TopicID: func(name string) ([16]byte, bool) {
			topic, ok := host.Topics().Lookup(name)
			if !ok && host.RefreshTopics() {
				topic, ok = host.Topics().Lookup(name)
			}
			if !ok {
				return [16]byte{}, false
			}
			return topic.ID, true
		},
		TopicName: func(id [16]byte) (string, bool) {
			topic, ok := host.Topics().ByID(id)
			if !ok && host.RefreshTopics() {
				topic, ok = host.Topics().ByID(id)
			}
			if !ok {
				return "", false
			}
			return topic.Name, true
		},
		Awake:    host.Awake,
		Settings: env.Groups,
		Logger:   env.Logger.With("shard", l.replica.ID.Partition),
	})
	defer l.coordinator.Close()
	env.Logger.Debug("a shard of consumer groups is coordinated here", "shard", l.replica.ID.Partition, "term", l.term)
	l.begin()
	l.propose()
}

// form puts commands together.
func (l *shardLeader) form(taken []*groupCommand) (groupEntry, []byte) {
	data := make([][]byte, len(taken))
	for i, c := range taken {
		data[i] = c.b
	}
	return taken, fsm.GroupEntry(data...)
}

// decide tells every command of an entry its fate.
func (l *shardLeader) decide(commands groupEntry, _ bool, response any, err error) {
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

// command is the coordinator's way into the log (coordinator.Config.Propose).
func (l *shardLeader) command(ctx context.Context, command []byte) error {
	c := &groupCommand{ctx: ctx, b: command, fate: make(chan error, 1)}
	if err := l.submit(ctx, c); err != nil {
		return err
	}
	err, late := awaitFate(ctx, l.leadership, c.fate)
	return cmp.Or(late, err)
}

// committed reports whether a request asks for what is replicated.
func committed(req kmsg.Request) bool {
	switch kmsg.Key(req.Key()) {
	case kmsg.OffsetFetch, kmsg.DescribeGroups, kmsg.ListGroups:
		return true
	}
	return false
}

// Coordinate hands a request to the coordinator here. The error is raftgroup.NotLeader if
// it was surely not handled, or if it may be handed to another one all the same.
func (s *Shard) Coordinate(ctx context.Context, client coordinator.Client, req kmsg.Request) (kmsg.Response, error) {
	l, err := s.coordinating()
	if err != nil {
		return nil, err
	}
	if committed(req) {
		// A leader that was deposed without noticing must not bring back old offsets.
		if err := s.ReadIndex(ctx, l.term); err != nil {
			return nil, err
		}
	}
	resp, err := l.coordinator.Handle(ctx, client, req)
	switch {
	case err == nil && l.ctx.Err() != nil && calls.Repeatable(req):
		return nil, l.notLeader()
	case err == nil:
		return resp, nil
	case errors.Is(err, coordinator.ErrNotLeader):
		return nil, l.notLeader()
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%w: %w", outcome.ErrTimeout, err)
	}
	return nil, errors.Join(outcome.ErrUnknown, err)
}
