package gateway

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
)

// OffsetFetch, versions 0 to 10; several groups at once from 8 on (KIP-709), topics have
// ids instead of names from 10 on.
//
// Kept: a group never seen, and a partition without a commit, have offset -1 and no error; in
// version 0, which stood for ZooKeeper, the error UNKNOWN_TOPIC_OR_PARTITION. No topics (null, from
// 2 on) means all that the group has offsets of. What a transaction has committed and not ended is
// not seen; who requires stable offsets (7 on) is told UNSTABLE_OFFSET_COMMIT for it (KIP-447).

func handleOffsetFetch(r *request) {
	req := r.body.(*kmsg.OffsetFetchRequest)
	if req.Version >= 8 {
		r.fetchOffsetsOfGroups(req)
		return
	}
	r.asked(coordinateTimeout, []string{req.Group}, func(ctx context.Context) {
		group := kmsg.NewOffsetFetchRequestGroup()
		group.Group = req.Group
		if req.Topics != nil || req.Version < 2 {
			group.Topics = []kmsg.OffsetFetchRequestGroupTopic{}
		}
		for _, t := range req.Topics {
			asked := kmsg.NewOffsetFetchRequestGroupTopic()
			asked.Topic, asked.Partitions = t.Topic, t.Partitions
			group.Topics = append(group.Topics, asked)
		}
		answer := r.offsetsOf(ctx, group, req.RequireStable)
		resp := kmsg.NewPtrOffsetFetchResponse()
		resp.Version = r.header.Version
		resp.ErrorCode = r.note(answer.ErrorCode)
		for _, t := range answer.Topics {
			out := kmsg.NewOffsetFetchResponseTopic()
			out.Topic = t.Topic
			for _, p := range t.Partitions {
				o := kmsg.NewOffsetFetchResponseTopicPartition()
				o.Partition, o.Offset, o.LeaderEpoch, o.Metadata, o.ErrorCode = p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode
				if req.Version == 0 && o.ErrorCode == 0 && o.Offset == -1 {
					o.ErrorCode = r.note(kerr.UnknownTopicOrPartition.Code)
				}
				out.Partitions = append(out.Partitions, o)
			}
			resp.Topics = append(resp.Topics, out)
		}
		if answer.ErrorCode != 0 && req.Version < 2 { // there it stands with each partition
			resp.Topics = nil
			for _, t := range req.Topics {
				out := kmsg.NewOffsetFetchResponseTopic()
				out.Topic = t.Topic
				for _, p := range t.Partitions {
					o := kmsg.NewOffsetFetchResponseTopicPartition()
					o.Partition, o.Offset, o.Metadata, o.ErrorCode = p, -1, kmsg.StringPtr(""), answer.ErrorCode
					out.Partitions = append(out.Partitions, o)
				}
				resp.Topics = append(resp.Topics, out)
			}
		}
		r.answer(resp)
	})
}

func (r *request) fetchOffsetsOfGroups(req *kmsg.OffsetFetchRequest) {
	if len(req.Groups) > maxGroups {
		r.hangUp(errInvalidRequest)
		return
	}
	groups := make([]string, len(req.Groups))
	for i := range req.Groups {
		groups[i] = req.Groups[i].Group
	}
	r.asked(coordinateTimeout, groups, func(ctx context.Context) {
		resp := kmsg.NewPtrOffsetFetchResponse()
		resp.Version = r.header.Version
		resp.Groups = make([]kmsg.OffsetFetchResponseGroup, len(req.Groups))
		topics := r.conn.server.catalog.Topics()
		eachOf(len(req.Groups), func(i int) {
			asked := req.Groups[i]
			var unknown []kmsg.OffsetFetchResponseGroupTopic
			if req.Version >= 10 && asked.Topics != nil {
				asked.Topics, unknown = r.namedTopics(topics, asked.Topics)
			}
			notHere := func() {
				// This node has just started: what it does not know may be there.
				resp.Groups[i].Default()
				resp.Groups[i].Group, resp.Groups[i].ErrorCode = asked.Group, kerr.NotCoordinator.Code
			}
			if len(unknown) > 0 && r.conn.server.catalog.Ready() != nil {
				notHere()
				return
			}
			answer := r.offsetsOf(ctx, asked, req.RequireStable)
			for j := range answer.Topics {
				topic, ok := topics.Lookup(answer.Topics[j].Topic)
				if !ok {
					topic, ok = r.conn.server.catalog.Topics().Lookup(answer.Topics[j].Topic)
				}
				if ok {
					answer.Topics[j].TopicID = topic.ID
				} else if req.Version >= 10 {
					notHere() // without its id, an offset is one of no topic
					return
				}
			}
			if answer.ErrorCode == 0 {
				answer.Topics = append(answer.Topics, unknown...)
			}
			resp.Groups[i] = answer
		})
		for _, g := range resp.Groups {
			r.note(g.ErrorCode)
		}
		r.answer(resp)
	})
}

