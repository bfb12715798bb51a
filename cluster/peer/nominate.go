package peer

import (
	"context"
	"fmt"

	"github.com/hashicorp/raft"
)

// Nominate tells a voter of the group on another node to stand for election at once, as a leader does that gives its
// leadership away (Raft dissertation, section 3.10). hashicorp/raft's own transfer refuses proposals from its begin until
// an election timeout has passed if that node hangs. This only sends the message: the leader leads on, and its Raft
// is not even asked, until it hears of a newer term. The error may come although the message is taken.
func (g *GroupTransport) Nominate(ctx context.Context, identity string) error {
	parts, kind, _ := g.encode(&raft.TimeoutNowRequest{RPCHeader: g.ownHeader()})
	l := g.link
	l.stats.raftOut.Add(1)
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	s, c, err := l.peer(identity).obtain(ctx, classControl)
	if err == nil {
		var r reply
		if r, err = s.roundTrip(ctx, c, frameRaft, kind, parts); err == nil {
			err = r.raft(new(raft.TimeoutNowResponse))
		}
	}
	if err != nil {
		return fmt.Errorf("peer: %s: %w", identity, err)
	}
	return nil
}
