package raftlink

//lint:file-ignore SA1019 raft still fills the deprecated field Leader, so it is carried as it is

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link"
)

// A leader's entries go to its followers while it brings them to stable storage itself, not after
// that (Raft dissertation, section 10.2.1). hashicorp/raft stores first and sends then. So the
// request that it will make is made for it, before it stores, and when it makes that request on the
// pipeline, it gets the answer to the first. Where its own is another one, or no pipeline goes on
// with these entries, or something had to be waited for, its own is sent, as if nothing had been:
// a follower takes entries twice.
//
// Raft hears of no answer that it has not asked for, and it asks when its append has returned. So
// nobody counts for an entry before the leader itself has it (rule 9).

// aheadFor is how old an answer may be when Raft asks for it, since Raft takes it for contact then
// (rule 1). Where it is older Raft's own request is sent.
const aheadFor = 300 * time.Millisecond

// reach is how far the requests of a pipeline go.
type reach struct {
	header    raft.RPCHeader
	leader    []byte
	term      uint64 // in which the leader sent them; 0: nothing was sent yet
	index     uint64 // of the last entry
	entryTerm uint64 // of the last entry
}

// reachOf gives how far args goes.
func reachOf(args *raft.AppendEntriesRequest) reach {
	r := reach{header: args.RPCHeader, leader: args.Leader, term: args.Term, index: args.PrevLogEntry, entryTerm: args.PrevLogTerm}
	if n := len(args.Entries); n > 0 {
		r.index, r.entryTerm = args.Entries[n-1].Index, args.Entries[n-1].Term
	}
	return r
}

// next is the request that goes on from there, in the same term, with entries that are its
// leader's; nil where they do not follow.
func (r *reach) next(entries []*raft.Log, commit uint64) *raft.AppendEntriesRequest {
	if r.term == 0 || r.term != entries[0].Term || r.index+1 != entries[0].Index {
		return nil
	}
	return &raft.AppendEntriesRequest{
		RPCHeader: r.header, Term: r.term, Leader: r.leader,
		PrevLogEntry: r.index, PrevLogTerm: r.entryTerm, Entries: entries, LeaderCommitIndex: commit,
	}
}

// mayGoAhead says whether entries may be sent before their leader has them: commands of one term,
// one behind the other. A configuration counts for whoever has it, and a leader is the first.
func mayGoAhead(entries []*raft.Log) bool {
	for i, entry := range entries {
		if entry.Type != raft.LogCommand || entry.Term != entries[0].Term || entry.Index != entries[0].Index+uint64(i) {
			return false
		}
	}
	return len(entries) > 0
}

// Ahead sends entries that this member of the raft group is about to store to the followers that
// are in step, if it leads and they are of its term. It must be called by who stores them, which is
// Raft's main loop, before they are. It waits for nothing. The entries must not change from then
// on, whatever becomes of them here: where they are not stored in the end, others may have them.
// They leave when the link's Outbox is told so, which is for who stores them to do.
func (t *Transport) Ahead(entries []*raft.Log) {
	if t.cfg.StoreFirst {
		return
	}
	r := t.Raft()
	// The main loop alone makes a leader of a member and ends one (rule 6), so this holds until the
	// entries are sent; and what a leader stores are its own proposals, what a follower stores are
	// another's.
	if r == nil || r.State() != raft.Leader || !mayGoAhead(entries) || r.CurrentTerm() != entries[0].Term {
		return
	}
	var some [8]*pipeline
	for _, p := range t.newest.all(some[:0]) {
		p.sendAhead(entries, r.CommitIndex())
	}
}

// all adds the pipelines.
func (n *newest) all(to []*pipeline) []*pipeline {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.byNode {
		to = append(to, p)
	}
	return to
}

