package election

import (
	"context"

	"github.com/hashicorp/raft"
)

// Stand makes the raft group here stand for election at once, by a TimeoutNow of this node to
// itself. That skips the pre-vote and makes others vote although they know a leader: it is for raft
// groups whose leader a majority holds for gone. It waits for Raft to take it, within
// Config.Timeout.
func (m *Member) Stand() error {
	return m.Inject(&raft.TimeoutNowRequest{RPCHeader: m.ownHeader()})
}

// Yield ends a candidacy here that cannot win, by a request for a vote of the next term that cannot
// win either: a candidate takes no second TimeoutNow before its election timer has run out. It
// costs a term. as must be a voter of the group. It asks as if for a leadership that was handed
// over: a candidate that lost to a leader and still knows it listens to nobody else.
func (m *Member) Yield(as string, term uint64) error {
	return m.Inject(&raft.RequestVoteRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(as), Addr: []byte(as)},
		Term:      term + 1, LeadershipTransfer: true,
	})
}

func (m *Member) ownHeader() raft.RPCHeader {
	self := []byte(m.common.link.Self())
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: self, Addr: self}
}

// Nominate tells a voter of the raft group on another node to stand for election at once, as a
// leader does that gives its leadership away (Raft dissertation, section 3.10). hashicorp/raft's
// own transfer refuses proposals from its begin until an election timeout has passed if that node
// hangs. This only sends the message: the leader leads on, and its Raft is not even asked, until it
// hears of a newer term. The error may come although the message is taken.
func (m *Member) Nominate(ctx context.Context, identity string) error {
	ctx, cancel := context.WithTimeout(ctx, m.common.timeout)
	defer cancel()
	return m.Exchange(ctx, raft.ServerID(identity), &raft.TimeoutNowRequest{RPCHeader: m.ownHeader()}, new(raft.TimeoutNowResponse))
}
