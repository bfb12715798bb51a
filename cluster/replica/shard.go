package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/fsm/groups"
	"github.com/trimaran-io/trimaran/fsm/transactions"
	"github.com/trimaran-io/trimaran/outcome"
	"github.com/trimaran-io/trimaran/transaction"
)

// Shard is the machine of a replica of one shard of consumer groups: the states of
// packages coordinator and transaction, and both coordinators while it leads. Its offsets count the
// entries that were applied; nothing reads them but the log, to know what it holds.
type Shard struct {
	*Replica

	stateSize atomic.Int64 // bytes of the last snapshot

	// The replica's mu guards these. state is replaced only before Raft applies to it.
	state   shardState
	applied fsm.Index
	next    int64
}

// shardState is what a shard's replicas agree on.
type shardState struct {
	groups       *coordinator.State
	transactions *transaction.State
}

func newShardState() shardState {
	return shardState{coordinator.NewState(), transaction.NewState()}
}

func newShard(r *Replica) *Shard { return &Shard{Replica: r, state: newShardState()} }

// lead implements machine.
func (s *Shard) lead(term fsm.Term) Leader { return startShardLeader(s, term) }

// coordinating gives the leader's half if this replica leads and has passed its barrier,
// else raftgroup.NotLeader.
func (s *Shard) coordinating() (*shardLeader, error) {
	leading, err := s.Replica.Leads()
	if err != nil {
		return nil, err
	}
	return leading.(*shardLeader), nil
}

// Bounds implements machine.
func (s *Shard) Bounds() (start, next fsm.Offset) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return 0, fsm.Offset(s.next)
}

// segmentBytes is the size of a segment, and how much of the log a snapshot stands for. What a
// snapshot takes is rewritten whole, so a shard with a larger state has larger segments, and its
// log is a few times as large as what is in it.
func (s *Shard) segmentBytes() int64 { return max(s.env.ShardSegmentBytes, s.stateSize.Load()) }

