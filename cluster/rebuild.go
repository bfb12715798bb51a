package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// A replica whose log is damaged, or gone, may have lost records that it
// acknowledged. It must not vote as if it had them (invariant 7): it leaves its
// group's configuration, its files go, and it comes back with nothing, first as a
// non-voter. The partition goes on meanwhile. Without a majority of the others
// nothing is done, and the reason is shown: nobody invents what is lost. What a reader
// finds damaged while Raft can go on closes nothing before that (hurt.go).

const rebuildTimeout = 10 * time.Second

// damaged is told that Raft cannot go on, since it cannot read a replica's log. It does not wait.
func (n *Node) damaged(r *replica, err error) {
	n.mu.Lock()
	known := n.damage[r.id] != nil
	if n.replicas[r.id] == r && !known {
		n.damage[r.id] = err
	}
	n.mu.Unlock()
	if !known {
		n.logger.Error("a replica's log is damaged; it will be rebuilt from the others", "partition", r.id, "error", err)
		n.catalog.wake()
	}
}

// isDamage reports whether the error means that bytes are not what was written, or that the disk does not give them.
func isDamage(err error) bool {
	return errors.Is(err, raftlog.ErrDamaged) || errors.Is(err, syscall.EIO)
}

// rebuildable reports whether the error of opening a replica means that its log
// is to be replaced by what the others have.
func rebuildable(err error) bool {
	var lost errReplicaLost
	return isDamage(err) || errors.As(err, &lost)
}

// errStaysOut is why a damaged replica is not rebuilt yet.
type errStaysOut struct{ damage, why error }

func (e errStaysOut) Error() string   { return fmt.Sprintf("%v; %v", e.damage, e.why) }
func (e errStaysOut) Unwrap() []error { return []error{e.damage, e.why} }

// damageOf gives what a replica was closed for.
func damageOf(err error) error {
	var out errStaysOut
	if errors.As(err, &out) {
		return out.damage
	}
	return err
}

// rebuild has a closed replica leave its group and removes its files. It may be
// called again after a crash at any point.
func (n *Node) rebuild(id fsm.PartitionID) error {
	name := id.String()
	ctx, cancel := context.WithTimeout(n.ctx, rebuildTimeout)
	defer cancel()
	var term uint64
	var leader string
	err := n.atLeader(ctx, id, holdLeaderless, func(ctx context.Context, h hint, local *replica) error {
		if local != nil || h.identity == n.identity {
			return fmt.Errorf("%w: another replica has to lead first", outcome.ErrNoLeader)
		}
		reply, err := n.ask(ctx, h.identity, callLeave, appendPartition(nil, id))
		if err != nil {
			return err
		}
		r := reader{b: reply}
		if term, leader = r.uint64(), h.identity; r.bad {
			return errMalformed
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("the others are needed to rebuild it: %w", err)
	}
	// From here on it has no vote, and it keeps the ones that it gave.
	if err := n.stable.Group(name).BeginAnew(term, leader); err != nil {
		return err
	}
	dir := n.partitionDir(id)
	gone := dir + ".deleted"
	if err := os.RemoveAll(gone); err != nil {
		return err
	}
	if err := os.Rename(dir, gone); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := n.lost(syncDir(n.logs.Groups())); err != nil {
		return err
	}
	if err := os.RemoveAll(gone); err != nil {
		n.logger.Warn("cannot remove the files of a damaged replica", "partition", id, "error", err)
	}
	n.logger.Info("a damaged replica is removed and begins anew", "partition", id)
	return nil
}
