package peer

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

const (
	defaultSignInterval = 100 * time.Millisecond
	defaultSuspectAfter = 500 * time.Millisecond
	// signPatience is how many intervals a sign may be late before nothing is concluded from the one before.
	signPatience = 3
	// giveUp is after how many times the silence that makes a node seem gone its sessions are closed.
	giveUp = 2
	// signBacklog bounds the urgent messages behind which no further sign is put: each would only repeat that the other side does not read.
	signBacklog = 8
	// stuckCandidate is after how long a candidacy counts as lost: raft itself waits for its election timer.
	stuckCandidate = time.Second
	// unledAfter is after how long a group whose leader's node is alive, but does not say that it leads, counts as an orphan.
	unledAfter = 2 * time.Second
)

// Orphan is a group here that has no leader it can rely on: it follows nobody, or a node that this one holds
// for gone or that does not say that it leads, or it has stood for election in vain.
type Orphan struct {
	Group  string
	State  raft.RaftState
	Term   uint64
	Leader string        // the node that it followed; "" if none is known
	For    time.Duration // since it became one, or its state, term or leader changed since
}

// polled is what the pulse saw of a group last; its goroutine owns it.
type polled struct {
	state  raft.RaftState
	term   uint64
	leader string
	since  int64 // link clock: when these last changed
	orphan int64 // link clock: since when it is an orphan, 0 if it is not
	unled  int64 // link clock: since when its leader's signs do not say that it leads, 0 if they do or are not known
	fed    int64 // link clock of the last heartbeat that was given to the group here

	stalled stalled
}

// Watch names the nodes to which a session is kept open and whose silence is
// noticed, whether or not anything is asked of them. It replaces what it named before.
func (l *Link) Watch(identities []string) {
	watched := make(map[string]bool, len(identities))
	for _, id := range identities {
		if id != l.cfg.Self {
			watched[id] = true
		}
	}
	l.mu.Lock()
	same := len(watched) == len(l.watched)
	for id := range watched {
		same = same && l.watched[id]
	}
	l.watched = watched
	l.mu.Unlock()
	if !same {
		for id := range watched {
			l.peer(id)
		}
		l.pulseSoon()
	}
}

// Gone says whether this node holds that one for gone: nothing was heard of it
// for Config.SuspectAfter, or its sessions ended and its address refuses
// connections. It is this node's view alone and may be wrong.
func (l *Link) Gone(identity string) bool {
	l.mu.Lock()
	p := l.peers[identity]
	l.mu.Unlock()
	return p != nil && p.gone.Load()
}

// Reach is what this node can say of its way to another one.
type Reach int

const (
	// Unheard: nothing is heard of it, which is the network's fault or its own, or it hears nothing of this node.
	Unheard Reach = iota
	// Reached: a session is open, and both hear each other.
	Reached
	// Refused: its address refuses connections, so that no process runs there.
	Refused
)

// Reach says how far that node is reached right now, within SuspectAfter and a SignInterval or two.
func (l *Link) Reach(identity string) Reach {
	l.mu.Lock()
	p := l.peers[identity]
	l.mu.Unlock()
	if p == nil {
		return Unheard
	}
	p.mu.Lock()
	open, refused := p.out != nil || p.in != nil, p.refused && p.out == nil && p.in == nil
	p.mu.Unlock()
	switch {
	case refused:
		return Refused
	case !open || p.gone.Load():
		return Unheard
	}
	if suspects, known := l.SuspectedBy(identity); known && slices.Contains(suspects, l.cfg.Self) {
		return Unheard
	}
	return Reached
}

// SuspectedBy gives the nodes that the named node holds for gone, by its last
// sign; known is false if there is none that is fresh.
func (l *Link) SuspectedBy(identity string) (suspects []string, known bool) {
	l.mu.Lock()
	p := l.peers[identity]
	l.mu.Unlock()
	if p == nil {
		return nil, false
	}
	p.signs.mu.Lock()
	defer p.signs.mu.Unlock()
	return p.signs.suspects, p.signs.freshLocked(l)
}

// pulseSoon makes the next round of the pulse begin now.
func (l *Link) pulseSoon() {
	select {
	case l.poke <- struct{}{}:
	default:
	}
}

// longStill is how long this process must have stood still for Awake: on a busy machine it is late now and then.
const longStill = 2 * time.Second