// logOptions implements machine. Commands are taken also when the disk is nearly
// full: their log is bounded, and consumers that commit make no disk full.
func (s *Shard) logOptions() raftlog.LogOptions {
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
func (s *Shard) needs() (keeping, error) {
	return keeping{from: math.MaxInt64, every: s.segmentBytes(), entry: true}, nil
}

// retain implements machine. A shard lets go of nothing that its snapshot does not
// stand for; offsets that expire are the coordinator's affair.
func (s *Shard) retain(bool) {}

// fits implements machine.
func (s *Shard) fits(snapshot []byte, next int64) error {
	_, of, _, err := parseShardSnapshot(snapshot)
	if err == nil && of != next {
		err = fmt.Errorf("it is of entry %d, not %d", of, next)
	}
	return err
}

// shardApplied is what Raft's Apply answers for an entry: one error per command.
type shardApplied []error

// Apply implements raft.FSM. The answer is a shardApplied.
func (s *Shard) Apply(entry *raft.Log) any {
	commands, results, err := shardCommands(entry.Data)
	s.mu.Lock()
	if err != nil && s.newer == nil {
		s.newer = fmt.Errorf("entry %d: %w", entry.Index, err)
	}
	state, applied, next, newer := s.state, s.applied, s.next, s.newer
	s.mu.Unlock()
	if newer != nil {
		s.outgrown(newer)
		return shardApplied{newer}
	}
	again := fsm.Index(entry.Index) <= applied
	if !again {
		next++
	}
	// The log may write to its index, so it is told without the lock.
	if s.Log.Crosses(entry.Index) {
		s.Log.Cross(entry.Index, nil) // nobody reads from the middle of this log
	}
	s.Log.Applied(entry.Index, next, math.MinInt64, entry.AppendedAt.UnixMilli())
	if again {
		return shardApplied{fmt.Errorf("%w: entry %d applied after %d", outcome.ErrUnknown, entry.Index, applied)}
	}
	s.mu.Lock()
	s.applied, s.next = fsm.Index(entry.Index), next
	s.mu.Unlock()
	for i, err := range results {
		if err != nil {
			s.env.Logger.Error("a command of consumer groups or transactions cannot be applied", "shard", s.ID.Partition, "entry", entry.Index, "error", err)
			continue
		}
		commands[i](state)
	}
	return results
}

// shardCommands reads the commands of an entry, each with its error: what is no command is void.
// err is fsm.ErrNewer if a newer program wrote one; then none may be applied.
func shardCommands(data []byte) (commands []func(shardState), results shardApplied, err error) {
	for c, err := range fsm.ShardCommands(data) {
		var command func(shardState)
		if err == nil {
			command, err = shardCommand(c)
		}
		if errors.Is(err, fsm.ErrNewer) {
			return nil, nil, fmt.Errorf("%w: %w", fsm.ErrNewer, err)
		}
		commands, results = append(commands, command), append(results, err)
	}
	return commands, results, nil
}

// shardCommand reads a command, and gives what applies it.
func shardCommand(c fsm.ShardCommand) (func(shardState), error) {
	if c.Transactional {
		command, err := transactions.ParseCommand(c.Bytes)
		return func(s shardState) { s.transactions.Do(command) }, err
	}
	command, err := groups.ParseCommand(c.Bytes)
	return func(s shardState) { s.groups.Do(command) }, err
}

// Snapshot implements raft.FSM. Raft never calls it beside Apply.
func (s *Shard) Snapshot() (raft.FSMSnapshot, error) {
	s.mu.Lock()
	state, applied, next, newer := s.state, s.applied, s.next, s.newer
	s.mu.Unlock()
	if newer != nil {
		return nil, newer // Raft takes what came behind it for applied
	}
	snapshot := appendShardSnapshot(applied, next, state)
	s.stateSize.Store(int64(len(snapshot)))
	return replicaSnapshot{snapshot, s.Log.Standing(next)}, nil
}

// Restore implements raft.FSM.
func (s *Shard) Restore(source io.ReadCloser) error {
	defer source.Close()
	data, err := io.ReadAll(io.LimitReader(source, raftgroup.MaxSnapshotBytes))
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

// A snapshot of a shard is u8 layout, u64 index of the last entry applied, u64 entries applied, and
// the snapshot of its coordinator.State, which has a CRC. Where there is something of transactional
// ids it is layout 2, which has a u32 in front of that, its length, and the snapshot of the
// transaction.State behind it, which has a CRC, too. Earlier programs know layout 1 only.
const (
	shardSnapshotGroups = 1
	shardSnapshotBoth   = 2
	shardSnapshotHead   = 17 // bytes, of layout 1
)

func appendShardSnapshot(applied fsm.Index, next int64, state shardState) []byte {
	layout, of := byte(shardSnapshotGroups), state.groups.Snapshot()
	var transactional []byte
	if !state.transactions.Empty() {
		layout, transactional = shardSnapshotBoth, state.transactions.Snapshot()
	}
	out := append(make([]byte, 0, shardSnapshotHead+4+len(of)+len(transactional)), layout)
	out = binary.BigEndian.AppendUint64(out, uint64(applied))
	out = binary.BigEndian.AppendUint64(out, uint64(next))
	if layout == shardSnapshotBoth {
		out = binary.BigEndian.AppendUint32(out, uint32(len(of)))
	}
	return append(append(out, of...), transactional...)
}

func parseShardSnapshot(data []byte) (applied fsm.Index, next int64, state shardState, err error) {
	fail := func(format string, args ...any) (fsm.Index, int64, shardState, error) {
		return 0, 0, shardState{}, fmt.Errorf("%w: "+format, append([]any{fsm.ErrSnapshot}, args...)...)
	}
	if len(data) < shardSnapshotHead {
		return fail("%d bytes are too few for a shard", len(data))
	}
	layout, index, count := data[0], binary.BigEndian.Uint64(data[1:]), binary.BigEndian.Uint64(data[9:])
	switch {
	case layout > shardSnapshotBoth:
		return fail("shard layout %d, this program knows %d; %w", layout, shardSnapshotBoth, fsm.ErrNewer)
	case layout < shardSnapshotGroups:
		return fail("shard layout %d, this program knows %d", layout, shardSnapshotBoth)
	case count > index || index > math.MaxInt64:
		return fail("%d entries of a shard up to entry %d", count, index)
	}
	of := data[shardSnapshotHead:]
	state.transactions = transaction.NewState()
	if layout == shardSnapshotBoth {
		if len(of) < 4 || uint64(binary.BigEndian.Uint32(of)) > uint64(len(of)-4) {
			return fail("the states of a shard are cut short")
		}
		size := 4 + int(binary.BigEndian.Uint32(of))
		state.transactions, err = transaction.RestoreState(of[size:])
		of = of[4:size]
	}
	if err == nil {
		state.groups, err = coordinator.RestoreState(of)
	}
	if errors.Is(err, fsm.ErrNewer) {
		return fail("%w: %w", fsm.ErrNewer, err)
	} else if err != nil {
		return fail("%w", err)
	}
	return fsm.Index(index), int64(count), state, nil
}
