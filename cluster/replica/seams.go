package replica

import (
	"github.com/hashicorp/raft"
	"golang.org/x/sync/semaphore"

	"github.com/trimaran-io/trimaran/fsm"
)

// Seams for tests of the package that runs replicas. Nothing else calls what is here.

// Unpacking gives the budget of batches that are unpacked at once to look for a time.
func (s *Set) Unpacking() *semaphore.Weighted { return s.env.unpacking }

// Machine gives the state machine as Raft sees it.
func (r *Replica) Machine() raft.FSM { return r.machine }

// HoldBack makes a leader look as if its barrier were not behind it, until restore is called or
// Raft has news.
func (r *Replica) HoldBack() (restore func()) {
	r.mu.Lock()
	leading := r.leading
	r.leading = nil
	r.mu.Unlock()
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.leading = leading
		close(r.changed)
		r.changed = make(chan struct{})
	}
}

// State gives the state as it is in a snapshot, the next offset, and the last entry that is in it.
func (r *Records) State() (state []byte, next fsm.Offset, last uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Snapshot(), r.state.NextOffset(), uint64(r.state.LastApplied())
}

// State gives the coordinators' states as they are in a snapshot.
func (s *Shard) State() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return appendShardSnapshot(0, 0, s.state)
}

// TierObjects gives how many objects of the tier are named, or still to be deleted.
func (r *Records) TierObjects() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.state.Tiered() {
		n += int(s.Pieces) + 1
	}
	for _, g := range r.state.TieredGone() {
		n += int(g.Pieces) + 1
	}
	return n
}
