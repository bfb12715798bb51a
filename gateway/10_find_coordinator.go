package gateway

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// FindCoordinator, versions 0 to 6; several keys at once from 4 on (KIP-699).
//
// There is one broker, and it coordinates every group. It is named for transactional
// ids as well: whoever asks it for a producer id then hears that there are no
// transactions, which is final, while an error here would be asked about again for ever.
// Share groups are not served.

func handleFindCoordinator(r *request) {
	req := r.body.(*kmsg.FindCoordinatorRequest)
	resp := req.ResponseKind().(*kmsg.FindCoordinatorResponse)
	const group, transaction = 0, 1
	known := req.CoordinatorType == group || req.CoordinatorType == transaction
	if req.Version < 4 {
		resp.NodeID, resp.Host, resp.Port = BrokerID, r.session.broker.host, r.session.broker.port
		if !known {
			resp.ErrorCode, resp.NodeID, resp.Host, resp.Port = r.note(kerr.InvalidRequest.Code), -1, "", -1
		}
		r.answer(resp)
		return
	}
	for _, key := range req.CoordinatorKeys {
		c := kmsg.NewFindCoordinatorResponseCoordinator()
		c.Key, c.NodeID, c.Host, c.Port = key, BrokerID, r.session.broker.host, r.session.broker.port
		if !known {
			c.ErrorCode, c.NodeID, c.Host, c.Port = r.note(kerr.InvalidRequest.Code), -1, "", -1
		}
		resp.Coordinators = append(resp.Coordinators, c)
	}
	r.answer(resp)
}
