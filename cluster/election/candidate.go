package election

import (
	"slices"

	"github.com/hashicorp/raft"
)

// Newcomer says that this member, which is about to open the raft group with nothing, was in it
// before and has let go of what it had. It has no vote until it has a configuration, which comes
// from the raft group's leader: hashicorp/raft gives its vote to anyone as long as it has none, and
// an old configuration may count it as a voter. It must be called before Raft begins.
func (m *Member) Newcomer() { m.newcomer.Store(true) }

// Voteless says that the raft group here is that of a newcomer that has no configuration yet.
func (m *Member) Voteless() bool {
	if !m.newcomer.Load() {
		return false
	}
	r := m.Raft()
	return r == nil || len(r.GetConfiguration().Configuration().Servers) == 0
}

// admitCandidate prepares a request for a vote for Raft; false means that nobody has a vote here.
//
// Who may lead is decided by terms and logs. hashicorp/raft also refuses candidates that are no
// voters in the configuration that it knows, so that servers that were removed disturb nobody. But
// that configuration may be old (Raft dissertation, section 4.1: a server grants votes whether or
// not the candidate is in its configuration): a voter that was away while another was taken in
// would refuse the only one that can win, for ever. So where no leader is relied on, a candidate is
// presented as a voter that is known here.
func (m *Member) admitCandidate(req any) bool {
	var header *raft.RPCHeader
	switch req := req.(type) {
	case *raft.RequestVoteRequest:
		header = &req.RPCHeader
	case *raft.RequestPreVoteRequest:
		header = &req.RPCHeader
	default:
		return true
	}
	if m.Voteless() {
		return false
	}
	r := m.Raft()
	if r == nil {
		return true
	}
	servers := r.GetConfiguration().Configuration().Servers
	isVoter := func(s raft.Server) bool { return s.Suffrage == raft.Voter }
	if slices.ContainsFunc(servers, func(s raft.Server) bool { return isVoter(s) && string(s.ID) == string(header.ID) }) {
		return true
	}
	_, id := r.LeaderWithID()
	if leader := string(id); leader == "" || leader != m.common.link.Self() && (m.common.nodes.Gone(leader) || m.Unled()) {
		if i := slices.IndexFunc(servers, isVoter); i >= 0 {
			header.ID = []byte(servers[i].ID) // Raft compares candidates by their address
		}
	}
	return true
}
