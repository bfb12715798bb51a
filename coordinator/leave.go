package coordinator

import (
	"context"
	"errors"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm/groups"
)

// leaveGroup answers LeaveGroup when it is replicated who is gone. Else the next coordinator would
// wait for a member that was told that it has left, a session's time, and again with each that
// follows sooner than that. If that was the last member, the group can be deleted or reset then
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
	var saved *write
	switch {
	case !left:
	case g.state != empty:
		saved = g.saveLeft()
	case len(g.queue) > 0:
		saved = g.queue[len(g.queue)-1]
	}
	c.unlockGroup(g)
	if saved != nil {
		if err := saved.wait(ctx); err != nil {
			return nil, err
		}
		if errors.Is(saved.err, ErrNotLeader) {
			return nil, saved.err // who leaves asks the next one
		}
	}
	return resp, nil
}

// goneSession is the session timeout, in ms, with which State has a member that has left: whoever
// loads the group finds it expired, and has the others join again.
const goneSession = 1

// saveLeft replicates that members of the generation that State knows have left it; nil: it knows
// none of them, or that they have.
func (g *group) saveLeft() *write {
	meta, _ := g.c.cfg.State.lookUp(g.id)
	if meta == nil {
		return nil
	}
	left, changed := *meta, false
	left.Members = slices.Clone(meta.Members)
	for i := range left.Members {
		m := &left.Members[i]
		here := g.byID[m.ID] != nil || m.InstanceID != nil && g.instances[*m.InstanceID] != nil
		if !here && m.Session != goneSession {
			m.Session, changed = goneSession, true
		}
	}
	if !changed {
		return nil
	}
	var cmd groups.Changes
	cmd.SetGroup(g.id, left)
	if n := len(g.queue); n > 0 && g.queue[n-1].left {
		g.queue[n-1].command = cmd // where many leave at once the group is not written for each
		return g.queue[n-1]
	}
	w := g.write(cmd, nil)
	w.left = true
	return w
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
