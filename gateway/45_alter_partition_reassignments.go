package gateway

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// AlterPartitionReassignments, versions 0 and 1 (KIP-455).
//
// Kept: a partition that is assigned to the one broker is there already, which is no
// error, and nothing moves. To cancel is NO_REASSIGNMENT_IN_PROGRESS.
//
// Differs: nothing is reassigned. Where replicas are is below what clients see, and a
// list of other brokers cannot say which nodes are meant: INVALID_REPLICA_ASSIGNMENT.

func handleAlterPartitionReassignments(r *request) {
	req := r.body.(*kmsg.AlterPartitionAssignmentsRequest)
	resp := req.ResponseKind().(*kmsg.AlterPartitionAssignmentsResponse)
	resp.AllowReplicationFactorChange = req.AllowReplicationFactorChange
	topics := r.conn.server.catalog.Topics()
	for _, t := range req.Topics {
		rt := kmsg.NewAlterPartitionAssignmentsResponseTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			var failure *kerr.Error
			var why string
			switch err := checkAssignment(p.Partition, p.Replicas); {
			case !topics.Has(t.Topic, p.Partition):
				failure, why = kafkaError(r.conn.server.unknownTopic()), "no such partition"
			case p.Replicas == nil:
				failure, why = kerr.NoReassignmentInProgress, "nothing is being reassigned"
			case err != nil:
				failure, why = kafkaError(err), message(err)
			}
			rp := kmsg.NewAlterPartitionAssignmentsResponseTopicPartition()
			rp.Partition = p.Partition
			if failure != nil {
				rp.ErrorCode, rp.ErrorMessage = r.note(failure.Code), &why
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	r.answer(resp)
}
