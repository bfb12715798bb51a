package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trimaran-io/trimaran/cluster/tier"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/ticks"
)

// What the log says of the tier was true in the store that the leader was told of. Whether that is
// the store of this node, too, only this node can find out: where each has a folder of its own, a
// replica that let go of its copy would let go of its records. So each replica looks for the
// objects in the store before it does, once for each. One that has nothing to let go of, as one
// that was made anew from another, looks at times whether this node could read what is there.

const (
	// looksAtOnce bounds the segments of the tier that a node looks for at once.
	looksAtOnce = 2
	// lookPause is how long a replica does not look again after it was in vain, at first, and
	// longestLookPause in the end.
	lookPause        = time.Second
	longestLookPause = time.Minute
	// sayUnseenEvery is how often a node says at most that its store lacks something.
	sayUnseenEvery = 10 * time.Minute
	// endsEvery is how often a replica looks at the oldest and the newest segment at least, and
	// endsAtOnce how many do each second at most.
	endsEvery  = time.Hour
	endsAtOnce = 16
	// copyLook is how long a copy waits at its end for a look at what is in front of it.
	copyLook = 5 * time.Second
)

// errNoStore is why a node sees nothing that was not told of a store.
var errNoStore = errors.New("this node has not been told of the store (--tier-to)")

// letGo is what a replica knows of what it may let go of. Its mu guards it.
type letGo struct {
	// found: this node has seen all in its store that the replica keeps below this offset, as it
	// was named then.
	found fsm.Offset
	busy  bool          // somebody looks
	pause time.Duration // after the last look; 0: it was good
	until time.Time     // nobody looks before that
	err   error         // of the last look; nil: it was good
	// ends is when the oldest and the newest segment were there; zero: not since it was opened.
	ends time.Time
}

// unseen gives the offsets that the log here has, need not keep, and that this node has not seen in
// its store; ok is false if there are none, or if nothing would go for it yet.
func (r *Records) unseen() (from, to fsm.Offset, ok bool) {
	r.mu.Lock()
	local, named := r.state.LocalStart()
	start, found := r.seen.start, r.letGo.found
	r.mu.Unlock()
	// What no snapshot says yet a restart forgets.
	if named == 0 || found >= local || uint64(named) > r.Log.SnapshotIndex() {
		return 0, 0, false
	}
	segments := r.Log.Segments()
	if len(segments) < 2 || segments[1].Start < 0 || fsm.Offset(segments[1].Start) > local {
		return 0, 0, false // the first one is needed
	}
	return max(start, found, fsm.Offset(segments[0].Start)), local, true
}

// ends gives the oldest and the newest segment, of the tier of this replica, if it is time to look
// at them.
func (r *Records) ends() []fsm.TieredSegment {
	r.mu.Lock()
	defer r.mu.Unlock()
	tiered := r.seen.tiered
	if len(tiered) == 0 || time.Since(r.letGo.ends) < endsEvery {
		return nil
	}
	return slices.Compact([]fsm.TieredSegment{tiered[0], tiered[len(tiered)-1]})
}

// Unseen says what this node does not see in its store of the tier of this replica, which keeps it
// if it has it; "": nothing is known.
func (r *Records) Unseen() string {
	r.mu.Lock()
	err := r.letGo.err
	r.mu.Unlock()
	if err == nil {
		return ""
	}
	if _, _, keeps := r.unseen(); !keeps && r.ends() == nil {
		return "" // it was let go of meanwhile, or deleted
	}
	return err.Error()
}

// letGoLoop looks in the store for what replicas may let go of.
func (s *Set) letGoLoop() {
	ctx := s.env.ctx
	tick := ticks.New(tierTick)
	defer tick.Stop()
	var work errgroup.Group
	work.SetLimit(looksAtOnce)
	for {
		select {
		case <-ctx.Done():
			_ = work.Wait()
			return
		case <-tick.C:
		}
		ends := 0
		for _, r := range s.neediest(func(r *Records) (records float64, ok bool) {
			r.mu.Lock()
			waits := r.letGo.busy || time.Now().Before(r.letGo.until)
			r.mu.Unlock()
			if waits {
				return 0, false
			}
			if from, to, ok := r.unseen(); ok {
				return float64(to - from), true
			}
			if ends == endsAtOnce && s.env.Tier != nil || r.ends() == nil {
				return 0, false
			}
			ends++
			return -1, true
		}) {
			work.Go(func() error { // this waits while others look
				r.look(ctx)
				return nil
			})
		}
	}
}

