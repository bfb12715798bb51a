package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/fsm"
)

// replica is this node's member of a partition's group: the Raft group, the
// state machine above it, and the proposer while it leads.
//
// Lock order: none is taken while mu is held.
type replica struct {
	id   fsm.PartitionID
	node *Node
	self string

	// group and log are set once, before the replica is handed out; the machine may
	// be applied to from the moment Raft runs, which is after log is set.
	group *group
	log   *raftlog.PartitionLog

	mu      sync.Mutex
	state   *fsm.PartitionState
	applied chan struct{} // closed and replaced whenever state moves
	leading *proposer     // non-nil while this replica leads and may take records
	changed chan struct{} // closed and replaced whenever the known leader or leading changes
	everLed bool          // a leader was known once

	adopt     *raftlog.Staging // copied from the leader, to be taken over when Raft is down
	held      uint64           // segments from this index on are copied by someone
	heldUntil time.Time
	catchUp   progress

	lastSnapshot time.Time // when the last was tried; the housekeeping loop's own

	stop    context.CancelFunc
	stopped sync.WaitGroup
}

// hint names a partition's leader: the identity and the term in which it leads.
type hint struct {
	identity string
	term     uint64
}

// errNotLeader is fsm.ErrNotLeader with what the replica knows of the leader.
type errNotLeader struct{ hint hint }

func (e errNotLeader) Error() string {
	return fmt.Sprintf("%v; it may be %q", fsm.ErrNotLeader, e.hint.identity)
}
func (e errNotLeader) Unwrap() error { return fsm.ErrNotLeader }

func newReplica(n *Node, id fsm.PartitionID) *replica {
	return &replica{
		id: id, node: n, self: n.identity,
		state:        fsm.NewPartition(),
		lastSnapshot: time.Now(),
		applied:      make(chan struct{}),
		changed:      make(chan struct{}),
	}
}

// start begins to watch leadership; group has been opened with machine().
func (r *replica) start(g *group) {
	ctx, cancel := context.WithCancel(context.Background())
	r.group, r.stop = g, cancel
	r.stopped.Add(1)
	go func() {
		defer r.stopped.Done()
		r.watch(ctx)
	}()
}

// close ends the proposer, the group and the watch, and takes over what was
// copied, if anything. Appends under way end with an error.
func (r *replica) close() error {
	r.stop()
	err := r.group.stop()
	r.stopped.Wait()
	r.mu.Lock()
	staging := r.adopt
	r.adopt = nil
	r.mu.Unlock()
	if staging != nil {
		if aerr := r.log.Adopt(staging); aerr != nil {
			staging.Close()
			err = errors.Join(err, aerr)
		}
	}
	return errors.Join(err, r.log.Close())
}

// watch starts a proposer for every term in which this replica leads, and
// tells those who wait that the leader changed.
func (r *replica) watch(ctx context.Context) {
	var current *proposer
	endCurrent := func() {
		if current != nil {
			current.end()
			current = nil
		}
	}
	defer endCurrent()
	for {
		identity, term := r.group.leader()
		leads := r.group.raft.State() == raft.Leader && identity == r.self
		if current != nil && (!leads || current.term != fsm.Term(term) || current.failed()) {
			r.mu.Lock()
			r.leading = nil
			r.mu.Unlock()
			endCurrent() // returns when everything it proposed has its fate
		}
		if leads && current == nil {
			current = startProposer(r, fsm.Term(term))
		}
		r.mu.Lock()
		if current != nil && current.ready() {
			r.leading = current
		}
		r.everLed = r.everLed || identity != ""
		close(r.changed)
		r.changed = make(chan struct{})
		r.mu.Unlock()

		var turned <-chan struct{}
		if current != nil {
			turned = current.turned
		}
		select {
		case <-ctx.Done():
			r.mu.Lock()
			r.leading = nil
			r.mu.Unlock()
			return
		case <-r.group.observations:
		case <-turned:
		}
	}
}

// leader gives what this replica knows of the leader, and a channel that is
// closed when that may have changed.
func (r *replica) leader() (hint, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	identity, term := r.group.leader()
	return hint{identity, term}, r.changed
}

// leads gives the proposer if this replica leads, has passed its barrier and so
// may speak for the partition (invariant 8), else errNotLeader.
func (r *replica) leads() (*proposer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.leading == nil {
		identity, term := r.group.leader()
		if identity == r.self {
			identity = "" // elected, and not yet past the barrier
		}
		return nil, errNotLeader{hint{identity, term}}
	}
	return r.leading, nil
}

// append hands batches to this replica's proposer. term is the leadership that
// the caller meant, 0 for any: a request that was on its way while leadership
// went and came back must not land behind a later one.
func (r *replica) append(ctx context.Context, term uint64, batches [][]byte) ([]fsm.Appended, error) {
	p, err := r.leads()
	if err != nil {
		return nil, err
	}
	if term != 0 && p.term != fsm.Term(term) {
		return nil, errNotLeader{hint{r.self, uint64(p.term)}}
	}
	return p.append(ctx, batches)
}

// verify returns nil when a majority confirmed, after this call began, that this
// replica leads.
func (r *replica) verify() error {
	if err := r.group.await(r.group.raft.VerifyLeader()); err != nil {
		h, _ := r.leader()
		return errNotLeader{h}
	}
	return nil
}

// bounds gives the log start and the next offset of the state machine.
func (r *replica) bounds() (start, next fsm.Offset) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.LogStart(), r.state.NextOffset()
}

