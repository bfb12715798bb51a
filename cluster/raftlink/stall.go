package raftlink

import (
	"errors"
	"time"

	"github.com/hashicorp/raft"
)

// hashicorp/raft sends to a follower when something is proposed, and otherwise once per
// CommitTimeout, which is seconds here. On a pipeline each of these wake-ups sends MaxAppendEntries
// entries at most. So a follower that is far behind would be brought up slowly or, if nothing more
// is proposed because everybody waits for a commit that needs this follower, hardly at all. Three
// things help (rule 5):
//
//   - A pipeline whose follower is behind by more than one request ends. Without one Raft sends
//     until all is sent.
//   - A leader with entries that are not committed, where nothing moves, proposes a barrier: the
//     wake-up.
//   - So does a leader whose pipeline turns out to be broken when it sends. Raft goes on without
//     one, but has used up the wake-up for what it wanted to send.

const (
	// stalledAfter is after how long without progress a leader with uncommitted entries is woken;
	// the pause then doubles.
	stalledAfter = 200 * time.Millisecond
	mostStalled  = 3200 * time.Millisecond
	// drainFor bounds the wait for what is in flight on a pipeline that is given up.
	drainFor = time.Second
)

// errBehind ends a pipeline whose follower has more to get than one request holds.
var errBehind = errors.New("peer: the follower is behind, it is brought up without a pipeline")

// Stall is what was seen of the commits of a raft group that is led here. Whoever looks owns it.
type Stall struct {
	commit uint64
	since  int64 // link clock; 0: everything is committed
	wake   int64 // link clock of the next wake-up
	pause  time.Duration
}

// WakeStalled gives a leader that waits for a commit a reason to send. r is the raft group's Raft,
// state the one that it was in a moment ago, s what was seen when it was looked at last.
func (t *Transport) WakeStalled(s *Stall, r Raft, state raft.RaftState, now int64) {
	commit := r.CommitIndex()
	if state != raft.Leader || r.LastIndex() <= commit {
		s.since = 0
		return
	}
	if s.since == 0 || s.commit != commit {
		*s = Stall{commit: commit, since: now, wake: now + int64(stalledAfter), pause: stalledAfter}
		return
	}
	if now < s.wake {
		return
	}
	s.pause = min(2*s.pause, mostStalled)
	s.wake = now + int64(s.pause)
	t.wake(r)
}

// wake proposes a barrier. It does not wait for the raft group's main loop, and nobody needs the
// answer.
func (t *Transport) wake(r Raft) {
	t.link.Go(func() {
		t.stats.barriers.Add(1)
		r.Barrier(stalledAfter)
	})
}

// again has Raft try again at once what a broken pipeline did not take. Not more often than a stall
// would be looked for: a barrier makes Raft send, and if every pipeline breaks at once, that would
// be another barrier.
func (p *pipeline) again() {
	r, now := p.t.Raft(), p.t.link.Now()
	if r == nil || p.t.fresh <= 0 || r.State() != raft.Leader {
		return
	}
	if last := p.t.wokenAt.Load(); last != 0 && now-last < int64(stalledAfter) || !p.t.wokenAt.CompareAndSwap(last, now) {
		return
	}
	p.t.wake(r)
}

// behind says whether args is full and there is more to send.
func (p *pipeline) behind(args *raft.AppendEntriesRequest) bool {
	most := p.t.cfg.MaxAppendEntries
	n := len(args.Entries)
	if most == 0 || n < most {
		return false
	}
	r := p.t.Raft()
	return r != nil && args.Entries[n-1].Index < r.LastIndex()
}

// drain waits until what was sent is answered and taken, so that Raft knows where to go on.
func (p *pipeline) drain() {
	ended := time.NewTimer(drainFor)
	defer ended.Stop()
	for {
		p.mu.Lock()
		over := p.err != nil || len(p.inFlight) == 0 && len(p.done) == 0
		p.mu.Unlock()
		if over {
			return
		}
		select {
		case <-p.change:
		case <-time.After(time.Millisecond): // Raft says nothing when it takes an answer
		case <-p.ctx.Done():
		case <-p.t.done:
			return
		case <-ended.C:
			return
		}
	}
}
