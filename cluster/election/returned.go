package election

import (
	"time"

	"github.com/hashicorp/raft"
)

// Raft sends to a follower when something is proposed, and else once per CommitTimeout, which is
// long. So that a follower that was away has what it missed soon, a leader is woken when a node's
// beacons begin to say that a raft group there follows it, unless it replicates to just that
// follower already (docs/peer-link.md, rule 5).

const (
	// returnedAfter is how long after its first claim a follower is looked at: a new leader has
	// opened its pipelines by then. The pause then doubles, up to returnedMost.
	returnedAfter = 300 * time.Millisecond
	returnedMost  = 30 * time.Second
)

// returned is a follower on another node that has just said whom it follows.
type returned struct {
	m       *Member
	to      string // identity
	term    uint64
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
				b.returned = append(b.returned, returned{m, n.identity, c.term, now + int64(returnedAfter), returnedAfter, c})
			}
		}
		b.members.mu.Unlock()
	}
	kept := b.returned[:0]
	for _, x := range b.returned {
		if now < x.look {
			kept = append(kept, x)
			continue
		}
		// Another claim has an entry of its own.
		n := b.nodes.known(x.to)
		r := x.m.Raft()
		if n == nil || r == nil || r.State() != raft.Leader || r.CurrentTerm() != x.term {
			continue
		}
		if c, boot := b.nodes.claimed(n, x.m.RaftGroup()); boot != 0 && c != x.claimed {
			continue
		} else if boot != 0 {
			if x.m.Replicates(raft.ServerID(x.to), x.term) {
				continue
			}
			x.m.Wake()
		}
		x.pause = min(2*x.pause, returnedMost)
		x.look = now + int64(x.pause)
		kept = append(kept, x)
	}
	clear(b.returned[len(kept):])
	b.returned = kept
}
