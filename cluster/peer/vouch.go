package peer

//lint:file-ignore SA1019 raft still fills the deprecated field Leader, so it is carried as it is

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// RaftState is what the link must see of a group to speak for it; *raft.Raft is one.
type RaftState interface {
	State() raft.RaftState
	CurrentTerm() uint64
	LeaderWithID() (raft.ServerAddress, raft.ServerID)
	CommitIndex() uint64
	LastIndex() uint64
	GetConfiguration() raft.ConfigurationFuture
	Barrier(timeout time.Duration) raft.Future
}

// Unled says that the leader this group follows is on a node that is alive and has not said for a while that it leads.
func (g *GroupTransport) Unled() bool { return g.unled.Load() }

// Vouch lets signs of life speak for this group: r is the group's Raft here. Until
// it is called every message of the group goes on the wire, and every heartbeat is taken beside Raft's main loop.
func (g *GroupTransport) Vouch(r RaftState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.vouched = r
}

// raftState is nil once the group is closed.
func (g *GroupTransport) raftState() RaftState {
	select {
	case <-g.done:
		return nil
	default:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.vouched
}

// Follows says whether that node's last sign says that the group there follows this node in that term.
func (l *Link) Follows(identity, group string, term uint64) bool {
	l.mu.Lock()
	p := l.peers[identity]
	l.mu.Unlock()
	if p == nil {
		return false
	}
	c, _ := p.claimed(group)
	return c.kind == claimFollows && c.term == term
}

// beatTo is what is remembered of the heartbeats to one follower.
type beatTo struct {
	term uint64
	last int64 // link clock: when the last one ended
}

// leadsTowards says whether this group sends heartbeats of that term to that node: it leads, and the node is a member.
func (g *GroupTransport) leadsTowards(identity string, term uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	b, ok := g.beatsTo[raft.ServerID(identity)]
	return ok && b.term == term
}

// noteMember remembers a follower from the first message to it in a term, long before its first heartbeat.
func (g *GroupTransport) noteMember(id raft.ServerID, term uint64) {
	if g.link.cfg.HeartbeatTimeout > 0 && !g.leadsTowards(string(id), term) {
		g.noteBeat(id, term)
	}
}

func (g *GroupTransport) noteBeat(id raft.ServerID, term uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.beatsTo == nil {
		g.beatsTo = make(map[raft.ServerID]beatTo)
	}
	if b, ok := g.beatsTo[id]; !ok || b.term != term {
		for other, b := range g.beatsTo {
			if b.term != term {
				delete(g.beatsTo, other)
			}
		}
		g.membersChanged.Store(true)
	}
	g.beatsTo[id] = beatTo{term, g.link.now()}
}

// periodic says whether a heartbeat is one of Raft's timer. Those that follow the one before sooner
// than the timer's shortest time were asked for by Raft's VerifyLeader, which has somebody waiting.
func (g *GroupTransport) periodic(id raft.ServerID, term uint64) bool {
	every := g.link.cfg.HeartbeatTimeout / 10
	if every < 2*g.link.cfg.SignInterval {
		return false // signs would come too late to be of use
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	b, ok := g.beatsTo[id]
	return ok && b.term == term && g.link.now()-b.last >= int64(every)
}

// heartbeat answers a heartbeat by a sign of the follower's node that was made after the call began and
// says that the follower still follows; false means that it has to go on the wire (rule 1).
func (g *GroupTransport) heartbeat(id raft.ServerID, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) bool {
	l := g.link
	if !g.periodic(id, args.Term) {
		return false
	}
	began := l.now()
	w := l.peer(string(id)).expect(g.group, args.Term)
	if w == nil {
		return false
	}
	limit := signPatience * l.cfg.SignInterval
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case ok := <-w.got:
		// A process that was stopped meanwhile finds the sign in its socket, and it may be old by now.
		if !ok || l.now()-began > int64(limit) {
			return false
		}
	case <-timer.C:
		return false
	case <-g.done:
		return false
	}
	*resp = raft.AppendEntriesResponse{RPCHeader: args.RPCHeader, Term: args.Term, Success: true}
	l.stats.heartbeatsVouched.Add(1)
	return true
}

// timelyHeartbeat sends a heartbeat on the wire. A yes that was long on its way is not passed on:
// Raft takes it for contact at the moment at which it arrives, and it may have been said before
// another was elected.
func (g *GroupTransport) timelyHeartbeat(id raft.ServerID, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	l := g.link
	limit := int64(signPatience * l.cfg.SignInterval)
	for first := l.now(); ; {
		began := l.now()
		if err := g.request(id, args, resp); err != nil {
			return err
		}
		now := l.now()
		if !resp.Success || now-began <= limit {
			return nil
		}
		if now-first > int64(l.cfg.Timeout) {
			return fmt.Errorf("peer: %s: %w: its answers are late", id, ErrTimeout)
		}
	}
}

// feed gives followers here the heartbeats that their leaders did not have to send (rule 3), and notes where leaders do
// not say that they lead. A candidate may have a leader, too: by a TimeoutNow it lost to that one and goes on to know it,
// whatever becomes of it (raft.go, appendEntries), and as long as it does it denies all others its vote.
func (l *Link) feed(groups []*GroupTransport, now int64) {
	every := int64(l.cfg.HeartbeatTimeout / 3)
	for _, g := range groups {
		v := &g.polled
		stands := v.state == raft.Candidate
		if v.since == 0 || v.state != raft.Follower && !stands || v.leader == "" || v.leader == l.cfg.Self || now-v.fed < every {
			continue
		}
		l.mu.Lock()
		p := l.peers[v.leader]
		l.mu.Unlock()
		if p == nil {
			continue
		}
		c, boot := p.claimed(g.group)
		if boot == 0 {
			v.unled = 0 // its signs are late, or it sends none
			continue
		}
		if c.kind != claimLeads || c.term != v.term {
			if v.unled == 0 {
				v.unled = now
			}
			continue
		}
		v.unled = 0
		r, beat := g.raftState(), g.heartbeatHandler()
		if stands || r == nil || beat == nil || !g.feeding.CompareAndSwap(false, true) {
			continue
		}
		v.fed = now
		term, leader := v.term, v.leader
		// Not here: the handler takes Raft's locks, and one group must not hold up the others.
		if !l.goFunc(func() {
			defer g.feeding.Store(false)
			if r.State() != raft.Follower || r.CurrentTerm() != term {
				return
			}
			l.stats.heartbeatsFed.Add(1)
			beat(raft.RPC{
				Command: &raft.AppendEntriesRequest{
					RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(leader), Addr: []byte(leader)},
					Term:      term,
				},
				RespChan: make(chan raft.RPCResponse, 1), // nobody waits: a group that was shut down never answers
			})
		}) {
			g.feeding.Store(false)
		}
	}
}