// producer gives what the state machine knows of an idempotent producer.
func (r *replica) producer(id int64) (fsm.ProducerState, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Producer(id)
}

// readAsLeader answers for the whole partition: what lies outside of the log is
// said to be so only after a majority confirmed that this replica leads.
func (r *replica) readAsLeader(from fsm.Offset, maxBytes int) (fsm.Slice, error) {
	if _, err := r.leads(); err != nil {
		return fsm.Slice{}, err
	}
	slice, ok, err := r.readCommitted(from, maxBytes)
	if ok || err != nil {
		return slice, err
	}
	if err := r.verify(); err != nil {
		return fsm.Slice{}, err
	}
	if from < slice.LogStart || from > slice.HighWatermark {
		return slice, fmt.Errorf("%w: %d is not within %d to %d", fsm.ErrOffsetOutOfRange, from, slice.LogStart, slice.HighWatermark)
	}
	return slice, nil
}

// await returns when the record at offset from has been applied here, or ctx
// ends, or this replica is closed.
func (r *replica) await(ctx context.Context, from fsm.Offset) error {
	for {
		r.mu.Lock()
		next, applied := r.state.NextOffset(), r.applied
		r.mu.Unlock()
		if next > from {
			return nil
		}
		select {
		case <-applied:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// awaitAsLeader is await that ends with errNotLeader when this replica no longer leads.
func (r *replica) awaitAsLeader(ctx context.Context, from fsm.Offset) error {
	p, err := r.leads()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(p.ctx, func() { cancel(fsm.ErrNotLeader) })
	defer stop()
	if err := r.await(ctx, from); err != nil {
		if errors.Is(context.Cause(ctx), fsm.ErrNotLeader) {
			h, _ := r.leader()
			return errNotLeader{h}
		}
		return err
	}
	return nil
}

// offsetsBefore answers ListOffsets v0 as the confirmed leader.
func (r *replica) offsetsBefore(timestamp int64, max int) ([]fsm.Offset, error) {
	if _, err := r.leads(); err != nil {
		return nil, err
	}
	if err := r.verify(); err != nil {
		return nil, err
	}
	start, end := r.bounds()
	var segments []fsm.Segment
	for _, s := range r.log.Segments() {
		if s.Start >= 0 && fsm.Offset(s.Start) <= end {
			written := int64(0)
			if !s.LastWrite.IsZero() {
				written = s.LastWrite.UnixMilli()
			}
			segments = append(segments, fsm.Segment{Base: fsm.Offset(s.Start), Written: written})
		}
	}
	if len(segments) == 0 {
		segments = []fsm.Segment{{Base: start}}
	}
	return fsm.OffsetsBefore(segments, start, end, timestamp, max, time.Now().UnixMilli()), nil
}

// machine is the raft.FSM of the replica: it turns Raft's calls into the state
// machine's and wakes those who wait for records.
type machine struct{ r *replica }

// Apply implements raft.FSM. The answer is an fsm.Applied.
func (m machine) Apply(entry *raft.Log) any {
	r := m.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.log.Crosses(entry.Index) {
		r.log.Cross(entry.Index, r.state.Snapshot())
	}
	before := int64(r.state.NextOffset())
	applied := r.state.Apply(fsm.Entry{
		Index:      fsm.Index(entry.Index),
		Term:       fsm.Term(entry.Term),
		AppendedAt: entry.AppendedAt.UnixMilli(),
		Data:       entry.Data,
	})
	after, maxTime := span(entry, before)
	r.log.Applied(entry.Index, after, maxTime, entry.AppendedAt.UnixMilli())
	close(r.applied)
	r.applied = make(chan struct{})
	return applied
}

// Snapshot implements raft.FSM.
func (m machine) Snapshot() (raft.FSMSnapshot, error) {
	m.r.mu.Lock()
	defer m.r.mu.Unlock()
	return partitionSnapshot{m.r.state.Snapshot(), int64(m.r.state.NextOffset())}, nil
}

// partitionSnapshot is the state of a partition and the offset behind it.
type partitionSnapshot struct {
	state snapshotBytes
	next  int64
}

// Persist implements raft.FSMSnapshot.
func (s partitionSnapshot) Persist(sink raft.SnapshotSink) error {
	if own, ok := sink.(*raftlog.Sink); ok {
		own.SetNext(s.next)
	}
	_, err := sink.Write(s.state)
	return err // Raft closes the sink
}

// Release implements raft.FSMSnapshot.
func (s partitionSnapshot) Release() {}

// maxSnapshotBytes bounds what a damaged or hostile snapshot makes us allocate.
const maxSnapshotBytes = 1 << 30

// Restore implements raft.FSM.
func (m machine) Restore(source io.ReadCloser) error {
	defer source.Close()
	data, err := io.ReadAll(io.LimitReader(source, maxSnapshotBytes))
	if err != nil {
		return err
	}
	state, err := fsm.RestorePartition(data)
	if err != nil {
		return err
	}
	r := m.r
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state = state
	close(r.applied)
	r.applied = make(chan struct{})
	return nil
}

// snapshotBytes is a snapshot that is already in memory.
type snapshotBytes []byte

// Persist implements raft.FSMSnapshot.
func (s snapshotBytes) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s); err != nil {
		_ = sink.Cancel()
		return err
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (s snapshotBytes) Release() {}
