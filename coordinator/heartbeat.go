package coordinator

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm/groups"
)

// checkGroupID refuses ids of no group that has members. Offsets may be committed
// to a group whose id is empty; old clients do.
func checkGroupID(id string) int16 {
	if id == "" || len(id) > groups.MaxGroupID {
		return kerr.InvalidGroupID.Code
	}
	return 0
}

func (c *Coordinator) heartbeat(req *kmsg.HeartbeatRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
	if resp.ErrorCode = checkGroupID(req.Group); resp.ErrorCode != 0 {
		return resp
	}
	g := c.lockGroup(req.Group, false)
	if g == nil {
		resp.ErrorCode = kerr.UnknownMemberID.Code
		return resp
	}
	defer c.unlockGroup(g)
	if resp.ErrorCode = g.validate(req.MemberID, req.InstanceID); resp.ErrorCode != 0 {
		return resp
	}
	if req.Generation != g.generation {
		resp.ErrorCode = kerr.IllegalGeneration.Code
		return resp
	}
	g.keepAlive(g.byID[req.MemberID])
	if g.state == preparing {
		resp.ErrorCode = kerr.RebalanceInProgress.Code
	}
	return resp
}
