package replica

import (
	"errors"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/ticks"
)

// Housekeeping is what a replica does in its own time: snapshots by bytes, so
// that a restart reads back little; freeing of segments below the log start; and,
// where it leads, the decision of what retention lets go.

const (
	housekeepingTick = time.Second
	// snapshotBytes is what the log may grow by before a snapshot is taken: what is
	// read back after a restart.
	snapshotEvery = 64 << 20
	// idleSnapshot is the age at which something smaller gets its snapshot, too.
	idleSnapshot             = 5 * time.Minute
	defaultRetentionInterval = 30 * time.Second
)

// housekeepingLoop looks after all replicas until ctx ends.
func (s *Set) housekeepingLoop() {
	ctx := s.env.ctx
	tick := ticks.New(housekeepingTick)
	defer tick.Stop()
	interval := s.env.RetentionInterval
	if interval <= 0 {
		interval = defaultRetentionInterval
	}
	lastRetention := time.Now()
	// A snapshot waits for its group's main loop, which may wait for a full disk; what would make
	// room is in other groups.
	work := newAside(&s.done)
	defer work.end()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		retention := time.Since(lastRetention) >= interval
		if retention {
			lastRetention = time.Now()
		}
		full := s.diskShareExceeded()
		view, now := s.env.Host.Topics(), time.Now()
		for _, r := range s.Running() {
			if !retention && !full && r.Quiet(view, now) {
				continue
			}
			work.do(ctx, r, func() {
				if retention || full {
					r.machine.retain(full)
				}
				at := r.logState()
				idle := r.housekeep()
				if r.reconcileMembers() && idle {
					r.rest.Store(&rest{log: at, view: view, until: time.Now().Add(restFor)})
				}
			})
		}
	}
}

// rest says that there was nothing to do for a replica, and how long there will be nothing if
// nothing changes.
type rest struct {
	log   [2]uint64   // last entry, and last one applied
	view  *fsm.Topics // of the catalog
	until time.Time
}

// restFor is how often a replica in which nothing happens is looked at: most do nothing most of the
// time.
const restFor = 30 * time.Second

// Quiet reports whether nothing has changed since there was nothing to do for the replica.
func (r *Replica) Quiet(view *fsm.Topics, now time.Time) bool {
	rest := r.rest.Load()
	if rest == nil || rest.view != view || now.After(rest.until) {
		return false
	}
	return rest.log == r.logState()
}

// logState gives the last entry of the log and the last command that was applied.
func (r *Replica) logState() [2]uint64 {
	last, _ := r.Log.LastIndex()
	applied, _ := r.Log.LastApplied()
	return [2]uint64{last, applied}
}

// housekeep takes a snapshot where one is due and frees what is below the log start. It reports
// whether neither was.
func (r *Replica) housekeep() (idle bool) {
	needs, err := r.machine.needs()
	if err != nil {
		r.env.Logger.Warn("cannot begin a segment", "partition", r.ID, "error", err)
		return false
	}
	bytes, ended := r.Log.Unsnapshotted()
	old := bytes > 0 && time.Since(r.lastSnapshot) >= idleSnapshot
	due := bytes >= needs.every || ended || old || r.Log.Blocked(needs.from) || needs.upTo > r.Log.SnapshotIndex()
	if due {
		r.lastSnapshot = time.Now()
		err := r.Member.Ask(r.env.ctx, func() raft.Future { return r.Member.Raft.Snapshot() })
		// With a change of the configuration under way there is none: next time.
		if err != nil && r.env.ctx.Err() == nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) && !errors.Is(err, raft.ErrRaftShutdown) &&
			!strings.Contains(err.Error(), "wait until the configuration entry") {
			r.env.Logger.Warn("cannot take a snapshot", "partition", r.ID, "error", err)
		}
	}
	freed, err := r.Log.Trim(needs.from, r.heldFrom(needs))
	if err != nil {
		r.env.Logger.Warn("cannot free segments", "partition", r.ID, "error", err)
	}
	if freed > 0 {
		r.env.Logger.Info("segments freed", "partition", r.ID, "bytes", freed, "log_start", needs.from)
	}
	return !due && freed == 0 && err == nil
}

// needs implements machine.
func (r *Records) needs() (keeping, error) {
	r.forget()
	passed := r.Log.Passed()
	r.mu.Lock()
	start, next, applied := r.seen.start, r.seen.next, r.seen.last
	decided := r.state.Compaction().Index
	local, named := r.state.LocalStart()
	found := r.letGo.found
	var state []byte
	// The state is that of another entry while one is being applied; then the log comes further
	// this moment, and nothing would be done with it.
	settled := r.seen.last == r.state.LastApplied()
	r.mu.Unlock()
	if settled && (start == next || !passed) {
		state = r.keeps()
	}
	k := keeping{from: int64(start), every: snapshotEvery, upTo: uint64(max(decided, named))}
	if uint64(named) <= r.Log.SnapshotIndex() {
		// What is in front is in the tier, and no restart forgets it; but it goes only as far as
		// this node has seen it there itself.
		k.from = max(k.from, int64(min(local, found)))
	}
	if !settled {
		return k, nil
	}
	if !passed {
		if err := r.Log.PassIdle(int64(next), uint64(applied), state); err != nil {
			return k, err
		}
	}
	if start < next {
		return k, nil
	}
	// Nothing is left to read: the last segment goes, too.
	return k, r.Log.EndSegment(int64(start), uint64(applied), state)
}

// diskShareExceeded reports whether the partitions may let go of their oldest
// segments, since the disk is fuller than the operator allows.
func (s *Set) diskShareExceeded() bool {
	if s.env.MaxDiskShare <= 0 {
		return false
	}
	free, total := s.env.Logs.Space()
	return total > 0 && float64(total-free)/float64(total) > s.env.MaxDiskShare
}
