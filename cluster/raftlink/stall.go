package raftlink

import (
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/internal/locks"
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
//   - And one to whom a follower has come back, where nothing is sent that would find that out.

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
	if state != raft.Leader {
		s.since = 0
		return
	}
	commit := r.CommitIndex()
	if r.LastIndex() <= commit {
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

// Replicates says whether there is a pipeline to that node on which a follower that is there now
// has acknowledged something: that of the process and of the opening of the raft group that its
// beacons speak for. Whoever leads in term asks, and wakes Raft where it is not so.
func (t *Transport) Replicates(id raft.ServerID, term uint64) bool {
	t.newest.mu.Lock()
	p := t.newest.byNode[id]
	t.newest.mu.Unlock()
	if p == nil || p.s.Ended() {
		return false
	}
	now := p.followerInstance(term)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.acked.instance != 0 {
		p.follower = p.acked.instance
	}
	if p.follower == 0 {
		p.follower = now // the first that is heard of who agreed to the pipeline
	}
	return p.err == nil && p.follower == now
}

// Wake gives a leader a reason to send to its followers.
func (t *Transport) Wake() {
	if r := t.Raft(); r != nil {
		t.wake(r)
	}
}

// newest are the pipelines that Raft opened last.
type newest struct {
	mu     locks.Mutex[newest] // guards byNode; nothing is called under it
	byNode map[raft.ServerID]*pipeline
}

func (n *newest) note(p *pipeline) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.byNode == nil {
		n.byNode = make(map[raft.ServerID]*pipeline)
	}
	n.byNode[p.id] = p
}

// forget lets go of p, unless another has followed it.
func (n *newest) forget(p *pipeline) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.byNode[p.id] == p {
		delete(n.byNode, p.id)
	}
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
