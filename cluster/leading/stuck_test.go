package leading

import (
	"log/slog"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// stalled counts appends begun and ended.
type stalled struct {
	Member
	count, stuck uint64
}

func (s *stalled) Group() string         { return "g" }
func (s *stalled) State() raft.RaftState { return raft.Leader }

func (s *stalled) Appending() uint64      { return s.count * (s.count % 2) }
func (s *stalled) SetStuck(append uint64) { s.stuck = append }

// TestAGroupIsStuckWhenItsAppendDoesNotEnd in turns that came in time, and its leadership is
// offered again and again.
func TestAGroupIsStuckWhenItsAppendDoesNotEnd(t *testing.T) {
	g := &stalled{}
	offered := make(chan Member, 10)
	hangs := false
	s := NewStuckGroups(StuckConfig{
		Logger: slog.New(slog.DiscardHandler),
		Groups: func() []Member { return []Member{g} },
		Offer:  func(g Member) { offered <- g },
		Hangs:  func(is bool) { hangs = is },
	})
	now := time.Now()
	turn := func(after time.Duration) {
		now = now.Add(after)
		s.turn(now)
		s.offers.Wait()
	}
	turn(0)
	turn(stuckTick)
	g.count++ // an append begins
	turn(stuckTick)
	turn(time.Minute) // the process stood still
	turn(stuckTick)
	if hangs || (g.stuck != 0 && g.stuck == g.count) || len(offered) > 0 {
		t.Error("stuck too early")
	}
	turn(stuckTick)
	if !hangs || !(g.stuck != 0 && g.stuck == g.count) || len(offered) != 1 {
		t.Errorf("after %d turns: hangs %v, offered %d times", stuckTicks, hangs, len(offered))
	}
	turn(stuckTick)
	if len(offered) != 1 {
		t.Error("offered again at once")
	}
	turn(stuckTick)
	if len(offered) != 2 {
		t.Error("not offered again")
	}
	g.count++ // it ends
	turn(stuckTick)
	if hangs || (g.stuck != 0 && g.stuck == g.count) {
		t.Error("it still hangs")
	}
}