// namedTopics gives topics that are asked for by id their names, and the answers for those that no
// topic has.
func (r *request) namedTopics(topics *fsm.Topics, asked []kmsg.OffsetFetchRequestGroupTopic) (named []kmsg.OffsetFetchRequestGroupTopic, unknown []kmsg.OffsetFetchResponseGroupTopic) {
	named = []kmsg.OffsetFetchRequestGroupTopic{}
	for _, t := range asked {
		if topic, ok := topics.ByID(t.TopicID); ok {
			t.Topic = topic.Name
			named = append(named, t)
			continue
		}
		out := noOffsets(t, errUnknownTopicID)
		out.TopicID = t.TopicID
		unknown = append(unknown, out)
	}
	return named, unknown
}

// offsetsOf gives the offsets of one group, as far as the caller may have them.
func (r *request) offsetsOf(ctx context.Context, group kmsg.OffsetFetchRequestGroup, stable bool) kmsg.OffsetFetchResponseGroup {
	if r.caller.everything() {
		return r.askOffsetsOf(ctx, group, stable)
	}
	if !r.mayGroup(group.Group) {
		out := kmsg.NewOffsetFetchResponseGroup()
		out.Group, out.ErrorCode = group.Group, errorCode(errGroupDenied)
		return out
	}
	var refused []kmsg.OffsetFetchResponseGroupTopic
	all := group.Topics == nil
	if !all {
		asked := group.Topics
		group.Topics = []kmsg.OffsetFetchRequestGroupTopic{}
		for _, t := range asked {
			if r.mayTopic(t.Topic) {
				group.Topics = append(group.Topics, t)
				continue
			}
			out := noOffsets(t, errTopicDenied)
			out.Topic, out.TopicID = t.Topic, t.TopicID
			refused = append(refused, out)
		}
	}
	answer := r.askOffsetsOf(ctx, group, stable)
	if all {
		answer.Topics = slices.DeleteFunc(answer.Topics, func(t kmsg.OffsetFetchResponseGroupTopic) bool { return !r.seesTopic(t.Topic) })
	}
	if answer.ErrorCode == 0 {
		answer.Topics = append(answer.Topics, refused...)
	}
	return answer
}

// noOffsets is the answer for a topic whose offsets are not given.
func noOffsets(t kmsg.OffsetFetchRequestGroupTopic, why error) kmsg.OffsetFetchResponseGroupTopic {
	out := kmsg.NewOffsetFetchResponseGroupTopic()
	for _, p := range t.Partitions {
		o := kmsg.NewOffsetFetchResponseGroupTopicPartition()
		o.Partition, o.Offset, o.Metadata, o.ErrorCode = p, -1, kmsg.StringPtr(""), errorCode(why)
		out.Partitions = append(out.Partitions, o)
	}
	return out
}

// askOffsetsOf asks the coordinator for the offsets of one group.
func (r *request) askOffsetsOf(ctx context.Context, group kmsg.OffsetFetchRequestGroup, stable bool) kmsg.OffsetFetchResponseGroup {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.RequireStable = stable
	req.Groups = []kmsg.OffsetFetchRequestGroup{group}
	out := kmsg.NewOffsetFetchResponseGroup()
	out.Group = group.Group
	answer, err := r.coordinate(ctx, coordinator.ShardOf(group.Group), req)
	if err != nil {
		out.ErrorCode = r.coordinatorCodeQuiet(err)
		return out
	}
	if got := answer.(*kmsg.OffsetFetchResponse).Groups; len(got) == 1 {
		return got[0]
	}
	out.ErrorCode = kerr.UnknownServerError.Code
	return out
}
