package gateway

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/gateway/listen"
)

// DescribeQuorum, versions 0 to 2 (KIP-595, KIP-836, KIP-853).
//
// Kept: the quorum of Kafka's metadata is the catalog's Raft group here: its leader, epoch,
// voters and observers, with the ids that nodes have where they are shown (see brokers.go). Only
// partition 0 of __cluster_metadata can be asked for; anything else is
// UNKNOWN_TOPIC_OR_PARTITION. An end that is not known is -1.
//
// Left out: times of fetches, which are -1, since followers do not fetch here, and directory ids.

const metadataTopic = "__cluster_metadata"

func handleDescribeQuorum(r *request) {
	r.background(func() {
		req := r.body.(*kmsg.DescribeQuorumRequest)
		resp := req.ResponseKind().(*kmsg.DescribeQuorumResponse)
		ctx, cancel := context.WithTimeout(r.reply.Open(), statusTimeout)
		defer cancel()
		status, err := r.conn.server.operations.Status(ctx)
		if err != nil {
			resp.ErrorCode, resp.ErrorMessage = r.fail(err), kmsg.StringPtr(message(err))
			r.answer(resp)
			return
		}
		for _, t := range req.Topics {
			rt := kmsg.NewDescribeQuorumResponseTopic()
			rt.Topic = t.Topic
			for _, p := range t.Partitions {
				rp := kmsg.NewDescribeQuorumResponseTopicPartition()
				rp.Partition, rp.LeaderID = p.Partition, -1
				if t.Topic != metadataTopic || p.Partition != 0 {
					rp.ErrorCode = r.note(kerr.UnknownTopicOrPartition.Code)
					rp.ErrorMessage = kmsg.StringPtr(kerr.UnknownTopicOrPartition.Description)
					rt.Partitions = append(rt.Partitions, rp)
					continue
				}
				for place, n := range status.Nodes {
					state := kmsg.NewDescribeQuorumResponseTopicPartitionReplicaState()
					state.ReplicaID, state.LogEndOffset = nodeBroker(place), n.CatalogEnd
					if !n.Alive {
						state.LogEndOffset = -1
					}
					rp.HighWatermark = max(rp.HighWatermark, state.LogEndOffset)
					if n.ID == status.Controller {
						rp.LeaderID, rp.LeaderEpoch = state.ReplicaID, int32(n.CatalogTerm)
					}
					// A node that does not answer counts as a voter: most are.
					if n.CatalogRole == "nonvoter" {
						rp.Observers = append(rp.Observers, state)
					} else {
						rp.CurrentVoters = append(rp.CurrentVoters, state)
					}
				}
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		for place, n := range status.Nodes {
			node := kmsg.NewDescribeQuorumResponseNode()
			node.NodeID = nodeBroker(place)
			if at, err := listen.ParseAddress(n.PeerAddress); err == nil {
				node.Listeners = []kmsg.DescribeQuorumResponseNodeListener{{Name: "PEER", Host: at.Host, Port: uint16(at.Port)}}
			}
			resp.Nodes = append(resp.Nodes, node)
		}
		r.answer(resp)
	})
}
