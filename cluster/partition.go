package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// records is the machine of a partition's replica: the state machine of package
// fsm, the way to its records, and the proposer while it leads. The replica's mu
// guards its fields.
type records struct {
	*replica

	state   *fsm.PartitionState
	applied chan struct{} // closed and replaced whenever state moves
}

func newRecords(r *replica) *records {
	return &records{replica: r, state: fsm.NewPartition(), applied: make(chan struct{})}
}

// records gives this node's replica of a partition, nil if there is none.
func (n *Node) records(id fsm.PartitionID) *records {
	r := n.replica(id)
	if r == nil {
		return nil
	}
	found, _ := r.machine.(*records)
	return found
}

// lead implements machine.
func (r *records) lead(term fsm.Term) leadership { return startProposer(r, term) }

// leads gives the proposer if this replica leads and has passed its barrier, else
// errNotLeader.
func (r *records) leads() (*proposer, error) {
	leading, err := r.replica.leads()
	if err != nil {
		return nil, err
	}
	return leading.(*proposer), nil
}

// append hands batches to this replica's proposer. term is the leadership that
// the caller meant, 0 for any: a request that was on its way while leadership
// went and came back must not land behind a later one.
func (r *records) append(ctx context.Context, term uint64, batches [][]byte) ([]fsm.Appended, error) {
	p, err := r.leads()
	if err != nil {
		return nil, err
	}
	if term != 0 && p.term != fsm.Term(term) {
		return nil, errNotLeader{hint{r.self, uint64(p.term)}}
	}
	return p.append(ctx, batches)
}

// bounds implements machine: the log start and the next offset.
func (r *records) bounds() (start, next fsm.Offset) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.LogStart(), r.state.NextOffset()
}

// producer gives what the state machine knows of an idempotent producer.
func (r *records) producer(id int64) (fsm.ProducerState, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Producer(id)
}

// readAsLeader answers for the whole partition: what lies outside of the log is said to be so only
// after a majority confirmed that this replica leads, of all that was committed before.
func (r *records) readAsLeader(ctx context.Context, from fsm.Offset, maxBytes int) (fsm.Slice, error) {
	p, err := r.leads()
	if err != nil {
		return fsm.Slice{}, err
	}
	slice, ok, err := r.readCommitted(from, maxBytes)
	if ok || err != nil {
		return slice, err
	}
	if err := r.readIndex(ctx, p.term); err != nil {
		return fsm.Slice{}, err
	}
	if slice, ok, err = r.readCommitted(from, maxBytes); ok || err != nil {
		return slice, err
	}
	if from < slice.LogStart || from > slice.HighWatermark {
		return slice, fmt.Errorf("%w: %d is not within %d to %d", outcome.ErrOffsetOutOfRange, from, slice.LogStart, slice.HighWatermark)
	}
	return slice, nil
}

// await returns when the record at offset from has been applied here, or ctx
// ends, or this replica is closed.
func (r *records) await(ctx context.Context, from fsm.Offset) error {
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
func (r *records) awaitAsLeader(ctx context.Context, from fsm.Offset) error {
	p, err := r.leads()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(p.ctx, func() { cancel(outcome.ErrNotLeader) })
	defer stop()
	if err := r.await(ctx, from); err != nil {
		if errors.Is(context.Cause(ctx), outcome.ErrNotLeader) {
			h, _ := r.leader()
			return errNotLeader{h}
		}
		return err
	}
	return nil
}

// offsetsBefore answers ListOffsets v0 as the confirmed leader.
func (r *records) offsetsBefore(ctx context.Context, timestamp int64, max int) ([]fsm.Offset, error) {
	_, start, end, err := r.asConfirmedLeader(ctx)
	if err != nil {
		return nil, err
	}
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

// Apply implements raft.FSM. The answer is an fsm.Applied.
func (r *records) Apply(entry *raft.Log) any {
	applied := r.apply(entry)
	if applied.Err != nil && errors.Is(applied.Err, fsm.ErrNewer) {
		r.outgrown(applied.Err)
	}
	return applied
}

func (r *records) apply(entry *raft.Log) fsm.Applied {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.newer != nil {
		return fsm.Applied{Err: r.newer}
	}
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
	if applied.Err != nil && errors.Is(applied.Err, fsm.ErrNewer) {
		r.newer = fmt.Errorf("entry %d: %w", entry.Index, applied.Err)
		return fsm.Applied{Err: r.newer}
	}
	after, maxTime := span(entry, before)
	r.log.Applied(entry.Index, after, maxTime, entry.AppendedAt.UnixMilli())
	close(r.applied)
	r.applied = make(chan struct{})
	return applied
}

// Snapshot implements raft.FSM.
func (r *records) Snapshot() (raft.FSMSnapshot, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.newer != nil {
		return nil, r.newer // Raft takes what came behind it for applied
	}
	return replicaSnapshot{r.state.Snapshot(), r.log.Standing(int64(r.state.NextOffset()))}, nil
}

// Restore implements raft.FSM.
func (r *records) Restore(source io.ReadCloser) error {
	defer source.Close()
	data, err := io.ReadAll(io.LimitReader(source, maxSnapshotBytes))
	if err != nil {
		return err
	}
	state, err := fsm.RestorePartition(data)
	if err != nil {
		return r.refuses(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state = state
	close(r.applied)
	r.applied = make(chan struct{})
	return nil
}

// fits implements machine.
func (r *records) fits(snapshot []byte, next int64) error {
	state, err := fsm.RestorePartition(snapshot)
	if err == nil && int64(state.NextOffset()) != next {
		err = fmt.Errorf("it is of offset %d, not %d", state.NextOffset(), next)
	}
	return err
}
