package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// Records is the machine of a partition's replica: the state machine of package
// fsm, the way to its records, and the proposer while it leads. The replica's mu
// guards its fields.
type Records struct {
	*Replica

	// state is changed by Raft's calls only, which come one after the other, but for what it
	// forgets (keeps).
	state   *fsm.PartitionState
	seen    seen          // what readers go by
	applied chan struct{} // closed and replaced whenever seen moves

	// late is the oldest transaction that the log was told of to be open for too long.
	late fsm.OpenTransaction

	compaction compacting
	tiering    tiering
	letGo      letGo

	// recent is seen.aborted, for who must not take mu.
	recent atomic.Pointer[[]fsm.AbortedTransaction]
}

// seen is the state of a partition that readers may know of: the log has been told of everything in
// it. The state machine may be one entry further.
type seen struct {
	start, next fsm.Offset
	stable      fsm.Offset // the last stable offset; start <= stable <= next
	last        fsm.Index  // applied
	local       fsm.Offset // the first that replicas have to keep; start <= local
	// tiered is what is in the tier, ascending. What is in it does not change.
	tiered []fsm.TieredSegment
	// aborted are the aborted transactions that are not kept with segments, and perhaps some that
	// are, in the order of their markers. What is in it does not change.
	aborted []fsm.AbortedTransaction
}

// end is the offset at which a reader has nothing more to read.
func (s seen) end(isolation fsm.Isolation) fsm.Offset {
	if isolation == fsm.ReadCommitted {
		return s.stable
	}
	return s.next
}

func newRecords(r *Replica) *Records {
	m := &Records{Replica: r, state: fsm.NewPartition(), applied: make(chan struct{})}
	m.seen = seenOf(m.state)
	return m
}

func seenOf(state *fsm.PartitionState) seen {
	local, _ := state.LocalStart()
	return seen{
		start: state.LogStart(), next: state.NextOffset(), stable: state.LastStable(),
		last: state.LastApplied(), aborted: state.Aborted(), local: local, tiered: state.Tiered(),
	}
}

// lead implements machine.
func (r *Records) lead(term fsm.Term) Leader { return startProposer(r, term) }

// proposing gives the proposer if this replica leads and has passed its barrier, else
// raftgroup.NotLeader.
func (r *Records) proposing() (*proposer, error) {
	leading, err := r.Replica.Leads()
	if err != nil {
		return nil, err
	}
	return leading.(*proposer), nil
}

// Append hands batches to this replica's proposer. term is the leadership that
// the caller meant, 0 for any: a request that was on its way while leadership
// went and came back must not land behind a later one.
func (r *Records) Append(ctx context.Context, term uint64, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
	return r.AppendInLine(ctx, term, calls.Place{}, fsm.Transaction{}, batches)
}

// AppendInLine is Append at a place in a connection's line (see lines), of batches that may belong
// to a transaction.
func (r *Records) AppendInLine(ctx context.Context, term uint64, place calls.Place, txn fsm.Transaction, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
	p, err := r.proposing()
	if err != nil {
		return nil, err
	}
	if term != 0 && p.term != fsm.Term(term) {
		return nil, raftgroup.NotLeader{Hint: raftgroup.Hint{Identity: r.env.Identity, Term: uint64(p.term)}}
	}
	return p.append(ctx, place, txn, batches)
}

// Bounds implements machine: the log start and the next offset.
func (r *Records) Bounds() (start, next fsm.Offset) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen.start, r.seen.next
}

// Ends gives the log start, the next offset and the last stable offset.
func (r *Records) Ends() (start, next, stable fsm.Offset) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen.start, r.seen.next, r.seen.stable
}

// LastStable gives the last stable offset as the confirmed leader.
func (r *Records) LastStable(ctx context.Context) (fsm.Offset, error) {
	if _, _, _, err := r.asConfirmedLeader(ctx); err != nil {
		return -1, err
	}
	_, _, stable := r.Ends()
	return stable, nil
}

// Producer implements fsm.Known.
func (r *Records) Producer(id int64) (fsm.ProducerState, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Producer(id)
}

// OpenTransactions implements fsm.Known.
func (r *Records) OpenTransactions() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.OpenTransactions()
}

// ReadAsLeader answers for the whole partition: what lies outside of the log is said to be so only
// after a majority confirmed that this replica leads, of all that was committed before.
func (r *Records) ReadAsLeader(ctx context.Context, from fsm.Offset, maxBytes int, isolation fsm.Isolation) (fsm.Slice, error) {
	p, err := r.proposing()
	if err != nil {
		return fsm.Slice{}, err
	}
	slice, ok, err := r.ReadHere(from, maxBytes, isolation)
	if ok || err != nil {
		return slice, err
	}
	if err := r.ReadIndex(ctx, p.term); err != nil {
		return fsm.Slice{}, err
	}
	if slice, ok, err = r.ReadHere(from, maxBytes, isolation); ok || err != nil {
		return slice, err
	}
	if from < slice.LogStart || from > slice.HighWatermark {
		return slice, fmt.Errorf("%w: %d is not within %d to %d", outcome.ErrOffsetOutOfRange, from, slice.LogStart, slice.HighWatermark)
	}
	return slice, nil
}