// acknowledged is the last thing a follower agreed to on a pipeline.
type acknowledged struct {
	args                *raft.AppendEntriesRequest
	index, term, commit uint64
	instance            uint64 // of the follower's group, 0 if unknown
}

// followerInstance is the instance of the follower's group that follows in that term now, by
// the signs of the process at the other end of this pipeline; 0 if there is none.
func (p *pipeline) followerInstance(term uint64) uint64 {
	if p.s.boot == 0 {
		return 0
	}
	c, boot := p.g.link.peer(string(p.id)).claimed(p.g.group)
	if boot != p.s.boot || c.kind != claimFollows || c.term != term {
		return 0
	}
	return c.instance
}

// redundant says whether the follower has agreed to exactly this before and nothing has happened since (rule 2).
func (p *pipeline) redundant(args *raft.AppendEntriesRequest) bool {
	if len(args.Entries) > 0 {
		return false
	}
	p.mu.Lock()
	a, idle := p.acked, p.err == nil && len(p.inFlight) == 0 && len(p.done) == 0
	p.mu.Unlock()
	return idle && a.instance != 0 && a.index == args.PrevLogEntry && a.term == args.PrevLogTerm &&
		a.commit == args.LeaderCommitIndex && a.instance == p.followerInstance(args.Term)
}

// A follower hears that its last entries are committed with the next request, at the latest after Raft's
// CommitTimeout. That is long here, so a pipeline on which nothing follows sends one empty request of its own (rule 4).
const (
	noticeAfter = 20 * time.Millisecond
	mostNotices = 6 // the pause doubles: the last one is more than a second after the acknowledgement
)

