package raftlink

//lint:file-ignore SA1019 raft still fills the deprecated field Leader, so it is carried as it is

import (
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// acknowledged is the last thing a follower agreed to on a pipeline.
type acknowledged struct {
	args                *raft.AppendEntriesRequest
	index, term, commit uint64
	instance            uint64 // of the follower's raft group, 0 if unknown
}

// agreedLocked notes that the follower has agreed to f. What it has agreed to before in the same
// term it still has: an empty request of Raft's may come behind what was sent ahead of it, and that
// is not sent again.
func (p *pipeline) agreedLocked(f *appendFuture) {
	to, before := reachOf(f.args), p.acked
	p.acked = acknowledged{args: f.args, index: to.index, term: to.entryTerm, commit: f.commit, instance: f.instance}
	if before.args != nil && before.args.Term == to.term && before.instance == f.instance && before.index > to.index {
		p.acked.index, p.acked.term = before.index, before.term
	}
	if len(f.args.Entries) > 0 {
		p.noticeLaterLocked()
	}
}

// followerInstance is the instance of the follower's raft group that follows in that term now, by
// the beacons of the process at the other end of this pipeline; 0 if there is none.
func (p *pipeline) followerInstance(term uint64) uint64 {
	if p.s.Boot() == 0 {
		return 0
	}
	return p.t.host.Instance(string(p.id), p.s.Boot(), p.t.group, term)
}

// redundant says whether the follower has agreed to exactly this before and nothing has happened
// since (rule 2).
func (p *pipeline) redundant(args *raft.AppendEntriesRequest) bool {
	if p.t.fresh <= 0 || len(args.Entries) > 0 {
		return false
	}
	p.mu.Lock()
	a, idle := p.acked, p.err == nil && len(p.inFlight) == 0 && len(p.done) == 0
	p.mu.Unlock()
	return idle && a.instance != 0 && a.index == args.PrevLogEntry && a.term == args.PrevLogTerm &&
		a.commit == args.LeaderCommitIndex && a.instance == p.followerInstance(args.Term)
}

// A follower hears that its last entries are committed with the next request, at the latest after
// Raft's CommitTimeout. That is long here, so a pipeline on which nothing follows sends an empty
// request of its own (rule 4).
const (
	noticeAfter = 20 * time.Millisecond
	// the pause doubles up to 1.28 s, and stays so until the follower is told
	mostNotices = 6
)

// appended are the last entries that followers took without a pipeline, until there is one.
type appended struct {
	mu     locks.Mutex[appended] // guards byNode; nothing is called under it
	byNode map[raft.ServerID]acknowledged
}

func (a *appended) note(id raft.ServerID, last acknowledged) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.byNode == nil {
		a.byNode = make(map[raft.ServerID]acknowledged)
	}
	a.byNode[id] = last
}

func (a *appended) take(id raft.ServerID) (acknowledged, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	last, ok := a.byNode[id]
	delete(a.byNode, id)
	return last, ok
}

// noteAppended remembers what a follower took without a pipeline. The pipeline that Raft opens next
// tells it the commit index.
func (t *Transport) noteAppended(id raft.ServerID, args *raft.AppendEntriesRequest) {
	n := len(args.Entries)
	if t.fresh <= 0 || n == 0 {
		return
	}
	t.appended.note(id, acknowledged{
		// Raft uses args again.
		args:  &raft.AppendEntriesRequest{RPCHeader: args.RPCHeader, Term: args.Term, Leader: args.Leader},
		index: args.Entries[n-1].Index, term: args.Entries[n-1].Term, commit: args.LeaderCommitIndex,
	})
}

func (p *pipeline) noticeLaterLocked() {
	if p.t.fresh <= 0 {
		return
	}
	p.notices = 0
	if p.notice == nil {
		p.notice = time.AfterFunc(noticeAfter, p.sendNotice)
	} else {
		p.notice.Reset(noticeAfter)
	}
}

// noticeAgainLocked has sendNotice look once more, after twice as long.
func (p *pipeline) noticeAgainLocked() {
	p.notices = min(p.notices+1, mostNotices)
	p.notice.Reset(noticeAfter << p.notices)
}

// sendNotice tells the follower the leader's commit index, which may be above what the follower
// has: what was not acknowledged must not count as committed there (Raft, section 5.3: min of
// both), so it is cut. It comes again until the follower has been told that its last entry is
// committed: what is on its way just now may say less, and nothing may follow it.
func (p *pipeline) sendNotice() {
	r := p.t.Raft()
	if r == nil {
		return
	}
	free := p.sending.TryLock()
	if free {
		defer p.sending.Unlock()
	}
	p.mu.Lock()
	a := p.acked
	// It is read before the state: a leader's in that term, and not of one that has followed it.
	commit := min(r.CommitIndex(), a.index)
	if p.err != nil || r.State() != raft.Leader || r.CurrentTerm() != a.args.Term {
		p.mu.Unlock()
		return
	}
	busy := !free || len(p.inFlight) > 0
	if busy || commit < a.index {
		p.noticeAgainLocked()
	}
	if busy || commit <= a.commit {
		p.mu.Unlock()
		return
	}
	args := &raft.AppendEntriesRequest{
		RPCHeader: a.args.RPCHeader, Term: a.args.Term, Leader: a.args.Leader,
		PrevLogEntry: a.index, PrevLogTerm: a.term, LeaderCommitIndex: commit,
	}
	limit := p.t.cfg.Timeout
	f := &appendFuture{start: time.Now(), args: args, resp: new(raft.AppendEntriesResponse), commit: commit, answered: make(chan struct{}), own: true, left: 1}
	f.timer = time.AfterFunc(limit, func() { p.fail(fmt.Errorf("%w: no answer to AppendEntries for %v", link.ErrTimeout, limit)) })
	p.class = link.Control
	p.inFlight = append(p.inFlight, f)
	p.mu.Unlock()
	f.instance = p.followerInstance(args.Term)
	b, kind, _ := p.t.encode(args)
	if err := p.send(f, link.Control, []frame{{b, kind}}); err != nil {
		p.fail(err)
	}
}

// late says whether f's answer is a yes to an empty request that was long on its way: Raft would
// take it for contact now (docs/peer-link.md, rule 1), and there is nothing else in it.
func (p *pipeline) late(f *appendFuture) bool {
	return p.t.fresh > 0 && len(f.args.Entries) == 0 && f.resp.Success && time.Since(f.start) > p.t.fresh
}
