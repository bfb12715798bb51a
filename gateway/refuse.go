package gateway

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// refuse answers a request whose caller has no right to the cluster, each API in its own form.
func (r *request) refuse() {
	code, why := r.fail(errClusterDenied), kmsg.StringPtr(errClusterDenied.Error())
	switch req := r.body.(type) {
	case nil: // one of our own
		r.answerJSON(r.header.Key, nil, errClusterDenied)
	case *kmsg.DescribeACLsRequest:
		resp := req.ResponseKind().(*kmsg.DescribeACLsResponse)
		resp.ErrorCode, resp.ErrorMessage = code, why
		r.answer(resp)
	case *kmsg.CreateACLsRequest:
		r.answerCreateACLs(req, func(int) (int16, *string) { return code, why })
	case *kmsg.DeleteACLsRequest:
		r.answerDeleteACLs(req, func(int, *kmsg.DeleteACLsResponseResult) (int16, *string) { return code, why })
	case *kmsg.DescribeUserSCRAMCredentialsRequest:
		resp := req.ResponseKind().(*kmsg.DescribeUserSCRAMCredentialsResponse)
		resp.ErrorCode, resp.ErrorMessage = code, why
		r.answer(resp)
	case *kmsg.AlterUserSCRAMCredentialsRequest:
		r.answerScramUsers(req, func(string) (*kerr.Error, string) { return kerr.ClusterAuthorizationFailed, *why })
	case *kmsg.AlterReplicaLogDirsRequest:
		r.refuseAlterReplicaLogDirs(req, code)
	case *kmsg.DescribeLogDirsRequest:
		resp := req.ResponseKind().(*kmsg.DescribeLogDirsResponse)
		resp.ErrorCode = code
		r.answer(resp)
	case *kmsg.ElectLeadersRequest:
		r.refuseElectLeaders(req, code, why)
	case *kmsg.AlterPartitionAssignmentsRequest:
		resp := req.ResponseKind().(*kmsg.AlterPartitionAssignmentsResponse)
		resp.AllowReplicationFactorChange = req.AllowReplicationFactorChange
		resp.ErrorCode, resp.ErrorMessage = code, why
		r.answer(resp)
	case *kmsg.ListPartitionReassignmentsRequest:
		resp := req.ResponseKind().(*kmsg.ListPartitionReassignmentsResponse)
		resp.ErrorCode, resp.ErrorMessage = code, why
		r.answer(resp)
	case *kmsg.DescribeClientQuotasRequest:
		resp := req.ResponseKind().(*kmsg.DescribeClientQuotasResponse)
		resp.ErrorCode, resp.ErrorMessage = code, why
		r.answer(resp)
	case *kmsg.DescribeQuorumRequest:
		resp := req.ResponseKind().(*kmsg.DescribeQuorumResponse)
		resp.ErrorCode, resp.ErrorMessage = code, why
		r.answer(resp)
	case *kmsg.UpdateFeaturesRequest:
		resp := req.ResponseKind().(*kmsg.UpdateFeaturesResponse)
		resp.ErrorCode, resp.ErrorMessage = code, why
		r.answer(resp)
	case *kmsg.ListConfigResourcesRequest:
		resp := req.ResponseKind().(*kmsg.ListConfigResourcesResponse)
		resp.ErrorCode = code
		r.answer(resp)
	default:
		r.hangUp(fmt.Errorf("%w: %s", errClusterDenied, r.name))
	}
}

func (r *request) refuseAlterReplicaLogDirs(req *kmsg.AlterReplicaLogDirsRequest, code int16) {
	resp := req.ResponseKind().(*kmsg.AlterReplicaLogDirsResponse)
	for _, d := range req.Dirs {
		for _, t := range d.Topics {
			rt := kmsg.NewAlterReplicaLogDirsResponseTopic()
			rt.Topic = t.Topic
			for _, p := range t.Partitions {
				rp := kmsg.NewAlterReplicaLogDirsResponseTopicPartition()
				rp.Partition, rp.ErrorCode = p, code
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
	}
	r.answer(resp)
}

func (r *request) refuseElectLeaders(req *kmsg.ElectLeadersRequest, code int16, why *string) {
	resp := req.ResponseKind().(*kmsg.ElectLeadersResponse)
	resp.ErrorCode = code
	for _, t := range req.Topics {
		rt := kmsg.NewElectLeadersResponseTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			rp := kmsg.NewElectLeadersResponseTopicPartition()
			rp.Partition, rp.ErrorCode, rp.ErrorMessage = p, code, why
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	r.answer(resp)
}