// Awake gives since when this process runs without having stood still for longStill, as it does while it is stopped or its machine
// is paused: what it has not heard before that says nothing. The zero time: since the link was started, as far as is known.
func (l *Link) Awake() time.Time {
	now, last := l.now(), l.pulsed.Load()
	resumed := l.resumed.Load()
	if last != 0 && now-last > int64(longStill) {
		resumed = now // this moment, and the pulse has not noticed yet
	}
	if resumed == 0 {
		return time.Time{}
	}
	return l.start.Add(time.Duration(resumed))
}

// pulse sends signs of life, judges who is gone, gives followers their
// leader's heartbeats and reports orphans.
func (l *Link) pulse() {
	tick := time.NewTicker(l.cfg.SignInterval)
	defer tick.Stop()
	last := l.now()
	l.awake = last
	for {
		select {
		case <-tick.C:
		case <-l.poke:
		case <-l.ctx.Done():
			return
		}
		now := l.now()
		if now-last > int64(signPatience*l.cfg.SignInterval) {
			// This process itself stood still: what it has not heard says nothing yet.
			l.awake = now
			if now-last > int64(longStill) {
				l.resumed.Store(now)
			}
			l.log.Warn("this node stood still", "for", time.Duration(now-last).Round(time.Millisecond))
		}
		last = now
		l.pulsed.Store(now)
		l.round(now)
	}
}

func (l *Link) round(now int64) {
	l.mu.Lock()
	peers := make([]*peerState, 0, len(l.peers))
	for _, p := range l.peers {
		peers = append(peers, p)
	}
	if l.regrouped {
		l.polling, l.regrouped = l.polling[:0], false
		for _, g := range l.groups {
			l.polling = append(l.polling, g)
		}
	}
	groups, closed := l.polling, l.leaving
	l.leaving = nil
	watched := l.watched
	l.mu.Unlock()

	gone := map[string]bool{}
	var suspects []string
	for _, p := range peers {
		if p.tend(now, watched[p.identity]) {
			gone[p.identity] = true
			if len(suspects) < maxSuspects {
				suspects = append(suspects, p.identity)
			}
		}
	}
	sort.Strings(suspects)
	// The echoes are read before the groups: a claim must be true after the sign that it echoes was seen.
	type letter struct {
		p *peerState
		s *session
		c *conn
		sign
	}
	letters := make([]letter, 0, len(peers))
	for _, p := range peers {
		p.mu.Lock()
		s := p.out
		p.mu.Unlock()
		if s == nil || s.version < versionSigns {
			continue
		}
		c := s.conn(classControl)
		if c != nil && c.urgentQueued() >= signBacklog {
			s.behind = true
		} else if c != nil {
			x := letter{p: p, s: s, c: c}
			x.suspects = suspects
			p.signs.mu.Lock()
			if p.signs.from != nil {
				x.echoBoot, x.echoSeq = p.signs.from.boot, p.signs.seq
			}
			p.signs.mu.Unlock()
			letters = append(letters, x)
		}
	}
	changed, orphans := l.poll(groups, gone, now)
	for i := range letters {
		x := &letters[i]
		x.s.news(&x.sign, groups, changed, closed)
		x.p.signs.mu.Lock()
		x.p.signs.sent++
		seq := x.p.signs.sent
		x.p.signs.mu.Unlock()
		l.stats.signsOut.Add(1)
		x.c.sendUrgent(newMessage(frameSign, 0, seq, x.encode()))
	}
	l.feed(groups, now)
	if len(orphans) > 0 && l.cfg.OnOrphans != nil {
		l.cfg.OnOrphans(orphans)
	}
}

