package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/fsm/groups"
	"github.com/trimaran-io/trimaran/outcome"
)

// shardSegmentBytes is the least size of a segment of a shard's log. What a snapshot
// takes is rewritten whole, so a shard with a larger state has larger segments, and
// its log is a few times as large as what is in it.
var shardSegmentBytes int64 = 4 << 20

// shard is the machine of a replica of one shard of consumer groups: the state of
// package coordinator, and a coordinator while it leads. Its offsets count the
// entries that were applied; nothing reads them but the log, to know what it holds.
type shard struct {
	*replica

	stateSize atomic.Int64 // bytes of the last snapshot

	// The replica's mu guards these. state is replaced only before Raft applies to it.
	state   *coordinator.State
	applied fsm.Index
	next    int64
}

func newShard(r *replica) *shard { return &shard{replica: r, state: coordinator.NewState()} }

// shard gives this node's replica of a shard, nil if there is none.
func (n *Node) shard(id fsm.PartitionID) *shard {
	r := n.replica(id)
	if r == nil {
		return nil
	}
	found, _ := r.machine.(*shard)
	return found
}

// lead implements machine.
func (s *shard) lead(term fsm.Term) leadership { return startShardLeader(s, term) }

// leads gives the leader's half if this replica leads and has passed its barrier,
// else errNotLeader.
func (s *shard) leads() (*shardLeader, error) {
	leading, err := s.replica.leads()
	if err != nil {
		return nil, err
	}
	return leading.(*shardLeader), nil
}

// bounds implements machine.
func (s *shard) bounds() (start, next fsm.Offset) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return 0, fsm.Offset(s.next)
}

// segmentBytes is the size of a segment, and how much of the log a snapshot stands for.
func (s *shard) segmentBytes() int64 { return max(shardSegmentBytes, s.stateSize.Load()) }

// logOptions implements machine. Commands are taken also when the disk is nearly
// full: their log is bounded, and consumers that commit make no disk full.
func (s *shard) logOptions() raftlog.LogOptions {
	return raftlog.LogOptions{SegmentBytes: s.segmentBytes, Span: shardSpan}
}

// shardSpan is the raftlog.Span of a shard: each entry of commands counts 1.
func shardSpan(entry *raft.Log, next int64) (after, maxTime int64) {
	if entry.Type == raft.LogCommand {
		next++
	}
	return next, math.MinInt64
}

// needs implements machine: nothing below the snapshot, but the entry of it. A
// replica that has nothing copies from the first entry that is kept up to the
// snapshot, so there must be one.
func (s *shard) needs() (keeping, error) {
	return keeping{from: math.MaxInt64, every: s.segmentBytes(), entry: true}, nil
}

// retain implements machine. A shard lets go of nothing that its snapshot does not
// stand for; offsets that expire are the coordinator's affair.
func (s *shard) retain(bool) {}

// fits implements machine.
func (s *shard) fits(snapshot []byte, next int64) error {
	_, of, _, err := parseShardSnapshot(snapshot)
	if err == nil && of != next {
		err = fmt.Errorf("it is of entry %d, not %d", of, next)
	}
	return err
}

// shardApplied is what Raft's Apply answers for an entry: one error per command.
type shardApplied []error

// Apply implements raft.FSM. The answer is a shardApplied.
func (s *shard) Apply(entry *raft.Log) any {
	commands, results, err := shardCommands(entry.Data)
	s.mu.Lock()
	if err != nil && s.newer == nil {
		s.newer = fmt.Errorf("entry %d: %w", entry.Index, err)
	}
	if err := s.newer; err != nil {
		s.mu.Unlock()
		s.outgrown(err)
		return shardApplied{err}
	}
	again := fsm.Index(entry.Index) <= s.applied
	state := s.state
	if s.log.Crosses(entry.Index) {
		s.log.Cross(entry.Index, nil) // nobody reads from the middle of this log
	}
	if !again {
		s.applied = fsm.Index(entry.Index)
		s.next++
	}
	s.log.Applied(entry.Index, s.next, math.MinInt64, entry.AppendedAt.UnixMilli())
	s.mu.Unlock()
	if again {
		return shardApplied{fmt.Errorf("%w: entry %d applied after %d", outcome.ErrUnknown, entry.Index, s.applied)}
	}
	for i, err := range results {
		if err != nil {
			s.node.logger.Error("a command of consumer groups cannot be applied", "shard", s.id.Partition, "entry", entry.Index, "error", err)
			continue
		}
		state.Do(commands[i])
	}
	return results
}

