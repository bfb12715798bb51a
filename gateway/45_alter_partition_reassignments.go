package gateway

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// AlterPartitionReassignments, versions 0 and 1 (KIP-455).
//
// Differs: nothing is reassigned. Where replicas are is below what clients see, and a
// list of brokers cannot say which nodes are meant, as in CreateTopics: each partition
// is INVALID_REPLICA_ASSIGNMENT, and NO_REASSIGNMENT_IN_PROGRESS where one is to be
// cancelled.

func handleAlterPartitionReassignments(r *request) {
	req := r.body.(*kmsg.AlterPartitionAssignmentsRequest)
	resp := req.ResponseKind().(*kmsg.AlterPartitionAssignmentsResponse)
	resp.AllowReplicationFactorChange = req.AllowReplicationFactorChange
	topics := r.session.server.cluster.Topics()
	for _, t := range req.Topics {
		rt := kmsg.NewAlterPartitionAssignmentsResponseTopic()
		rt.Topic = t.Topic
		topic, known := topics.Lookup(t.Topic)
		for _, p := range t.Partitions {
			failure, why := kerr.InvalidReplicaAssignment, "replicas are placed by the cluster: 'trimaran topic alter' changes how many there are, 'trimaran node' which nodes have them"
			switch {
			case !known || p.Partition < 0 || int(p.Partition) >= len(topic.Partitions):
				failure, why = kafkaError(r.session.server.unknownTopic()), "no such partition"
			case p.Replicas == nil:
				failure, why = kerr.NoReassignmentInProgress, "nothing is being reassigned"
			}
			rp := kmsg.NewAlterPartitionAssignmentsResponseTopicPartition()
			rp.Partition, rp.ErrorCode, rp.ErrorMessage = p.Partition, r.note(failure.Code), kmsg.StringPtr(why)
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	r.answer(resp)
}