// noteAppended remembers what a follower took without a pipeline. The pipeline that Raft opens next tells it the commit index.
func (g *GroupTransport) noteAppended(id raft.ServerID, args *raft.AppendEntriesRequest) {
	n := len(args.Entries)
	if g.link.cfg.HeartbeatTimeout <= 0 || n == 0 {
		return
	}
	// Raft uses args again.
	a := acknowledged{
		args:  &raft.AppendEntriesRequest{RPCHeader: args.RPCHeader, Term: args.Term, Leader: args.Leader},
		index: args.Entries[n-1].Index, term: args.Entries[n-1].Term, commit: args.LeaderCommitIndex,
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.appended == nil {
		g.appended = make(map[raft.ServerID]acknowledged)
	}
	g.appended[id] = a
}

func (g *GroupTransport) takeAppended(id raft.ServerID) (acknowledged, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a, ok := g.appended[id]
	delete(g.appended, id)
	return a, ok
}

func (p *pipeline) noticeLaterLocked() {
	if p.g.link.cfg.HeartbeatTimeout <= 0 {
		return
	}
	p.notices = 0
	if p.notice == nil {
		p.notice = time.AfterFunc(noticeAfter, p.sendNotice)
	} else {
		p.notice.Reset(noticeAfter)
	}
}

// sendNotice tells the follower the leader's commit index, which may be above what the follower has: what
// was not acknowledged must not count as committed there (Raft, section 5.3: min of both), so it is cut.
func (p *pipeline) sendNotice() {
	r := p.g.raftState()
	if r == nil || !p.sending.TryLock() {
		return // what is being sent tells it
	}
	defer p.sending.Unlock()
	p.mu.Lock()
	a := p.acked
	if p.err != nil || len(p.inFlight) > 0 {
		p.mu.Unlock()
		return
	}
	commit := min(r.CommitIndex(), a.index)
	if r.State() != raft.Leader || r.CurrentTerm() != a.args.Term {
		p.mu.Unlock()
		return
	}
	if p.notices++; commit < a.index && p.notices < mostNotices {
		p.notice.Reset(noticeAfter << p.notices)
	}
	if commit <= a.commit {
		p.mu.Unlock()
		return
	}
	args := &raft.AppendEntriesRequest{
		RPCHeader: a.args.RPCHeader, Term: a.args.Term, Leader: a.args.Leader,
		PrevLogEntry: a.index, PrevLogTerm: a.term, LeaderCommitIndex: commit,
	}
	limit := p.g.link.cfg.Timeout
	f := &appendFuture{start: time.Now(), args: args, resp: new(raft.AppendEntriesResponse), answered: make(chan struct{}), own: true, left: 1}
	f.timer = time.AfterFunc(limit, func() { p.fail(fmt.Errorf("%w: no answer to AppendEntries for %v", ErrTimeout, limit)) })
	p.class = classControl
	p.inFlight = append(p.inFlight, f)
	p.mu.Unlock()
	f.instance = p.followerInstance(args.Term)
	b, kind, _ := p.g.encode(args)
	c := p.s.conn(classControl)
	if c == nil {
		p.fail(ErrBroken)
		return
	}
	p.g.link.stats.raftOut.Add(1)
	if _, err := p.s.begin(p.ctx, c, frameRaft, kind, b, nil, func(r reply) { p.answer(f, r) }); err != nil {
		p.fail(err)
	}
}

// late says whether f's answer is a yes to an empty request that was long on its way: Raft would
// take it for contact now (see timelyHeartbeat), and there is nothing else in it.
func (p *pipeline) late(f *appendFuture) bool {
	l := p.g.link
	return l.cfg.HeartbeatTimeout > 0 && len(f.args.Entries) == 0 && f.resp.Success && time.Since(f.start) > signPatience*l.cfg.SignInterval
}

var errSwallowed = errors.New("peer: said already")

// swallowed is the future of a request that was not sent. It is not delivered to Consumer, where
// it would count as contact with the follower.
func swallowed(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) *appendFuture {
	f := &appendFuture{start: time.Now(), args: args, resp: resp, answered: make(chan struct{})}
	f.finish(errSwallowed)
	return f
}

// Stand makes the group here stand for election at once, by a TimeoutNow of this node to itself.
// That skips the pre-vote and makes others vote although they know a leader: it is for
// groups whose leader a majority holds for gone. It waits for Raft to take it, within Config.Timeout.
func (g *GroupTransport) Stand() error {
	return g.inject(&raft.TimeoutNowRequest{RPCHeader: g.ownHeader()})
}

// Yield ends a candidacy here that cannot win, by a request for a vote of the next term that cannot
// win either: a candidate takes no second TimeoutNow before its election timer has run out.
// It costs a term. as must be a voter of the group. It asks as if for a leadership that was handed over: a candidate that
// lost to a leader and still knows it listens to nobody else.
func (g *GroupTransport) Yield(as string, term uint64) error {
	return g.inject(&raft.RequestVoteRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(as), Addr: []byte(as)},
		Term:      term + 1, LeadershipTransfer: true,
	})
}

func (g *GroupTransport) ownHeader() raft.RPCHeader {
	self := []byte(g.link.cfg.Self)
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: self, Addr: self}
}

func (g *GroupTransport) inject(req any) error {
	resp := make(chan raft.RPCResponse, 1)
	timer := time.NewTimer(g.link.cfg.Timeout)
	defer timer.Stop()
	select {
	case g.consumer <- raft.RPC{Command: req, RespChan: resp}:
	case <-g.done:
		return raft.ErrTransportShutdown
	case <-timer.C:
		return fmt.Errorf("%w: the group does not take messages", ErrBusy)
	}
	select {
	case a := <-resp:
		return a.Error
	case <-g.done:
		return raft.ErrTransportShutdown
	case <-timer.C:
		return fmt.Errorf("%w: the group does not answer", ErrBusy)
	}
}

// instances numbers the groups that are opened in this process.
var instances atomic.Uint64