// shardCommands reads the commands of an entry, each with its error: what is no command is void. err is
// fsm.ErrNewer if a newer program wrote one; then none may be applied.
func shardCommands(data []byte) (commands []groups.Command, results shardApplied, err error) {
	for b, err := range fsm.GroupCommands(data) {
		var command groups.Command
		if err == nil {
			command, err = groups.ParseCommand(b)
		}
		if errors.Is(err, fsm.ErrNewer) {
			err = fmt.Errorf("%w: %w", fsm.ErrNewer, err)
		}
		if errors.Is(err, fsm.ErrNewer) {
			return nil, nil, err
		}
		commands, results = append(commands, command), append(results, err)
	}
	return commands, results, nil
}

// Snapshot implements raft.FSM. Raft never calls it beside Apply.
func (s *shard) Snapshot() (raft.FSMSnapshot, error) {
	s.mu.Lock()
	state, applied, next, newer := s.state, s.applied, s.next, s.newer
	s.mu.Unlock()
	if newer != nil {
		return nil, newer // Raft takes what came behind it for applied
	}
	snapshot := appendShardSnapshot(applied, next, state.Snapshot())
	s.stateSize.Store(int64(len(snapshot)))
	return replicaSnapshot{snapshot, s.log.Standing(next)}, nil
}

// Restore implements raft.FSM.
func (s *shard) Restore(source io.ReadCloser) error {
	defer source.Close()
	data, err := io.ReadAll(io.LimitReader(source, maxSnapshotBytes))
	if err != nil {
		return err
	}
	applied, next, state, err := parseShardSnapshot(data)
	if err != nil {
		return s.refuses(err)
	}
	s.stateSize.Store(int64(len(data)))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.applied, s.next = state, applied, next
	return nil
}

// A snapshot of a shard is u8 layout (1), u64 index of the last entry applied, u64
// entries applied, and the snapshot of its coordinator.State, which has a CRC.
const shardSnapshotLayout = 1

func appendShardSnapshot(applied fsm.Index, next int64, state []byte) []byte {
	out := append(make([]byte, 0, 17+len(state)), shardSnapshotLayout)
	out = binary.BigEndian.AppendUint64(out, uint64(applied))
	out = binary.BigEndian.AppendUint64(out, uint64(next))
	return append(out, state...)
}

func parseShardSnapshot(data []byte) (applied fsm.Index, next int64, state *coordinator.State, err error) {
	r := reader{b: data}
	layout, index, count := r.uint8(), r.uint64(), r.uint64()
	switch {
	case r.bad:
		return 0, 0, nil, fmt.Errorf("%w: %d bytes are too few for a shard", fsm.ErrSnapshot, len(data))
	case layout > shardSnapshotLayout:
		return 0, 0, nil, fmt.Errorf("%w: shard layout %d, this program knows %d; %w", fsm.ErrSnapshot, layout, shardSnapshotLayout, fsm.ErrNewer)
	case layout != shardSnapshotLayout:
		return 0, 0, nil, fmt.Errorf("%w: shard layout %d, this program knows %d", fsm.ErrSnapshot, layout, shardSnapshotLayout)
	case count > index || index > math.MaxInt64:
		return 0, 0, nil, fmt.Errorf("%w: %d entries of a shard up to entry %d", fsm.ErrSnapshot, count, index)
	}
	if state, err = coordinator.RestoreState(r.b); errors.Is(err, fsm.ErrNewer) {
		return 0, 0, nil, fmt.Errorf("%w: %w: %w", fsm.ErrSnapshot, fsm.ErrNewer, err)
	} else if err != nil {
		return 0, 0, nil, fmt.Errorf("%w: %w", fsm.ErrSnapshot, err)
	}
	return fsm.Index(index), int64(count), state, nil
}

// shardInFlight is how many entries of commands are handed to Raft and not yet
// committed. It is small, so that commands that wait share the next one.
const shardInFlight = 4

// shardLeader is a shard's leader in one term: the coordinator, and the queue of
// commands on their way into the log. Unlike records, commands hold nothing that
// depends on their place, so one that fails leaves the others as they are.
type shardLeader struct {
	*tenure
	shard       *shard
	coordinator *coordinator.Coordinator // set before ready

	commands chan *groupCommand
	inFlight chan groupEntry
}

// groupCommand is one call of propose.
type groupCommand struct {
	ctx  context.Context
	b    []byte
	fate chan error // buffered: nobody waits for the caller
}

// groupEntry is one Raft entry and the commands in it.
type groupEntry struct {
	future   raft.ApplyFuture
	commands []*groupCommand
}

func startShardLeader(s *shard, term fsm.Term) *shardLeader {
	l := &shardLeader{
		tenure: newTenure(s.replica, term), shard: s,
		commands: make(chan *groupCommand),
		inFlight: make(chan groupEntry, shardInFlight-2), // one more is being decided, one waits to be sent
	}
	l.done.Add(2)
	go func() { defer l.done.Done(); l.run() }()
	go func() { defer l.done.Done(); l.decide() }()
	return l
}

// end implements leadership. Who waits in the coordinator is told NOT_COORDINATOR.
func (l *shardLeader) end() {
	l.cancel()
	l.done.Wait()
}

