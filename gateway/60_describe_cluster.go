package gateway

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeCluster, versions 0 to 2.
//
// There is one broker, as in Metadata, and it is the controller. It is never
// fenced. The endpoint type (from version 1, KIP-919) has to be 1, brokers:
// nobody here is a controller that listens for clients.
// Authorized operations are what the client may do; none for who may not describe the cluster.

func handleDescribeCluster(r *request) {
	req := r.body.(*kmsg.DescribeClusterRequest)
	resp := req.ResponseKind().(*kmsg.DescribeClusterResponse)
	const brokers, controllers = 1, 2
	refuse := func(e *kerr.Error, why string) {
		resp.ErrorCode, resp.ErrorMessage = r.note(e.Code), &why
		r.answer(resp)
	}
	switch {
	case req.Version >= 1 && req.EndpointType == controllers:
		refuse(kerr.MismatchedEndpointType, "this endpoint is that of a broker, not of a controller")
		return
	case req.Version >= 1 && req.EndpointType != brokers:
		refuse(kerr.UnsupportedEndpointType, "unknown endpoint type")
		return
	}
	shown := r.brokers()
	resp.ClusterID, resp.ControllerID = r.conn.server.nodes.ClusterID(), shown.controller()
	if req.IncludeClusterAuthorizedOperations {
		resp.ClusterAuthorizedOperations = r.operationsOnCluster()
	}
	for _, b := range shown.list {
		broker := kmsg.NewDescribeClusterResponseBroker()
		broker.NodeID, broker.Host, broker.Port = b.id, b.at.Host, b.at.Port
		if b.rack != "" {
			broker.Rack = &b.rack
		}
		resp.Brokers = append(resp.Brokers, broker)
	}
	r.answer(resp)
}
