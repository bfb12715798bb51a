package election

import (
	"time"

	"github.com/hashicorp/raft"
)

// Raft sends to a follower when something is proposed, and else once per CommitTimeout, which is
// long. So that a follower that was away, or could not take what was sent, has what it missed soon,
// a leader is woken when a node's beacons begin to say that a raft group there follows it, and when
// a follower is found to which no pipeline is open (attend), unless it replicates to just that
// follower already (docs/peer-link.md, rule 5).

const (
	// returnedAfter is how long after its first claim a follower is looked at: a new leader has
	// opened its pipelines by then. The pause then doubles, up to returnedMost.
	returnedAfter = 300 * time.Millisecond
	returnedMost  = 30 * time.Second
)

// follower is one of a raft group that is led here.
type follower struct {
	m  *Member
	to string // identity
}

// returned is what was said by a follower that may have to be sent to.
type returned struct {
	look    int64 // link clock
	pause   time.Duration
	claimed claim
}

// greet notes the followers that nodes have begun to speak for, and has leaders here send to those
// they do not replicate to.
func (b *Beacons) greet(now int64) {
	for _, n := range b.nodes.all() {
		news := n.beacons.news()
		if len(news) == 0 {
			continue
		}
		b.members.mu.Lock()
		for group, c := range news {
			if m := b.members.byName[group]; m != nil {
				b.returned[follower{m, n.identity}] = returned{now + int64(returnedAfter), returnedAfter, c}
			}
		}
		b.members.mu.Unlock()
	}
	for f, x := range b.returned {
		if now < x.look {
			continue
		}
		n := b.nodes.known(f.to)
		r := f.m.Raft()
		if n == nil || r == nil || r.State() != raft.Leader || r.CurrentTerm() != x.claimed.term {
			delete(b.returned, f)
			continue
		}
		if c, boot := b.nodes.claimed(n, f.m.RaftGroup()); boot != 0 {
			if c != x.claimed || f.m.Replicates(raft.ServerID(f.to), c.term) {
				delete(b.returned, f)
				continue
			}
			f.m.Wake()
		}
		x.pause = min(2*x.pause, returnedMost)
		x.look = now + int64(x.pause)
		b.returned[f] = x
	}
}

// replicating says whether something is replicated to a follower that claims c, and has greet look
// at it where it is not so.
func (b *Beacons) replicating(m *Member, id string, c claim, now int64) bool {
	f := follower{m, id}
	if x, ok := b.returned[f]; ok && x.claimed == c {
		return false
	}
	if m.Replicates(raft.ServerID(id), c.term) {
		return true
	}
	b.returned[f] = returned{now + int64(returnedAfter), returnedAfter, c}
	return false
}
