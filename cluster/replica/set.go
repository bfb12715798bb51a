package replica

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// Set is the replicas of one node: those that run, and those that should and do not. The
// catalog says which should be here, and Reconcile makes it so. It is the only one that opens and
// closes replicas.
type Set struct {
	env  *environment
	done sync.WaitGroup // what runs for the set or for a replica; it ends with env.ctx

	// tidied is when leftovers were looked for last; it belongs to the goroutine of Reconcile.
	tidied struct {
		view *fsm.Topics
		at   time.Time
	}

	// wanted is what the catalog wants here, by the view that Reconcile looked at last, to whose
	// goroutine it belongs. The map is not changed once it is here.
	wanted struct {
		view *fsm.Topics
		all  map[fsm.PartitionID]*fsm.Partition
	}

	// mu guards what follows. Under it nothing is read from or written to a disk, asked of another
	// node or of Raft, or waited for, and no other lock is taken: not a replica's either.
	mu   locks.Mutex[Set]
	open map[fsm.PartitionID]*Replica
	// running are those of open; nil when open has changed. It is not changed once it is here.
	running []*Replica
	// could not be opened, or are closed for what is damaged
	broken    map[fsm.PartitionID]error
	reopening map[fsm.PartitionID]bool      // to be closed and opened again
	busy      map[fsm.PartitionID]bool      // being opened or closed, see inhand
	rebuilt   map[fsm.PartitionID]time.Time // when that was tried last
	damage    map[fsm.PartitionID]error     // to be closed for good or rebuilt, and why
	hurt      map[fsm.PartitionID]hurt      // run with something damaged
}

// New gives a set without replicas. It ends with ctx.
func New(ctx context.Context, config Config) *Set {
	return &Set{
		env:       newEnvironment(ctx, config),
		open:      map[fsm.PartitionID]*Replica{},
		broken:    map[fsm.PartitionID]error{},
		reopening: map[fsm.PartitionID]bool{},
		busy:      map[fsm.PartitionID]bool{},
		rebuilt:   map[fsm.PartitionID]time.Time{},
		damage:    map[fsm.PartitionID]error{},
		hurt:      map[fsm.PartitionID]hurt{},
	}
}

// Run looks after the replicas until the set's context ends: snapshots, retention, members of their
// groups, and damage on the disk.
func (s *Set) Run() {
	s.done.Go(s.housekeepingLoop)
	s.done.Go(s.scrubLoop)
	s.done.Go(s.compactionLoop)
	s.done.Go(s.tierLoop)
	s.done.Go(s.letGoLoop)
}

// End begins to stop all replicas, and lets go of whoever waits for their groups. It does not wait.
func (s *Set) End() {
	for _, r := range s.Running() {
		go r.Member.End()
	}
}

// Close waits for what runs in the set, whose context must have ended, and closes all replicas.
func (s *Set) Close() error {
	s.done.Wait()
	s.mu.Lock()
	open := s.open
	s.open, s.running = map[fsm.PartitionID]*Replica{}, nil
	s.mu.Unlock()
	errs := make(chan error)
	for _, r := range open {
		go func() { errs <- r.Close() }()
	}
	var err error
	for range open {
		err = errors.Join(err, <-errs)
	}
	return err
}

// Replica gives the replica of a partition or shard, nil if none runs here.
func (s *Set) Replica(id fsm.PartitionID) *Replica {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[id]
}

// Records gives the replica of a partition, nil if none runs here.
func (s *Set) Records(id fsm.PartitionID) *Records {
	r := s.Replica(id)
	if r == nil {
		return nil
	}
	return r.Records()
}

// Shard gives the replica of a shard of consumer groups, nil if none runs here.
func (s *Set) Shard(id fsm.PartitionID) *Shard {
	r := s.Replica(id)
	if r == nil {
		return nil
	}
	return r.Shard()
}

// Running gives all replicas that run. The slice is not to be changed.
func (s *Set) Running() []*Replica {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		s.running = slices.AppendSeq(make([]*Replica, 0, len(s.open)), maps.Values(s.open))
	}
	return s.running
}

// neediest gives the replicas of records that need something: those first that need the most, in an
// order of their own where it is the same. need gives how much one needs; ok is false if it needs
// nothing.
func (s *Set) neediest(need func(*Records) (much float64, ok bool)) []*Records {
	needs := map[*Records]float64{}
	for _, r := range s.Running() {
		if m := r.Records(); m != nil {
			if much, ok := need(m); ok {
				needs[m] = much
			}
		}
	}
	return slices.SortedFunc(maps.Keys(needs), func(a, b *Records) int {
		return cmp.Or(cmp.Compare(needs[b], needs[a]), strings.Compare(a.ID.String(), b.ID.String()))
	})
}

// Count is how many replicas run.
func (s *Set) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// Look gives the replica that runs here, and else why there is none, if something is wrong.
func (s *Set) Look(id fsm.PartitionID) (*Replica, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[id], s.broken[id]
}

// Detach takes a replica out of those that run, and has it left alone until it is not busy any
// more; the caller closes it.
func (s *Set) Detach(id fsm.PartitionID) *Replica {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.open[id]
	delete(s.open, id)
	s.running = nil
	s.busy[id] = true
	return r
}

// WhyBroken gives why a replica that should run does not; nil if it runs, is being opened, or
// should not be here.
func (s *Set) WhyBroken(id fsm.PartitionID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken[id]
}

// Troubles gives what is wrong with replicas: why those that do not run are broken, and what those
// that run cannot read.
func (s *Set) Troubles() (broken, hurt map[fsm.PartitionID]error) {
	broken, hurt = map[fsm.PartitionID]error{}, map[fsm.PartitionID]error{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, err := range s.broken {
		broken[id] = err
	}
	for id, h := range s.hurt {
		hurt[id] = h.err
	}
	return broken, hurt
}

// IsBusy reports whether a replica is being opened, closed or rebuilt.
func (s *Set) IsBusy(id fsm.PartitionID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.busy[id]
}

// setBusy has Reconcile leave a replica alone, or not any more.
func (s *Set) setBusy(id fsm.PartitionID, busy bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if busy {
		s.busy[id] = true
	} else {
		delete(s.busy, id)
	}
}

// setBroken notes why a replica that should run does not.
func (s *Set) setBroken(id fsm.PartitionID, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken[id] = why
}

// reopen implements keeper.
func (s *Set) reopen(r *Replica) {
	s.mu.Lock()
	if s.open[r.ID] == r {
		s.reopening[r.ID] = true
	}
	s.mu.Unlock()
	s.env.Host.Wake()
}
