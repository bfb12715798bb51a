package replica

import (
	"context"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/outcome"
)

// What a leader says of its group must not be older than what anybody was told before it was asked.
// Its state machine is behind the log, and a follower's may be further; another leader may have
// been elected. So it reads as the Raft dissertation says (section 6.4, ReadIndex): it notes the
// commit index, has a majority confirm that it leads, waits until its state machine has come as
// far, and reads then.

// appliedTo is what of the log the state machine has applied.
type appliedTo struct {
	// mu guards what follows. No other lock is taken under it, and nothing waited for.
	mu      locks.Mutex[appliedTo]
	index   uint64 // of the last entry that was applied, or the snapshot that was read
	clear   uint64 // behind index, up to here, the log has nothing for the state machine
	changed chan struct{}
}

// reached is told that everything up to the entry at index is applied.
func (a *appliedTo) reached(index uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.index = max(a.index, index)
	if a.changed != nil {
		close(a.changed)
		a.changed = nil
	}
}

// observed is the state machine of a replica as Raft sees it: it tells how far it is.
type observed struct {
	machine
	r *Replica
}

// Apply implements raft.FSM.
func (o observed) Apply(entry *raft.Log) any {
	if before := o.r.env.BeforeApply; before != nil {
		before(o.r.ID, entry.Index)
	}
	result := o.machine.Apply(entry)
	o.r.applied.reached(entry.Index)
	return result
}

// Restore implements raft.FSM. Raft begins with the log's own snapshot and is given no other.
func (o observed) Restore(source io.ReadCloser) error {
	err := o.machine.Restore(source)
	if err == nil {
		o.r.applied.reached(o.r.Log.SnapshotIndex())
	}
	return err
}

// ReadIndex returns when a read of the state machine shows at least what anybody was told before
// the call began: this replica led in term after that, and has applied what was committed then. The
// error is raftgroup.NotLeader, or outcome.ErrTimeout.
func (r *Replica) ReadIndex(ctx context.Context, term fsm.Term) error {
	commit := r.Member.Raft.CommitIndex()
	confirmed, err := r.Member.Transport.Confirm(ctx)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%w: the leader is not confirmed: %w", outcome.ErrTimeout, ctx.Err())
	case err != nil || fsm.Term(confirmed) != term:
		h, _ := r.Leader()
		return raftgroup.NotLeader{Hint: h}
	}
	return r.awaitApplied(ctx, commit)
}

// awaitApplied returns when the state machine has applied what the log has for it up to index,
// which is committed.
func (r *Replica) awaitApplied(ctx context.Context, index uint64) error {
	locks.MayWait("the state machine")
	a := &r.applied
	for {
		a.mu.Lock()
		applied := a.index
		if index <= max(applied, a.clear) {
			a.mu.Unlock()
			return nil
		}
		clear := a.clear
		if a.changed == nil {
			a.changed = make(chan struct{})
		}
		changed := a.changed
		a.mu.Unlock()
		// Raft keeps entries of its own from the state machine: a new leader's first one, members,
		// barriers.
		if !r.Log.HoldsCommand(max(applied, clear), index) {
			a.mu.Lock()
			a.clear = max(a.clear, index)
			a.mu.Unlock()
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: entry %d is not applied yet: %w", outcome.ErrTimeout, index, ctx.Err())
		case <-r.closing.Done():
			return raftgroup.NotLeader{}
		}
	}
}
