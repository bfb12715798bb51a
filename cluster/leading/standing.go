package leading

import (
	"slices"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/calls"
)

// Standings says how members of groups here stand.
type Standings struct {
	Self  string                     // this node's identity
	Gone  func(identity string) bool // whether this node holds that one for gone
	Hangs func() bool                // whether an append here does not end
}

// Of looks at a group for the node that asks. A leader that asks who leads does not.
func (n Standings) Of(g Member, asking string) calls.Standing {
	if g == nil || g.Voteless() {
		return calls.Standing{}
	}
	s := calls.Standing{Here: true, Term: g.Term()}
	leader, _ := g.Leader()
	state := g.State()
	s.Free = leader == ""
	s.Follower = state == raft.Follower || state == raft.Candidate && leader != ""
	s.Led = state == raft.Leader || (leader != "" && leader != asking && leader != n.Self && !n.Gone(leader) && !g.Unled())
	s.Voter = state != raft.Shutdown && !n.Hangs() && slices.Contains(g.Voters(), n.Self)
	if g.Stuck() {
		s.Led = false // not by this one, and it does not hear of others
	}
	s.LastIndex, s.LastTerm = g.LastEntry()
	return s
}