// await returns when a reader can read at offset from here, or ctx ends, or this replica is closed.
func (r *Records) await(ctx context.Context, from fsm.Offset, isolation fsm.Isolation) error {
	locks.MayWait("records")
	for {
		r.mu.Lock()
		end, applied := r.seen.end(isolation), r.applied
		r.mu.Unlock()
		if end > from {
			return nil
		}
		select {
		case <-applied:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// AwaitAsLeader is await that ends with raftgroup.NotLeader when this replica no longer leads.
func (r *Records) AwaitAsLeader(ctx context.Context, from fsm.Offset, isolation fsm.Isolation) error {
	p, err := r.proposing()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(p.ctx, func() { cancel(outcome.ErrNotLeader) })
	defer stop()
	if err := r.await(ctx, from, isolation); err != nil {
		if errors.Is(context.Cause(ctx), outcome.ErrNotLeader) {
			h, _ := r.Leader()
			return raftgroup.NotLeader{Hint: h}
		}
		return err
	}
	return nil
}

// OffsetsBefore answers ListOffsets v0 as the confirmed leader.
func (r *Records) OffsetsBefore(ctx context.Context, timestamp int64, max int) ([]fsm.Offset, error) {
	_, start, end, err := r.asConfirmedLeader(ctx)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	seen := r.seen
	r.mu.Unlock()
	switch timestamp {
	case fsm.EarliestLocalOffset:
		return []fsm.Offset{seen.local}, nil
	case fsm.LatestTieredOffset, fsm.EarliestPendingOffset:
		return []fsm.Offset{r.tierEnd(seen, timestamp)}, nil
	}
	var segments []fsm.Segment
	for _, s := range seen.tiered {
		if s.Next > start && r.away(seen, s.First) {
			segments = append(segments, fsm.Segment{Base: s.First, Written: s.LastWrite})
		}
	}
	for _, s := range r.Log.Segments() {
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
func (r *Records) Apply(entry *raft.Log) any {
	applied := r.apply(entry)
	if applied.Err != nil && errors.Is(applied.Err, fsm.ErrNewer) {
		r.outgrown(applied.Err)
	}
	return applied
}

func (r *Records) apply(entry *raft.Log) fsm.Applied {
	if err := r.metNewer(); err != nil {
		return fsm.Applied{Err: err}
	}
	if r.Log.Crosses(entry.Index) {
		r.Log.Cross(entry.Index, r.keeps())
	}
	r.mu.Lock()
	applied := r.state.Apply(fsm.Entry{
		Index:      fsm.Index(entry.Index),
		Term:       fsm.Term(entry.Term),
		AppendedAt: entry.AppendedAt.UnixMilli(),
		Data:       entry.Data,
		Extensions: entry.Extensions,
	})
	if applied.Err != nil && errors.Is(applied.Err, fsm.ErrNewer) {
		r.newer = fmt.Errorf("entry %d: %w", entry.Index, applied.Err)
		applied = fsm.Applied{Err: r.newer}
		r.mu.Unlock()
		return applied
	}
	after := int64(r.state.NextOffset())
	r.mu.Unlock()
	// The log may write to its index, so it is told without the lock; readers hear of the entry
	// when it has been: they look for it there.
	r.Log.Applied(entry.Index, after, applied.MaxTimestamp, entry.AppendedAt.UnixMilli())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.showLocked()
	return applied
}

// showLocked lets readers see the state as it is.
func (r *Records) showLocked() {
	r.seen = seenOf(r.state)
	if rows := r.seen.aborted; len(rows) > 0 || r.recent.Load() != nil {
		r.recent.Store(&rows)
	}
	close(r.applied)
	r.applied = make(chan struct{})
}

// Snapshot implements raft.FSM.
func (r *Records) Snapshot() (raft.FSMSnapshot, error) {
	state, next, err := r.whole()
	if err != nil {
		return nil, err
	}
	// nothing is applied beside this
	return replicaSnapshot{state, r.Log.Standing(int64(next))}, nil
}

// whole gives a snapshot of the state, and its next offset.
func (r *Records) whole() (state []byte, next fsm.Offset, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.newer != nil {
		return nil, 0, r.newer // Raft takes what came behind it for applied
	}
	return r.state.Snapshot(), r.state.NextOffset(), nil
}

// Restore implements raft.FSM.
func (r *Records) Restore(source io.ReadCloser) error {
	defer source.Close()
	data, err := io.ReadAll(io.LimitReader(source, raftgroup.MaxSnapshotBytes))
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
	r.showLocked()
	return nil
}

// fits implements machine.
func (r *Records) fits(snapshot []byte, next int64) error {
	state, err := fsm.RestorePartition(snapshot)
	if err == nil && int64(state.NextOffset()) != next {
		err = fmt.Errorf("it is of offset %d, not %d", state.NextOffset(), next)
	}
	return err
}

// DeleteRecords makes before the first offset that can be read, -1 for the high watermark, and
// gives the log start afterwards. The error is outcome.ErrOffsetOutOfRange, or why this replica is
// not the leader.
func (r *Records) DeleteRecords(ctx context.Context, before fsm.Offset) (fsm.Offset, error) {
	// What a deposed leader does not know to be committed may be.
	p, start, next, err := r.asConfirmedLeader(ctx)
	if err != nil {
		return -1, err
	}
	if before == -1 {
		before = next
	}
	if before < 0 || before > next {
		return -1, fmt.Errorf("%w: %d is not within %d to %d", outcome.ErrOffsetOutOfRange, before, start, next)
	}
	if before > start {
		if err := p.control(ctx, fsm.LogStartCommand(before)); err != nil {
			return -1, err
		}
		start, _ = r.Bounds()
	}
	return start, nil
}

// ActiveProducers gives the idempotent producers that the confirmed leader remembers, in the order
// in which they last appended.
func (r *Records) ActiveProducers(ctx context.Context) ([]fsm.ActiveProducer, error) {
	if _, _, _, err := r.asConfirmedLeader(ctx); err != nil {
		return nil, err
	}
	r.mu.Lock()
	states := r.state.Producers()
	r.mu.Unlock()
	producers := make([]fsm.ActiveProducer, len(states))
	for i, s := range states {
		producers[i] = s.Active()
	}
	return producers, nil
}
