package cluster

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
)

// A disk that hangs takes Raft's main loop with it, and not the heartbeats, which go on beside that: the others would wait
// for this leader for as long as it lasts. So where an append does not end within a second, this node answers for nothing more
// as the leader, looks for another, and tells the voter with the longest log to stand for election (handover.go). Whether
// that one is elected the others decide. What was proposed here and not answered has a fate that nobody knows then.

const (
	// An append may take stuckTicks times stuckTick, a second, of a time in which this process had its turns: on a machine that has
	// more to do than it can, everything takes long, and the disk is not what hangs.
	stuckTick  = 500 * time.Millisecond
	stuckTicks = 2
	// stuckRetry is the pause before a leadership that nobody took is offered again.
	stuckRetry = time.Second
)

// stallable is a member of a group whose appends may not end (raftgroup.Member).
type stallable interface {
	Appending() uint64 // the number of the append that is under way; 0: none is
	SetStuck(append uint64)
}

// stuckGroups looks after groups whose appends do not end. All but cfg belongs to the goroutine of run.
type stuckGroups struct {
	cfg     stuckConfig
	last    time.Time                // of the turn before
	seen    map[stallable]seenAppend // those in an append
	offered map[stallable]time.Time  // those that are stuck, and when their leadership was offered last
	offers  sync.WaitGroup           // leaderships that are being offered
}

// stuckConfig is what stuckGroups needs of the node.
type stuckConfig struct {
	logger *slog.Logger
	groups func() []stallable
	name   func(g stallable) string
	leads  func(g stallable) bool
	// offer has another voter stand for election, and reports whether it follows no more; the leader here is to be given up then.
	offer func(g stallable)
	// hangs is told whether the disk does.
	hangs func(bool)
}

func newStuckGroups(cfg stuckConfig) *stuckGroups {
	return &stuckGroups{cfg: cfg, seen: map[stallable]seenAppend{}, offered: map[stallable]time.Time{}}
}

// run returns when ctx has ended and nothing is offered any more.
func (s *stuckGroups) run(ctx context.Context) {
	defer s.offers.Wait()
	tick := time.NewTicker(stuckTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.turn(time.Now())
	}
}

// seenAppend is an append that was under way, and in how many turns.
type seenAppend struct {
	count uint64
	ticks int
}

// look counts the turns of an append, and reports whether they are too many.
func (s *stuckGroups) look(g stallable, seen map[stallable]seenAppend, onTime bool) bool {
	count := g.Appending()
	if count == 0 {
		return false
	}
	a := s.seen[g]
	if a.count != count {
		a = seenAppend{count: count}
	} else if onTime {
		a.ticks++
	}
	seen[g] = a
	if a.ticks < stuckTicks {
		return false
	}
	g.SetStuck(count)
	return true
}

func (s *stuckGroups) turn(now time.Time) {
	onTime := now.Sub(s.last) < 2*stuckTick
	s.last = now
	seen := map[stallable]seenAppend{}
	still := map[stallable]time.Time{}
	for _, g := range s.cfg.groups() {
		if !s.look(g, seen, onTime) {
			continue
		}
		last, known := s.offered[g]
		still[g] = last
		leads := s.cfg.leads(g)
		if !known {
			s.cfg.logger.Error("an append does not end: the disk hangs", "group", s.cfg.name(g), "leads", leads)
		}
		if !leads || now.Sub(last) < stuckRetry {
			continue
		}
		still[g] = now
		s.offers.Go(func() { s.cfg.offer(g) })
	}
	for g := range s.offered {
		if _, is := still[g]; !is {
			s.cfg.logger.Info("appends end again", "group", s.cfg.name(g))
		}
	}
	s.seen, s.offered = seen, still
	s.cfg.hangs(len(still) > 0)
}

// offer tells the voter that follows and has the longest log to stand for election. Nothing is held up for it: nothing gets on here.
// It reports whether that one follows no more.
func (h *handovers) offer(g *raftgroup.Member) bool {
	ctx, cancel := context.WithTimeout(h.stopped, handOverPatience)
	defer cancel()
	term := g.Raft.CurrentTerm()
	follow := slices.DeleteFunc(g.Voters(), func(id string) bool { return id == h.self || !h.follows(id, g.Name, term) })
	var best string
	var longest standing
	calls.AskAll(ctx, follow, func(ctx context.Context, id string) (standing, error) {
		return h.fit(ctx, g, id, term)
	}, func(id string, s standing, err error) bool {
		if err != nil {
			h.logger.Debug("a voter cannot lead in place of this one", "group", g.Name, "node", id, "error", err)
		} else if best == "" || longest.Behind(s) {
			best, longest = id, s
		}
		return false
	})
	if best == "" {
		return false
	}
	// Raft here may not hear of it before the disk moves: it is the others who do.
	over := func() bool { return g.Raft.CurrentTerm() != term || !h.follows(best, g.Name, term) }
	if err := h.nominate(ctx, g, best, over); err != nil {
		h.logger.Debug("a leadership of a disk that hangs was not taken", "group", g.Name, "node", best, "error", err)
		return false
	}
	h.logger.Warn("the disk hangs: another replica stands for election", "group", g.Name, "node", best)
	return true
}
