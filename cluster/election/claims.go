package election

import (
	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/link/wire"
)

// said is what a session's other side was told and still believes.
type said map[*Member]claim

// told is what another node was told over the session that is open to it.
type told struct {
	session *link.Session
	said    said
	behind  bool // said may be wrong
}

// wanted is what this node claims of m towards the node with that identity.
func (m *Member) wanted(identity string) claim {
	v := &m.polled
	switch {
	case v.since == 0 || len(m.RaftGroup()) > wire.MaxName:
	case v.state == raft.Follower && v.leader == identity:
		return claim{claimFollows, v.term, m.instance}
	case v.state == raft.Leader && v.leader == m.common.link.Self() && m.beats.towards(raft.ServerID(identity), v.term):
		return claim{claimLeads, v.term, m.instance}
	}
	return claim{}
}

// news fills x with what is to be said to that node of the raft groups that have changed or were
// closed, on a new session of all.
func (t *told) news(x *beacon, identity string, all, changed, closed []*Member) {
	if t.behind {
		t.behind = false
		changed, closed = all, nil
		for m := range t.said {
			select {
			case <-m.Done():
				closed = append(closed, m)
			default:
			}
		}
	}
	// Withdrawals come first at the other side: a closed raft group may have been opened anew under
	// its name.
	for _, m := range closed {
		if _, told := t.said[m]; told {
			delete(t.said, m)
			x.withdrawn = append(x.withdrawn, m.RaftGroup())
		}
	}
	for _, m := range changed {
		w := m.wanted(identity)
		was, told := t.said[m]
		switch {
		case w == claim{} && told:
			x.withdrawn = append(x.withdrawn, m.RaftGroup())
			delete(t.said, m)
		case w != claim{} && was != w:
			x.claims = append(x.claims, namedClaim{m.RaftGroup(), w})
			t.said[m] = w
		}
	}
}
