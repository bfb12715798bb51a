package coordinator

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm/groups"
)

// leaveGroup answers LeaveGroup when it is replicated who is gone. Else the next coordinator would
// wait for a member that was told that it has left, a session's time, and again with each that
// follows sooner than that. If that was the last member, the group can be deleted or reset then
// wherever its coordinator is.
//
// Who hears that this is not known asks again, and hears that it is no member: that is replicated
// before it is said, too.
func (c *Coordinator) leaveGroup(ctx context.Context, req *kmsg.LeaveGroupRequest) (kmsg.Response, error) {
	if code := checkGroupID(req.Group); code != 0 {
		return refuse(req, code), nil
	}
	resp := req.ResponseKind().(*kmsg.LeaveGroupResponse)
	g := c.lockGroup(req.Group, false)
	left := false
	for _, m := range req.Members {
		r := kmsg.NewLeaveGroupResponseMember()
		r.MemberID, r.InstanceID, r.ErrorCode = m.MemberID, m.InstanceID, kerr.UnknownMemberID.Code
		if g != nil {
			r.ErrorCode = g.leave(m)
		}
		left = left || r.ErrorCode == 0
		resp.Members = append(resp.Members, r)
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
	saved := g.saveLeft()
	c.unlockGroup(g)
	if saved == nil {
		return resp, nil
	}
	if err := saved.wait(ctx); err != nil {
		return nil, err
	}
	switch code := c.codeOf(saved.err); code {
	case 0:
		return resp, nil
	case kerr.NotCoordinator.Code:
		return nil, fmt.Errorf("%w: %w", ErrNotLeader, saved.err) // who leaves asks the next one
	default:
		return refuse(req, code), nil
	}
}

// goneSession is the session timeout, in ms, with which State has a member that has left: whoever
// loads the group finds it expired, and has the others join again.
const goneSession = 1

// saveLeft replicates that members of the generation that State knows are members no more; nil: it
// knows that.
func (g *group) saveLeft() *write {
	if cmd := g.left(); cmd.Len() == 0 && !g.writing {
		return nil
	}
	if n := len(g.queue); n > 0 && g.queue[n-1].left {
		return g.queue[n-1] // where many leave at once the group is not written for each
	}
	w := g.write(groups.Changes{}, nil)
	w.left = true
	return w
}

// left is what is to be replicated of those who have left the generation that State has. Whatever
// was queued before is to be in State: else an older generation would take the place of a newer
// one.
func (g *group) left() (cmd groups.Changes) {
	meta, _ := g.c.cfg.State.lookUp(g.id)
	if meta == nil {
		return cmd
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
	if changed {
		cmd.SetGroup(g.id, left)
	}
	return cmd
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
