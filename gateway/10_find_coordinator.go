package gateway

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
)

// FindCoordinator, versions 0 to 6; several keys at once from 4 on (KIP-699).
//
// The one broker coordinates every group and every transactional id; where nodes are shown
// (brokers.go) it is the one that leads the shard. Share groups are not served.

func handleFindCoordinator(r *request) {
	req := r.body.(*kmsg.FindCoordinatorRequest)
	resp := req.ResponseKind().(*kmsg.FindCoordinatorResponse)
	const group, transaction = 0, 1
	shown, topics := r.brokers(), r.conn.server.catalog.Topics()
	of := func(key string) shownBroker {
		return shown.coordinator(topics, coordinator.ShardOf(key))
	}
	known := req.CoordinatorType == group || req.CoordinatorType == transaction
	refused := func(key string) error {
		switch {
		case !known:
			return errInvalidRequest
		case req.CoordinatorType == group && !r.mayGroup(key):
			return errGroupDenied
		case req.CoordinatorType == transaction && !r.mayTransactionalID(key):
			return errTransactionalIDDenied
		}
		return nil
	}
	if req.Version < 4 {
		b := of(req.CoordinatorKey)
		resp.NodeID, resp.Host, resp.Port = b.id, b.at.Host, b.at.Port
		if err := refused(req.CoordinatorKey); err != nil {
			resp.ErrorCode, resp.NodeID, resp.Host, resp.Port = r.fail(err), -1, "", -1
		}
		r.answer(resp)
		return
	}
	for _, key := range req.CoordinatorKeys {
		c := kmsg.NewFindCoordinatorResponseCoordinator()
		b := of(key)
		c.Key, c.NodeID, c.Host, c.Port = key, b.id, b.at.Host, b.at.Port
		if err := refused(key); err != nil {
			c.ErrorCode, c.NodeID, c.Host, c.Port = r.fail(err), -1, "", -1
		}
		resp.Coordinators = append(resp.Coordinators, c)
	}
	r.answer(resp)
}
