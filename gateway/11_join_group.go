package gateway

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/security/acl"
)

// JoinGroup, versions 0 to 9, SyncGroup, versions 0 to 5, Heartbeat, versions 0 to 4, and
// LeaveGroup, versions 0 to 5: the classic protocol of consumer groups.
//
// Kept: what Kafka's coordinator does, static members (KIP-345), member ids that are given before
// joining (KIP-394), skipped assignments (KIP-814). JoinGroup and SyncGroup wait for the other
// members, as long as the rebalance timeout allows; behind them other answers of that connection
// wait, which is why clients have a connection for their coordinator.
//
// Left out: the protocol of KIP-848.

func handleJoinGroup(r *request) {
	req := r.body.(*kmsg.JoinGroupRequest)
	if !r.mayGroup(req.Group) {
		r.refuseMember()
		return
	}
	limit := time.Duration(max(req.RebalanceTimeoutMillis, req.SessionTimeoutMillis, 0))*time.Millisecond + 5*time.Minute + coordinateTimeout
	r.asked(min(limit, maxGroupWait), []string{req.Group}, func(ctx context.Context) {
		ctx, end := r.whileMayGroup(ctx, req.Group)
		defer end()
		answer, err := r.coordinate(ctx, coordinator.ShardOf(req.Group), req)
		if r.lost(req.Group) {
			return
		}
		resp, _ := answer.(*kmsg.JoinGroupResponse)
		if err != nil {
			resp = kmsg.NewPtrJoinGroupResponse()
			resp.Version = r.header.Version
			resp.Generation, resp.MemberID, resp.ErrorCode = -1, req.MemberID, r.coordinatorCode(err)
		}
		r.note(resp.ErrorCode)
		size := 256
		for _, m := range resp.Members {
			size += 64 + len(m.MemberID) + len(m.ProtocolMetadata)
		}
		r.answerSized(resp, size)
	})
}

func handleSyncGroup(r *request) {
	req := r.body.(*kmsg.SyncGroupRequest)
	if !r.mayGroup(req.Group) {
		r.refuseMember()
		return
	}
	r.asked(maxGroupWait, []string{req.Group}, func(ctx context.Context) {
		ctx, end := r.whileMayGroup(ctx, req.Group)
		defer end()
		answer, err := r.coordinate(ctx, coordinator.ShardOf(req.Group), req)
		if r.lost(req.Group) {
			return
		}
		resp, _ := answer.(*kmsg.SyncGroupResponse)
		if err != nil {
			resp = kmsg.NewPtrSyncGroupResponse()
			resp.Version = r.header.Version
			resp.ErrorCode = r.coordinatorCode(err)
		}
		r.note(resp.ErrorCode)
		r.answerSized(resp, 128+len(resp.MemberAssignment))
	})
}

func handleHeartbeat(r *request) {
	req := r.body.(*kmsg.HeartbeatRequest)
	if !r.mayGroup(req.Group) {
		r.refuseMember()
		return
	}
	r.asked(coordinateTimeout, []string{req.Group}, func(ctx context.Context) {
		answer, err := r.coordinate(ctx, coordinator.ShardOf(req.Group), req)
		resp, _ := answer.(*kmsg.HeartbeatResponse)
		if err != nil {
			resp = kmsg.NewPtrHeartbeatResponse()
			resp.Version = r.header.Version
			resp.ErrorCode = r.coordinatorCode(err)
		}
		r.note(resp.ErrorCode)
		r.answer(resp)
	})
}

func handleLeaveGroup(r *request) {
	req := r.body.(*kmsg.LeaveGroupRequest)
	if !r.mayGroup(req.Group) {
		r.refuseMember()
		return
	}
	single := req.Version < 3
	if single { // one member, named beside the list that came later
		m := kmsg.NewLeaveGroupRequestMember()
		m.MemberID = req.MemberID
		req.Members = []kmsg.LeaveGroupRequestMember{m}
	}
	r.asked(coordinateTimeout, []string{req.Group}, func(ctx context.Context) {
		answer, err := r.coordinate(ctx, coordinator.ShardOf(req.Group), req)
		resp, _ := answer.(*kmsg.LeaveGroupResponse)
		if err != nil {
			resp = kmsg.NewPtrLeaveGroupResponse()
			resp.Version = r.header.Version
			resp.ErrorCode = r.coordinatorCode(err)
		}
		if single && resp.ErrorCode == 0 && len(resp.Members) == 1 {
			resp.ErrorCode = resp.Members[0].ErrorCode
		}
		r.note(resp.ErrorCode)
		r.answer(resp)
	})
}

// whileMayGroup gives a context that also ends when the caller has no right to the group any more.
// end must be called.
func (r *request) whileMayGroup(ctx context.Context, group string) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancel(ctx)
	if r.caller.everything() {
		return ctx, cancel
	}
	s := r.conn.server
	over := make(chan struct{})
	s.listener.Go(func() {
		defer close(over)
		for {
			changed := s.catalog.CatalogChanged()
			if !r.sees(r.needs().group, acl.Group, group) {
				cancel()
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	})
	return ctx, func() { cancel(); <-over }
}

// lost says whether the caller has lost its right to the group while it waited; it is answered
// then.
func (r *request) lost(group string) bool {
	if r.mayGroup(group) {
		return false
	}
	r.refuseMember()
	return true
}

// refuseMember answers a member who has no right to the group.
func (r *request) refuseMember() {
	code := r.fail(errGroupDenied)
	resp := r.body.ResponseKind()
	switch resp := resp.(type) {
	case *kmsg.JoinGroupResponse:
		resp.Generation, resp.MemberID, resp.ErrorCode = -1, r.body.(*kmsg.JoinGroupRequest).MemberID, code
	case *kmsg.SyncGroupResponse:
		resp.ErrorCode = code
	case *kmsg.HeartbeatResponse:
		resp.ErrorCode = code
	case *kmsg.LeaveGroupResponse:
		resp.ErrorCode = code
	}
	resp.SetVersion(r.header.Version)
	r.answer(resp)
}
