package coordinator

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// leaveGroup answers LeaveGroup. If that was the last member, the answer
// waits until that is replicated, so that the group can be deleted or reset then
// wherever its coordinator is.
func (c *Coordinator) leaveGroup(ctx context.Context, req *kmsg.LeaveGroupRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.LeaveGroupResponse)
	if resp.ErrorCode = checkGroupID(req.Group); resp.ErrorCode != 0 {
		return resp, nil
	}
	members := req.Members
	if len(members) == 0 && req.MemberID != "" {
		members = []kmsg.LeaveGroupRequestMember{{MemberID: req.MemberID}} // v0 to v2
	}
	g := c.lockGroup(req.Group, false)
	left := false
	for _, m := range members {
		r := kmsg.NewLeaveGroupResponseMember()
		r.MemberID, r.InstanceID, r.ErrorCode = m.MemberID, m.InstanceID, kerr.UnknownMemberID.Code
		if g != nil {
			r.ErrorCode = g.leave(m)
		}
		left = left || r.ErrorCode == 0
		resp.Members = append(resp.Members, r)
	}
	if len(req.Members) == 0 && len(resp.Members) == 1 {
		resp.ErrorCode = resp.Members[0].ErrorCode
	}
	if g == nil {
		return resp, nil
	}
	if left {
		switch g.state {
		case stable, completing:
			g.prepareRebalance("members left")
		default:
			g.maybeCompleteJoin()
		}
	}
	var last *write
	if left && g.state == empty && len(g.queue) > 0 {
		last = g.queue[len(g.queue)-1]
	}
	c.unlockGroup(g)
	if last != nil {
		if err := last.wait(ctx); err != nil {
			return nil, err
		}
	}
	return resp, nil
}

// leave takes one member out and gives its error code. The rebalance is the
// caller's.
func (g *group) leave(req kmsg.LeaveGroupRequestMember) int16 {
	id := req.MemberID
	switch {
	case id == "":
		// An administrator removes a static member by its name.
		if req.InstanceID == nil || g.instances[*req.InstanceID] == nil {
			return kerr.UnknownMemberID.Code
		}
		id = g.instances[*req.InstanceID].id
	case g.forgetPending(id):
		return 0
	default:
		if code := g.validate(id, req.InstanceID); code != 0 {
			return code
		}
	}
	reason := ""
	if req.Reason != nil {
		reason = cut(*req.Reason, 255)
	}
	m := g.byID[id]
	g.c.log.Info("member left consumer group", "group", g.id, "member", id, "client", m.clientID, "reason", reason)
	g.remove(m, kerr.UnknownMemberID.Code)
	return 0
}
