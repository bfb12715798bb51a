package replica

import (
	"errors"

	"github.com/trimaran-io/trimaran/fsm"
)

// What a newer program wrote into a log or a snapshot (fsm.ErrNewer) ends the group here: its state
// machine did something with it, and this one would become another. Nothing is applied from there
// on, no snapshot is taken, and the replica is closed and stays so until the process ends, so that
// it is sent nothing more. Its log stays as it is, for the newer program. Everything else of the
// node goes on. Only without the catalog a node does not know what it should do: it ends, and says
// nothing of the catalog until then.

// outgrown is told by Raft's Apply that the replica met such an entry, which is in r.newer, and
// holds Raft there until the replica is closed: what waits behind, as the barrier of a new leader,
// must not pass.
func (r *Replica) outgrown(err error) {
	r.keeper.outgrown(r, err)
	select {
	case <-r.closing.Done():
	case <-r.env.ctx.Done():
	}
}

// metNewer gives what a newer program wrote and this replica met, nil if it met nothing.
func (r *Replica) metNewer() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.newer
}

// refuses notes that a snapshot was refused since a newer program wrote it.
func (r *Replica) refuses(err error) error {
	if errors.Is(err, fsm.ErrNewer) {
		r.mu.Lock()
		r.newer = err
		r.mu.Unlock()
		r.keeper.outgrown(r, err)
	}
	return err
}

// outgrown implements keeper: Reconcile closes the replica for good.
func (s *Set) outgrown(r *Replica, err error) {
	if s.setDamage(r, err) {
		s.env.Logger.Error("a replica ends here: a newer program has written what this one does not know; start that one", "partition", r.ID, "error", err)
		s.env.Host.Wake()
	}
}
