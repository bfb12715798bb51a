package replica

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/fsm"
)

// A replica whose log is damaged, or gone, may have lost records that it
// acknowledged. It must not vote as if it had them (invariant 7): it leaves its
// group's configuration, its files go, and it comes back with nothing, first as a
// non-voter. The partition goes on meanwhile. Without a majority of the others
// nothing is done, and the reason is shown: nobody invents what is lost. What a reader
// finds damaged while Raft can go on closes nothing before that (hurt.go).

const rebuildTimeout = 10 * time.Second

// Damaged implements keeper.
func (s *Set) Damaged(r *Replica, err error) {
	s.mu.Lock()
	known := s.damage[r.ID] != nil
	if s.open[r.ID] == r && !known {
		s.damage[r.ID] = err
	}
	s.mu.Unlock()
	if !known {
		s.env.Logger.Error("a replica's log is damaged; it will be rebuilt from the others", "partition", r.ID, "error", err)
		s.env.Host.Wake()
	}
}

// setDamage notes why a replica is to be closed. It reports false if that was known, or if it does
// not run.
func (s *Set) setDamage(r *Replica, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[r.ID] != r || s.damage[r.ID] != nil {
		return false
	}
	s.damage[r.ID] = err
	return true
}

// isDamage reports whether the error means that bytes are not what was written, or that the disk
// does not give them.
func isDamage(err error) bool {
	return errors.Is(err, raftlog.ErrDamaged) || errors.Is(err, syscall.EIO)
}

// rebuildable reports whether the error of opening a replica means that its log
// is to be replaced by what the others have.
func rebuildable(err error) bool {
	var lost raftgroup.LostError
	return isDamage(err) || errors.As(err, &lost)
}

// errStaysOut is why a damaged replica is not rebuilt yet.
type errStaysOut struct{ damage, why error }

func (e errStaysOut) Error() string   { return fmt.Sprintf("%v; %v", e.damage, e.why) }
func (e errStaysOut) Unwrap() []error { return []error{e.damage, e.why} }

// DamageOf gives what a replica was closed for.
func DamageOf(err error) error {
	var out errStaysOut
	if errors.As(err, &out) {
		return out.damage
	}
	return err
}

// rebuild has a closed replica leave its group and removes its files. It may be
// called again after a crash at any point.
func (s *Set) rebuild(id fsm.PartitionID) error {
	name := id.String()
	ctx, cancel := context.WithTimeout(s.env.ctx, rebuildTimeout)
	defer cancel()
	term, leader, err := s.env.Host.LeaveLeader(ctx, id)
	if err != nil {
		return fmt.Errorf("the others are needed to rebuild it: %w", err)
	}
	// From here on it has no vote, and it keeps the ones that it gave.
	if err := s.env.Stable.Group(name).BeginAnew(term, leader); err != nil {
		return err
	}
	dir := s.env.dirOf(id)
	gone := dir + ".deleted"
	if err := s.env.FS.RemoveAll(gone); err != nil {
		return err
	}
	if err := s.env.FS.Rename(dir, gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.env.Host.SyncDir(s.env.Logs.Groups()); err != nil {
		return err
	}
	if err := s.env.FS.RemoveAll(gone); err != nil {
		s.env.Logger.Warn("cannot remove the files of a damaged replica", "partition", id, "error", err)
	}
	s.env.Logger.Info("a damaged replica is removed and begins anew", "partition", id)
	return nil
}