// run waits for the barrier, serves, and turns commands into entries.
func (l *shardLeader) run() {
	defer close(l.inFlight)
	if !l.barrier() {
		l.fail()
		return
	}
	n := l.replica.node
	if !n.awaitTopics(l.ctx) {
		return
	}
	l.shard.mu.Lock()
	state := l.shard.state
	l.shard.mu.Unlock()
	l.coordinator = coordinator.New(coordinator.Config{
		State:   state,
		Propose: l.propose,
		TopicID: func(name string) ([16]byte, bool) {
			topic, ok := n.Topics().Lookup(name)
			if !ok && n.refreshTopics() {
				topic, ok = n.Topics().Lookup(name)
			}
			if !ok {
				return [16]byte{}, false
			}
			return topic.ID, true
		},
		TopicName: func(id [16]byte) (string, bool) {
			topic, ok := n.Topics().ByID(id)
			if !ok && n.refreshTopics() {
				topic, ok = n.Topics().ByID(id)
			}
			if !ok {
				return "", false
			}
			return topic.Name, true
		},
		Awake:    n.link.Awake,
		Settings: n.cfg.Groups,
		Logger:   n.logger.With("shard", l.replica.id.Partition),
	})
	defer l.coordinator.Close()
	n.logger.Debug("a shard of consumer groups is coordinated here", "shard", l.replica.id.Partition, "term", l.term)
	l.begin()
	for {
		var first *groupCommand
		select {
		case first = <-l.commands:
		case <-l.ctx.Done():
			return
		}
		taken, size := []*groupCommand{first}, len(first.b)
	more:
		for size < maxEntryBytes {
			select {
			case c := <-l.commands:
				taken, size = append(taken, c), size+len(c.b)
			default:
				break more
			}
		}
		if !l.replica.group.proposals.enter(l.ctx) {
			for _, c := range taken {
				c.fate <- fmt.Errorf("%w: %w", coordinator.ErrNotLeader, l.notLeader())
			}
			return
		}
		entry := groupEntry{commands: taken[:0]}
		data := make([][]byte, 0, len(taken))
		for _, c := range taken {
			if c.ctx.Err() != nil {
				c.fate <- fmt.Errorf("%w: %w", outcome.ErrNoLeader, c.ctx.Err())
				continue
			}
			entry.commands, data = append(entry.commands, c), append(data, c.b)
		}
		if len(data) == 0 {
			l.replica.group.proposals.leave()
			continue
		}
		entry.future = l.replica.group.raft.Apply(fsm.GroupEntry(data...), 0)
		l.inFlight <- entry
	}
}

// decide tells every command its fate, in the order of the log.
func (l *shardLeader) decide() {
	for entry := range l.inFlight {
		var results shardApplied
		err := l.replica.group.await(entry.future)
		l.replica.group.proposals.leave()
		if err != nil {
			if err = l.proposalError(err); outcome.Code(err) == outcome.ErrNotLeader {
				err = fmt.Errorf("%w: %w", coordinator.ErrNotLeader, err)
			}
		} else if results, _ = entry.future.Response().(shardApplied); len(results) != len(entry.commands) {
			err = fmt.Errorf("%w: unexpected answer of the state machine", outcome.ErrUnknown)
		}
		for i, c := range entry.commands {
			if err != nil {
				c.fate <- err
			} else {
				c.fate <- results[i]
			}
		}
	}
}

// propose is the coordinator's way into the log (coordinator.Config.Propose).
func (l *shardLeader) propose(ctx context.Context, command []byte) error {
	c := &groupCommand{ctx: ctx, b: command, fate: make(chan error, 1)}
	select {
	case l.commands <- c:
	case <-l.ctx.Done():
		return fmt.Errorf("%w: %w", coordinator.ErrNotLeader, l.notLeader())
	case <-ctx.Done():
		return fmt.Errorf("%w: the shard's queue was full", outcome.ErrNoLeader)
	}
	select {
	case err := <-c.fate:
		return err
	case <-l.abandoned:
		return fmt.Errorf("%w: the leader's disk hangs", outcome.ErrUnknownFate)
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", outcome.ErrTimeout, ctx.Err())
	}
}

// coordinate hands a request to the coordinator here. The error is errNotLeader if
// it was surely not handled, or if it may be handed to another one all the same.
func (s *shard) coordinate(ctx context.Context, client coordinator.Client, req kmsg.Request) (kmsg.Response, error) {
	l, err := s.leads()
	if err != nil {
		return nil, err
	}
	if committed(req) {
		// A leader that was deposed without noticing must not bring back old offsets.
		if err := s.readIndex(ctx, l.term); err != nil {
			return nil, err
		}
	}
	resp, err := l.coordinator.Handle(ctx, client, req)
	switch {
	case err == nil && l.ctx.Err() != nil && repeatable(req):
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
