package cluster

import (
	"fmt"
	"math"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/catalog"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/raftlog/bolt"
)

// catalogTrailing is how many entries below a snapshot Raft keeps for followers that are a little
// behind.
const catalogTrailing = 10_240

// catalogSegmentBytes is the size of a segment of the catalog's log.
const catalogSegmentBytes = 4 << 20

// catalogLogOptions are those of the catalog's log, below whose snapshot Raft keeps so many
// entries.
func catalogLogOptions(trailing uint64) raftlog.LogOptions {
	return raftlog.LogOptions{
		Group:        catalog.Group,
		SegmentBytes: func() int64 { return catalogSegmentBytes },
		Span:         catalogSpan,
		Trailing:     trailing,
	}
}

// catalogSpan is the raftlog.Span of the catalog: in place of an offset it has the index behind the
// last change.
func catalogSpan(entry *raft.Log, next int64) (after, maxTime int64) {
	if entry.Type == raft.LogCommand {
		next = max(next, int64(entry.Index)+1)
	}
	return next, math.MinInt64
}

// catalogFiles gives what opens the catalog's log, and the state machine that tells that log what
// is applied.
func (n *Node) catalogFiles(machine raft.FSM, trailing uint64) (raftgroup.OpenFiles, raft.FSM) {
	m := &catalogMachine{FSM: machine}
	return func(fresh bool) (raftgroup.Files, error) {
		opts := catalogLogOptions(trailing)
		// its replica is not made anew: the node ends
		opts.Fresh, opts.OnDamage = fresh, n.diskFailed
		log, err := n.logs.OpenWholeLog(n.dir.Join(catalog.Group), opts)
		if err != nil {
			return raftgroup.Files{}, err
		}
		m.log = log
		return raftgroup.Files{Log: log, Snapshots: log.Snapshots(), Serving: log.Serving}, nil
	}, m
}

// catalogMachine is the catalog's state machine in front of its log, which is told of each entry
// applied.
type catalogMachine struct {
	raft.FSM
	log raftlog.WholeLog // set before Raft runs
}

// Apply implements raft.FSM.
func (m *catalogMachine) Apply(entry *raft.Log) any {
	if m.log.Crosses(entry.Index) {
		m.log.Cross(entry.Index, nil) // nobody reads from the middle of this log
	}
	result := m.FSM.Apply(entry)
	m.log.Applied(entry.Index, int64(entry.Index)+1, math.MinInt64, entry.AppendedAt.UnixMilli())
	return result
}

// Snapshot implements raft.FSM. Raft never calls it beside Apply.
func (m *catalogMachine) Snapshot() (raft.FSMSnapshot, error) {
	state, err := m.FSM.Snapshot()
	if err != nil {
		return nil, err
	}
	_, next := m.log.LastApplied()
	return standingSnapshot{state, m.log.Standing(next)}, nil
}

// standingSnapshot is a snapshot and what the log knew when it was taken.
type standingSnapshot struct {
	raft.FSMSnapshot
	at raftlog.Standing
}

// Persist implements raft.FSMSnapshot.
func (s standingSnapshot) Persist(sink raft.SnapshotSink) error {
	if own, ok := sink.(*raftlog.Sink); ok {
		own.SetStanding(s.at)
	}
	return s.FSMSnapshot.Persist(sink)
}

// openVotes opens the vote store. What an older program left in bbolt files comes into this one's
// first. Until node.json says that it has, the old files count, and the older program may go on
// with them; from then on it refuses the directory.
func (n *Node) openVotes() (err error) {
	if n.who.OldFormat() {
		if err := bolt.Migrate(n.logs, n.dir.Path(), n.dir.Path(), catalogLogOptions(catalogTrailing)); err != nil {
			return fmt.Errorf("files of an older program: %w", err)
		}
		if err := n.lost(n.who.Migrated()); err != nil {
			return err
		}
		n.logger.Info("what Raft keeps is in this program's own files now; an older program does not open the data directory any more")
	}
	if err := bolt.Clean(n.logs, n.dir.Path()); err != nil {
		return err
	}
	n.stable, err = n.logs.OpenStable()
	return err
}