// tend keeps a session to a node that is wanted and says whether the node is gone.
func (p *peerState) tend(now int64, watched bool) (gone bool) {
	l := p.link
	p.mu.Lock()
	wanted := watched || (p.in != nil && p.in.version >= versionSigns)
	if wanted && p.out == nil && p.dialing[classControl] == nil && now >= p.retryAt {
		a := &dialAttempt{done: make(chan struct{})}
		p.dialing[classControl] = a
		if !l.goFunc(func() { p.dial(classControl, a) }) {
			p.dialing[classControl] = nil
		}
	}
	if !wanted && p.out == nil {
		p.wantedSince = 0
	} else if p.wantedSince == 0 {
		p.wantedSince = now
	}
	patience := l.cfg.SuspectAfter
	if p.out != nil && p.out.version < versionSigns {
		patience = max(patience, l.cfg.PingTimeout) // it pings less often
	}
	// Who was gone before this process stood still is gone until it is heard of.
	was := p.gone.Load()
	heard, awake := max(p.heard.Load(), p.wantedSince), int64(0)
	if !was {
		heard, awake = max(heard, l.awake), l.awake
	}
	refused := p.refused && p.in == nil && p.out == nil && now-awake > int64(l.cfg.SuspectAfter)
	silent := time.Duration(now - heard)
	gone = p.wantedSince != 0 && (silent > patience || refused)
	out, in := p.out, p.in
	p.mu.Unlock()
	if gone && silent > giveUp*patience {
		// Whoever waits for an answer is told, and whatever arrives in the end is too late.
		err := fmt.Errorf("%w: nothing heard for %v", ErrBroken, silent.Round(time.Millisecond))
		if out != nil {
			out.fail(err)
		}
		if in != nil {
			in.close(err)
		}
	}
	if was := p.gone.Swap(gone); was != gone {
		l.pulseSoon() // the others hear of it now
		if gone {
			l.log.Warn("node seems gone", "node", p.identity, "silent", silent.Round(time.Millisecond), "refused", refused)
		} else {
			l.log.Info("node is back", "node", p.identity)
		}
	}
	return gone
}

// poll looks at every group. The term is read before the leader: if it changes in
// between, the pair names a leader with a term that is too old, which no leader is interested in.
func (l *Link) poll(groups []*GroupTransport, gone map[string]bool, now int64) (changed []*GroupTransport, orphans []Orphan) {
	for _, g := range groups {
		r := g.raftState()
		if r == nil {
			continue
		}
		term := r.CurrentTerm()
		_, id := r.LeaderWithID()
		state, leader := r.State(), string(id)
		v := &g.polled
		members := g.membersChanged.Swap(false)
		if v.state != state || v.term != term || v.leader != leader || v.since == 0 {
			v.state, v.term, v.leader, v.since, v.orphan, v.unled = state, term, leader, now, 0, 0
			changed = append(changed, g)
		} else if members {
			changed = append(changed, g)
		}
		l.wakeStalled(g, r, now)
		unled := v.unled != 0 && now-v.unled >= int64(unledAfter)
		if unled != g.unled.Load() {
			g.unled.Store(unled)
		}
		switch {
		case state == raft.Follower && leader == "", unled && (state == raft.Follower || state == raft.Candidate):
		case gone[leader] && (state == raft.Follower || state == raft.Candidate):
		case state == raft.Candidate && leader == "" && now-v.since >= int64(stuckCandidate):
		default:
			v.orphan = 0
			continue
		}
		if v.orphan == 0 {
			v.orphan = now
		}
		orphans = append(orphans, Orphan{Group: g.group, State: state, Term: term, Leader: leader, For: time.Duration(now - v.orphan)})
	}
	return changed, orphans
}

// wanted is what this node claims of g towards the node with that identity.
func (g *GroupTransport) wanted(identity string) claim {
	v := &g.polled
	switch {
	case v.since == 0 || len(g.group) > maxIdentity:
	case v.state == raft.Follower && v.leader == identity:
		return claim{claimFollows, v.term, g.instance}
	case v.state == raft.Leader && v.leader == g.link.cfg.Self && g.leadsTowards(identity, v.term):
		return claim{claimLeads, v.term, g.instance}
	}
	return claim{}
}

// news fills x with what is to be said of the groups that have changed or were closed, to a new session of all.
func (s *session) news(x *sign, all, changed, closed []*GroupTransport) {
	if s.said == nil {
		s.said = make(said)
		s.behind = true
	}
	if s.behind {
		s.behind = false
		changed, closed = all, nil
		for g := range s.said {
			select {
			case <-g.done:
				closed = append(closed, g)
			default:
			}
		}
	}
	// Withdrawals come first at the other side: a closed group may have been opened anew under its name.
	for _, g := range closed {
		if _, told := s.said[g]; told {
			delete(s.said, g)
			x.withdrawn = append(x.withdrawn, g.group)
		}
	}
	for _, g := range changed {
		w := g.wanted(s.identity)
		was, told := s.said[g]
		switch {
		case w == claim{} && told:
			x.withdrawn = append(x.withdrawn, g.group)
			delete(s.said, g)
		case w != claim{} && was != w:
			x.claims = append(x.claims, namedClaim{g.group, w})
			s.said[g] = w
		}
	}
}

// isRefused says whether nobody listens at the address that was dialed.
func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
