package coordinator

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm/groups"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// syncGroup answers SyncGroup: at once, or when the leader's assignment is
// replicated.
func (c *Coordinator) syncGroup(ctx context.Context, req *kmsg.SyncGroupRequest) (kmsg.Response, error) {
	if code := checkGroupID(req.Group); code != 0 {
		return refuse(req, code), nil
	}
	g := c.lockGroup(req.Group, false)
	if g == nil {
		return refuse(req, kerr.UnknownMemberID.Code), nil
	}
	answer := make(chan synced, 1)
	g.handleSync(req, answer)
	c.unlockGroup(g)
	locks.MayWait("the members of a group")
	select {
	case a := <-answer:
		return a.response(req), nil
	case <-c.tenure.Context().Done():
		return refuse(req, kerr.NotCoordinator.Code), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (g *group) handleSync(req *kmsg.SyncGroupRequest, answer chan synced) {
	code := g.validate(req.MemberID, req.InstanceID)
	switch {
	case g.state == empty:
		code = kerr.UnknownMemberID.Code
	case code != 0:
	case req.Generation != g.generation:
		code = kerr.IllegalGeneration.Code
	case req.ProtocolType != nil && *req.ProtocolType != g.protocolType, req.Protocol != nil && *req.Protocol != g.protocol:
		code = kerr.InconsistentGroupProtocol.Code
	case g.state == preparing:
		code = kerr.RebalanceInProgress.Code
	}
	if code != 0 {
		answer <- synced{err: code}
		return
	}
	m := g.byID[req.MemberID]
	delete(g.unsynced, m.id)
	if len(g.unsynced) == 0 {
		g.sync.Stop()
		g.sync = nil
	}
	if g.state == stable {
		answer <- g.assigned(m)
		return
	}
	m.answerSync(synced{err: kerr.RebalanceInProgress.Code}) // superseded
	m.sync = answer
	if m.id == g.leader && !g.assigning { // who lost the answer and asks again is told the first
		g.assigns(req)
	}
}

func (g *group) assigned(m *member) synced {
	return synced{protocolType: g.protocolType, protocol: g.protocol, assignment: m.assignment}
}

// assigns replicates what the leader assigned, and tells the members then.
func (g *group) assigns(req *kmsg.SyncGroupRequest) {
	assignments := make(map[string][]byte, len(g.members))
	size := g.bytes
	for _, a := range req.GroupAssignment {
		if m := g.byID[a.MemberID]; m != nil {
			if old, twice := assignments[m.id]; twice {
				size -= len(old)
			}
			size += len(a.MemberAssignment)
			assignments[m.id] = append([]byte{}, a.MemberAssignment...)
		}
	}
	if size > MaxGroupBytes {
		g.assignmentFailed(kerr.UnknownServerError.Code)
		return
	}
	g.assigning = true
	generation := g.generation
	replicated := g.replicated(assignments)
	replicated.Since = time.Now().UnixMilli()
	var cmd groups.Changes
	cmd.SetGroup(g.id, replicated)
	g.write(cmd, func(err error) {
		switch {
		case g.state != completing || g.generation != generation: // another rebalance began
		case err != nil:
			g.assignmentFailed(g.c.codeOf(err))
		default:
			g.enter(stable)
			for _, m := range g.members {
				g.assign(m, assignments[m.id])
				if m.answerSync(g.assigned(m)) {
					g.keepAlive(m)
				}
			}
		}
	})
}

// assignmentFailed tells who waits and begins again.
func (g *group) assignmentFailed(code int16) {
	for _, m := range g.members {
		g.assign(m, nil)
		if m.answerSync(synced{err: code}) {
			g.keepAlive(m)
		}
	}
	g.prepareRebalance("the assignment was not saved")
}
