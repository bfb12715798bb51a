package leading

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/internal/ticks"
)

// A disk that hangs takes Raft's main loop with it, and not the heartbeats, which go on beside
// that: the others would wait for this leader for as long as it lasts. So where an append does not
// end within a second, this node answers for nothing more as the leader, looks for another, and
// tells the voter with the longest log to stand for election (handover.go). Whether that one is
// elected the others decide. What was proposed here and not answered has a fate that nobody knows
// then.

const (
	// An append may take stuckTicks times stuckTick, a second, of a time in which this process had
	// its turns: on a machine that has more to do than it can, everything takes long, and the disk
	// is not what hangs.
	stuckTick  = 500 * time.Millisecond
	stuckTicks = 2
	// stuckRetry is the pause before a leadership that nobody took is offered again.
	stuckRetry = time.Second
)

// StuckGroups looks after groups whose appends do not end. All but cfg belongs to the goroutine of
// Run.
type StuckGroups struct {
	cfg  StuckConfig
	last time.Time             // of the turn before
	seen map[Member]seenAppend // those in an append
	// those that are stuck, and when their leadership was offered last
	offered map[Member]time.Time
	offers  sync.WaitGroup // leaderships that are being offered
}

// StuckConfig is what StuckGroups needs of the node.
type StuckConfig struct {
	Logger *slog.Logger
	// Groups are those that run here; those without an append under way may be left out.
	Groups func() []Member
	// Offer has another voter stand for election; where it follows no more the leader here is to be
	// given up. It may take a while.
	Offer func(g Member)
	// Hangs is told whether the disk does.
	Hangs func(bool)
}

// NewStuckGroups makes one that has seen nothing.
func NewStuckGroups(cfg StuckConfig) *StuckGroups {
	return &StuckGroups{cfg: cfg, seen: map[Member]seenAppend{}, offered: map[Member]time.Time{}}
}

// Run returns when ctx has ended and nothing is offered any more.
func (s *StuckGroups) Run(ctx context.Context) {
	defer s.offers.Wait()
	tick := ticks.New(stuckTick)
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
func (s *StuckGroups) look(g Member, seen map[Member]seenAppend, onTime bool) bool {
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

func (s *StuckGroups) turn(now time.Time) {
	onTime := now.Sub(s.last) < 2*stuckTick
	s.last = now
	seen := map[Member]seenAppend{}
	still := map[Member]time.Time{}
	for _, g := range s.cfg.Groups() {
		if !s.look(g, seen, onTime) {
			continue
		}
		last, known := s.offered[g]
		still[g] = last
		leads := g.State() == raft.Leader
		if !known {
			s.cfg.Logger.Error("an append does not end: the disk hangs", "group", g.Group(), "leads", leads)
		}
		if !leads || now.Sub(last) < stuckRetry {
			continue
		}
		still[g] = now
		s.offers.Go(func() { s.cfg.Offer(g) })
	}
	for g := range s.offered {
		if _, is := still[g]; !is {
			s.cfg.Logger.Info("appends end again", "group", g.Group())
		}
	}
	s.seen, s.offered = seen, still
	s.cfg.Hangs(len(still) > 0)
}