// look looks in the store for what this replica may let go of.
func (r *Records) look(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.closing, cancel)()
	r.mu.Lock()
	busy := r.letGo.busy
	r.letGo.busy = true
	r.mu.Unlock()
	if busy {
		return
	}
	err := r.find(ctx)
	if err == nil {
		err = r.findEnds(ctx)
	}
	r.mu.Lock()
	l := &r.letGo
	l.busy = false
	if ctx.Err() != nil {
		r.mu.Unlock()
		return
	}
	if l.err = err; err == nil {
		l.pause = 0
	} else {
		l.pause = min(max(2*l.pause, lookPause), longestLookPause)
		l.until = time.Now().Add(l.pause)
	}
	r.mu.Unlock()
	says := false
	if err != nil {
		r.env.sayUnseen.Do(func() { says = true })
	}
	if says {
		r.env.Logger.Warn("this node does not see in its store what is in the tier, of this partition and perhaps of others (cluster status); what it has of that it keeps", "partition", r.ID, "error", err)
	}
}

// find asks the store for the objects of what this replica may let go of, one segment after the
// other, and notes how far they are there.
func (r *Records) find(ctx context.Context) error {
	at, to, ok := r.unseen()
	if !ok {
		return nil
	}
	r.mu.Lock()
	tiered := r.seen.tiered
	r.mu.Unlock()
	if at >= to { // it has no records
		r.foundTo(to)
		return nil
	}
	if r.env.Tier == nil {
		return r.notSeen(errNoStore)
	}
	for _, s := range tiered {
		if s.Next <= at {
			continue
		}
		if at >= to || s.First > at {
			break
		}
		if err := r.env.Tier.Holds(ctx, r.ID, s); err != nil {
			if !r.names(s) {
				return nil // another is named in its place, or it is below the log start: next time
			}
			return r.notSeen(r.lacks(s, err))
		}
		// What is behind will be let go of later, and another segment may be named there then.
		at = min(s.Next, to)
		r.foundTo(at)
	}
	return nil
}

// findEnds asks the store for the oldest and the newest segment, if it is time for that: where
// these are, this node most likely sees the others, too.
func (r *Records) findEnds(ctx context.Context) error {
	ends := r.ends()
	if len(ends) > 0 && r.env.Tier == nil {
		return r.notSeen(errNoStore)
	}
	for _, s := range ends {
		if err := r.env.Tier.HasIndex(ctx, r.ID, s); err != nil && r.names(s) {
			return r.notSeen(r.lacks(s, err))
		}
	}
	if len(ends) > 0 {
		r.mu.Lock()
		r.letGo.ends = time.Now()
		r.mu.Unlock()
	}
	return nil
}

// lacks says what became of a look at a segment.
func (r *Records) lacks(s fsm.TieredSegment, err error) error {
	store := r.env.Tier.Store
	if errors.Is(err, tier.ErrNotFound) || errors.Is(err, tier.ErrDamaged) {
		return fmt.Errorf("the store of this node, %s, does not have offsets %d to %d as they are in the tier: is --tier-to one and the same place on all nodes? %w", store, s.First, s.Next-1, err)
	}
	return fmt.Errorf("the store of this node, %s, does not say whether it has offsets %d to %d: %w", store, s.First, s.Next-1, err)
}

// beginsAnew warns if a copy from another replica, which comes in place of all that this one had,
// begins behind records that this node has not seen in its store. snapshot is that of the copy.
func (r *Records) beginsAnew(ctx context.Context, snapshot []byte, start fsm.Offset) {
	state, err := fsm.RestorePartition(snapshot)
	if err != nil {
		return // it is not taken over either
	}
	r.mu.Lock()
	found := r.letGo.found
	r.mu.Unlock()
	s, tiered := fsm.TieredAt(state.Tiered(), start-1)
	if !tiered || start <= max(found, state.LogStart()) {
		return
	}
	err = errNoStore
	if r.env.Tier != nil {
		ctx, cancel := context.WithTimeout(ctx, copyLook)
		defer cancel()
		if err = r.env.Tier.HasIndex(ctx, r.ID, s); err != nil {
			err = r.lacks(s, err)
		}
	}
	if err != nil {
		r.env.Logger.Warn("a replica that was copied from another begins behind records that are in the tier, and this node does not see them in its store", "partition", r.ID, "log_start", state.LogStart(), "from", start, "error", err)
	}
}

// notSeen adds what this replica does not have either: it let go of that when the node saw it, or
// was copied from one that had.
func (r *Records) notSeen(err error) error {
	start, _ := r.Bounds()
	if all := r.Log.Segments(); len(all) > 0 && fsm.Offset(all[0].Start) > start {
		return fmt.Errorf("this replica has offsets from %d on, and those from %d on in front of that are in the tier alone: %w", all[0].Start, start, err)
	}
	return err
}

// foundTo notes that this node has seen what the replica need not keep in front of an offset.
func (r *Records) foundTo(offset fsm.Offset) {
	r.mu.Lock()
	r.letGo.found = max(r.letGo.found, offset)
	r.mu.Unlock()
	r.rest.Store(nil) // segments can go
}

// names reports whether a segment is still named in the log.
func (r *Records) names(s fsm.TieredSegment) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, ok := fsm.TieredAt(r.seen.tiered, s.First)
	return ok && now.ID == s.ID && now.Term == s.Term
}
