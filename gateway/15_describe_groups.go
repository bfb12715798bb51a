package gateway

import (
	"cmp"
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/security/acl"
)

// DescribeGroups, versions 0 to 6, ListGroups, versions 0 to 5, DeleteGroups, versions 0 to 3, and
// OffsetDelete, version 0.
//
// Kept: a group that is not there is described as Dead, from version 6 of DescribeGroups on as
// GROUP_ID_NOT_FOUND (KIP-1043). ListGroups asks all coordinators; states (from 4, KIP-518) and
// types (from 5, KIP-848) filter. Groups with members are not deleted, nor are offsets of topics
// that members consume.
//
// Where rights are judged, ListGroups leaves out groups that the client may not describe;
// authorized operations (from version 3) are what it may do.

func handleDescribeGroups(r *request) {
	req := r.body.(*kmsg.DescribeGroupsRequest)
	if len(req.Groups) > maxGroups {
		r.hangUp(errInvalidRequest)
		return
	}
	r.asked(coordinateTimeout, req.Groups, func(ctx context.Context) {
		resp := kmsg.NewPtrDescribeGroupsResponse()
		resp.Version = r.header.Version
		resp.Groups = make([]kmsg.DescribeGroupsResponseGroup, len(req.Groups))
		eachOf(len(req.Groups), func(i int) {
			one := kmsg.NewPtrDescribeGroupsRequest()
			one.Groups = req.Groups[i : i+1]
			out := &resp.Groups[i]
			out.Default()
			out.Group = req.Groups[i]
			if !r.mayGroup(out.Group) {
				out.ErrorCode = errorCode(errGroupDenied)
				return
			}
			answer, err := r.coordinate(ctx, coordinator.ShardOf(req.Groups[i]), one)
			if err != nil {
				out.ErrorCode = r.coordinatorCodeQuiet(err)
			} else if got := answer.(*kmsg.DescribeGroupsResponse).Groups; len(got) == 1 {
				*out = got[0]
			}
			if req.IncludeAuthorizedOperations && out.ErrorCode == 0 {
				out.AuthorizedOperations = r.operationsOn(acl.Group, out.Group, groupOperations)
			}
		})
		size := 64
		for _, g := range resp.Groups {
			r.note(g.ErrorCode)
			size += 128 + len(g.Group)
			for _, m := range g.Members {
				size += 128 + len(m.ProtocolMetadata) + len(m.MemberAssignment)
			}
		}
		r.answerSized(resp, size)
	})
}

func handleListGroups(r *request) {
	req := r.body.(*kmsg.ListGroupsRequest)
	r.asked(coordinateTimeout, nil, func(ctx context.Context) {
		resp := kmsg.NewPtrListGroupsResponse()
		resp.Version = r.header.Version
		answers := make([]*kmsg.ListGroupsResponse, coordinator.Shards)
		errs := make([]error, coordinator.Shards)
		eachOf(coordinator.Shards, func(shard int) {
			one := *req
			answer, err := r.coordinate(ctx, shard, &one)
			answers[shard], _ = answer.(*kmsg.ListGroupsResponse)
			errs[shard] = err
		})
		for shard, answer := range answers {
			if errs[shard] != nil {
				resp.ErrorCode = r.coordinatorCode(errs[shard])
				continue
			}
			if answer.ErrorCode != 0 {
				resp.ErrorCode = r.note(answer.ErrorCode)
			}
			resp.Groups = append(resp.Groups, answer.Groups...)
		}
		if !r.caller.everything() && !r.mayInstead() {
			resp.Groups = slices.DeleteFunc(resp.Groups, func(g kmsg.ListGroupsResponseGroup) bool { return !r.sees(r.needs().group, acl.Group, g.Group) })
		}
		slices.SortFunc(resp.Groups, func(a, b kmsg.ListGroupsResponseGroup) int { return cmp.Compare(a.Group, b.Group) })
		r.answerSized(resp, 64+64*len(resp.Groups))
	})
}

func handleDeleteGroups(r *request) {
	req := r.body.(*kmsg.DeleteGroupsRequest)
	if len(req.Groups) > maxGroups {
		r.hangUp(errInvalidRequest)
		return
	}
	r.asked(coordinateTimeout, req.Groups, func(ctx context.Context) {
		resp := kmsg.NewPtrDeleteGroupsResponse()
		resp.Version = r.header.Version
		resp.Groups = make([]kmsg.DeleteGroupsResponseGroup, len(req.Groups))
		eachOf(len(req.Groups), func(i int) {
			one := kmsg.NewPtrDeleteGroupsRequest()
			one.Groups = req.Groups[i : i+1]
			out := &resp.Groups[i]
			out.Default()
			out.Group = req.Groups[i]
			if !r.mayGroup(out.Group) {
				out.ErrorCode = errorCode(errGroupDenied)
				return
			}
			answer, err := r.coordinate(ctx, coordinator.ShardOf(req.Groups[i]), one)
			if err != nil {
				out.ErrorCode = r.coordinatorCodeQuiet(err)
			} else if got := answer.(*kmsg.DeleteGroupsResponse).Groups; len(got) == 1 {
				*out = got[0]
			}
		})
		for _, g := range resp.Groups {
			r.note(g.ErrorCode)
		}
		r.answer(resp)
	})
}

func handleOffsetDelete(r *request) {
	req := r.body.(*kmsg.OffsetDeleteRequest)
	if !r.mayGroup(req.Group) {
		resp := kmsg.NewPtrOffsetDeleteResponse()
		resp.ErrorCode = r.fail(errGroupDenied)
		r.answer(resp)
		return
	}
	refused := r.refuseOffsetsOf(req)
	r.asked(coordinateTimeout, []string{req.Group}, func(ctx context.Context) {
		answer, err := r.coordinate(ctx, coordinator.ShardOf(req.Group), req)
		resp, _ := answer.(*kmsg.OffsetDeleteResponse)
		if err != nil {
			resp = kmsg.NewPtrOffsetDeleteResponse()
			resp.ErrorCode = r.coordinatorCode(err)
		}
		if resp.ErrorCode == 0 {
			resp.Topics = append(resp.Topics, refused...)
		}
		r.note(resp.ErrorCode)
		r.answer(resp)
	})
}

// refuseOffsetsOf takes topics out of the request that the caller has no right to, and gives the
// answers for them.
func (r *request) refuseOffsetsOf(req *kmsg.OffsetDeleteRequest) (refused []kmsg.OffsetDeleteResponseTopic) {
	if r.caller.everything() {
		return nil
	}
	req.Topics = slices.DeleteFunc(req.Topics, func(t kmsg.OffsetDeleteRequestTopic) bool {
		if r.mayTopic(t.Topic) {
			return false
		}
		out := kmsg.NewOffsetDeleteResponseTopic()
		out.Topic = t.Topic
		for _, p := range t.Partitions {
			o := kmsg.NewOffsetDeleteResponseTopicPartition()
			o.Partition, o.ErrorCode = p.Partition, r.fail(errTopicDenied)
			out.Partitions = append(out.Partitions, o)
		}
		refused = append(refused, out)
		return true
	})
	return refused
}
