package election

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlink"
)

// Orphan is a raft group here that has no leader it can rely on: it follows nobody, or a node that
// this one holds for gone or that does not say that it leads, or it has stood for election in vain.
type Orphan struct {
	Group  string
	State  raft.RaftState
	Term   uint64
	Leader string        // the node that it followed; "" if none is known
	For    time.Duration // since it became one, or its state, term or leader changed since
}

// polled is what run saw of a raft group last; its goroutine owns it.
type polled struct {
	state  raft.RaftState
	term   uint64
	leader string
	since  int64 // link clock: when these last changed
	orphan int64 // link clock: since when it is an orphan, 0 if it is not
	// link clock: since when its leader's beacons do not say so; 0: they do, or are late
	unled int64
	fed   int64 // link clock of the last heartbeat that was given to the raft group here
	led   int64 // link clock: when its leader's beacons were last seen to say so
	// link clock: since when no majority follows the leader here, by beacons; 0: one does
	unfollowed int64
	hurried    bool             // its election timer is short
	introduced map[string]int64 // link clock: when a follower that does not follow was last told

	stall raftlink.Stall
}

// glance is what a raft group is recognised by in which there is nothing to do as long as it stays
// so. Most are so nearly always, and all are looked at ten times a second: it lies side by side
// with those of the others, and little else is read.
type glance struct {
	r      raftlink.Raft
	calm   bool
	state  raft.RaftState
	term   uint64
	commit uint64 // of a leader, the last entry, too
	// settled is the epoch in which attend found nothing to do for it; 0: none
	settled uint64
}

// look takes a glance at m, whose Raft is r and was polled in that term. was is the one before, if
// nothing has changed for other nodes since.
func (g *glance) look(m *Member, r raftlink.Raft, term uint64, was glance) {
	v := &m.polled
	*g = glance{r: r, state: v.state, term: term, settled: was.settled}
	switch v.state {
	case raft.Follower:
		g.calm = v.leader != "" && v.unled == 0 && !v.hurried
	case raft.Leader:
		g.commit = r.CommitIndex()
		g.calm = r.LastIndex() == g.commit && !v.hurried
	}
	if *g != was {
		g.settled = 0
	}
}

// same says whether nothing has changed since it was looked at. A follower's leader is not read: in
// one term it follows one, and leaves it by leaving its state or term.
func (g *glance) same(m *Member) bool {
	return g.calm && g.r.CurrentTerm() == g.term && g.r.State() == g.state &&
		(g.state == raft.Follower || g.r.CommitIndex() == g.commit && g.r.LastIndex() == g.commit && !m.beats.changed.Load())
}

// poll looks at every group. The term is read before the leader: if it changes in
// between, the pair names a leader with a term that is too old, which no leader is interested in.
func (b *Beacons) poll(groups []*Member, gone map[string]bool, now int64) (changed []*Member, orphans []Orphan) {
	all := len(gone) > 0 || now-b.polledAll >= int64(time.Second)
	if all {
		b.polledAll = now
	}
	for i, m := range groups {
		g := &b.glances[i]
		if !all && g.same(m) {
			continue
		}
		was := *g
		g.calm = false
		r := m.Raft()
		if r == nil {
			continue
		}
		term := r.CurrentTerm()
		_, id := r.LeaderWithID()
		state, leader := r.State(), string(id)
		v := &m.polled
		beats := m.beats.changed.Swap(false)
		if v.state != state || v.term != term || v.leader != leader || v.since == 0 {
			v.state, v.term, v.leader, v.since, v.orphan, v.unled, v.led = state, term, leader, now, 0, 0, 0
			changed = append(changed, m)
		} else if beats {
			changed = append(changed, m)
			was = glance{}
		}
		if state != raft.Follower || v.hurried {
			m.hurry(r, state == raft.Candidate && leader != "" && now-v.since >= int64(stuckCandidate))
		}
		m.WakeStalled(&v.stall, r, state, now)
		unled := v.unled != 0 && now-v.unled >= int64(unledAfter)
		if unled != m.unled.Load() {
			m.unled.Store(unled)
		}
		switch {
		case state == raft.Follower && leader == "", unled && (state == raft.Follower || state == raft.Candidate):
		case gone[leader] && (state == raft.Follower || state == raft.Candidate):
		case state == raft.Candidate && leader == "" && now-v.since >= int64(stuckCandidate):
		default:
			v.orphan = 0
			g.look(m, r, term, was)
			continue
		}
		if v.orphan == 0 {
			v.orphan = now
		}
		orphans = append(orphans, Orphan{Group: m.RaftGroup(), State: state, Term: term, Leader: leader, For: time.Duration(now - v.orphan)})
	}
	return changed, orphans
}