// atOnce is a context that has ended: with it nothing is waited for.
var atOnce = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// sendAhead sends entries if they go on where the pipeline is and nothing has to be waited for.
func (p *pipeline) sendAhead(entries []*raft.Log, commit uint64) {
	if !p.sending.TryLock() {
		return // Raft is sending what is before them
	}
	defer p.sending.Unlock()
	p.mu.Lock()
	args := p.reach.next(entries, commit)
	p.mu.Unlock()
	if args == nil {
		return
	}
	b, kind, size := p.t.encode(args)
	if size > maxAppend {
		return
	}
	release, err := p.t.unanswered.hold(string(p.id), int64(size))
	if err != nil {
		return
	}
	f := &appendFuture{
		start: time.Now(), args: args, resp: new(raft.AppendEntriesResponse), answered: make(chan struct{}),
		own: true, ahead: true, left: 1, commit: commit, instance: p.followerInstance(args.Term), release: release,
	}
	cl, before, ok := p.placeAhead(f, link.ClassFor(size), scaled(p.t.cfg.Timeout, int64(size)))
	if !ok {
		release()
		return
	}
	if err := p.s.BeginHeld(atOnce, cl, kind, b, func(r link.Reply) { p.answer(f, r) }); err != nil {
		p.takeBack(f, before) // no room on the connection, or it is over
		return
	}
	p.t.stats.out.Add(1)
	p.t.stats.ahead.Add(1)
}

// placeAhead gives f a place in flight, if one is free, and says which connection to take and how
// far the pipeline went before.
func (p *pipeline) placeAhead(f *appendFuture, want link.Class, limit time.Duration) (cl link.Class, before reach, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// What was answered and not asked for is no longer in flight, and bounded all the same.
	if p.err != nil || !p.freeLocked(want) || len(p.early) >= p.t.cfg.MaxInFlight {
		return 0, reach{}, false
	}
	if cl = p.class; len(p.inFlight) == 0 {
		cl = want
	}
	if !p.s.Has(cl) {
		return 0, reach{}, false
	}
	before, p.class, p.reach = p.reach, cl, reachOf(f.args)
	p.placeLocked(f, limit)
	p.early = append(p.early, f)
	return cl, before, true
}

// takeBack takes away the newest request, which was not sent. sending is held.
func (p *pipeline) takeBack(f *appendFuture, before reach) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return // it has ended, and f with it
	}
	p.inFlight, p.early, p.reach = p.inFlight[:len(p.inFlight)-1], p.early[:len(p.early)-1], before
	f.finish(link.ErrBroken)
}

// covered gives how many of the requests that were sent ahead, oldest first, are what Raft asks for
// with args, and how many of its entries are in them. A leader has one entry of its term at an
// index: index and term tell an entry.
func covered(early []*appendFuture, args *raft.AppendEntriesRequest, now time.Time) (requests, entries int) {
	at := reach{term: args.Term, index: args.PrevLogEntry, entryTerm: args.PrevLogTerm}
	for _, f := range early {
		a, rest := f.args, args.Entries[entries:]
		if a.Term != at.term || a.PrevLogEntry != at.index || a.PrevLogTerm != at.entryTerm || len(a.Entries) > len(rest) {
			break
		}
		if !f.at.IsZero() && now.Sub(f.at) > aheadFor {
			break
		}
		for i, entry := range a.Entries {
			if entry.Index != rest[i].Index || entry.Term != rest[i].Term {
				return requests, entries
			}
		}
		requests, entries, at = requests+1, entries+len(a.Entries), reachOf(a)
	}
	return requests, entries
}

// attach looks how much of what Raft asks for was sent ahead. If all of it was, Raft gets the
// future of the request that had the last of it; otherwise more is what must be sent. What was sent
// ahead and is not what Raft asks for is forgotten: its answer is of no use. sending is held.
func (p *pipeline) attach(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (f *appendFuture, more *raft.AppendEntriesRequest) {
	if len(args.Entries) == 0 {
		return nil, args
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil || len(p.early) == 0 {
		return nil, args
	}
	requests, entries := covered(p.early, args, time.Now())
	p.t.stats.aheadUsed.Add(uint64(requests))
	if requests == 0 {
		p.early = nil
		return nil, args
	}
	f = p.early[requests-1]
	if p.early = p.early[requests:]; entries < len(args.Entries) {
		p.early = nil
		last, rest := args.Entries[entries-1], *args
		rest.PrevLogEntry, rest.PrevLogTerm, rest.Entries = last.Index, last.Term, args.Entries[entries:]
		return nil, &rest
	}
	*resp = *f.resp
	f.args, f.resp, f.own = args, resp, false
	if !f.at.IsZero() {
		p.done <- f           // never waits: there is room for all that may be early
		p.noticeLaterLocked() // it could not be committed before
	}
	return f, nil
}
