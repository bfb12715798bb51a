package gateway

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
)

// OffsetCommit, versions 0 to 10; topics have ids instead of names from 10 on.
//
// Kept: what Kafka's coordinator checks. A partition that is not there is
// UNKNOWN_TOPIC_OR_PARTITION and does not keep the others from being committed.
//
// Differs: version 0, which Kafka 0.8.1 wrote to ZooKeeper, is a commit without membership like
// any. Retention times (2 to 4) and timestamps (1) of the client's own are not kept: offsets expire
// by offsets.retention.minutes.

func handleOffsetCommit(r *request) {
	req := r.body.(*kmsg.OffsetCommitRequest)
	if !r.mayGroup(req.Group) {
		r.refuseOffsetCommit(req)
		return
	}
	r.asked(coordinateTimeout, []string{req.Group}, func(ctx context.Context) {
		topics := r.conn.server.catalog.Topics()
		type place struct {
			topic     string
			partition int32
		}
		resp := kmsg.NewPtrOffsetCommitResponse()
		resp.Version = r.header.Version
		passed := *req
		passed.Topics = nil
		names := make([]string, len(req.Topics))
		for i := range req.Topics {
			asked := &req.Topics[i]
			out := kmsg.NewOffsetCommitResponseTopic()
			out.Topic, out.TopicID = asked.Topic, asked.TopicID
			topic, unknown := r.findTopic(topics, asked.Topic, asked.TopicID, r.header.Version >= 10)
			on := kmsg.NewOffsetCommitRequestTopic()
			if topic != nil {
				on.Topic, names[i] = topic.Name, topic.Name
			}
			for _, p := range asked.Partitions {
				o := kmsg.NewOffsetCommitResponseTopicPartition()
				o.Partition = p.Partition
				if _, err := r.findPartitionHere(topic, unknown, p.Partition); err != nil {
					o.ErrorCode = r.fail(err)
				} else {
					on.Partitions = append(on.Partitions, p)
				}
				out.Partitions = append(out.Partitions, o)
			}
			if len(on.Partitions) > 0 {
				passed.Topics = append(passed.Topics, on)
			}
			resp.Topics = append(resp.Topics, out)
		}
		if len(passed.Topics) == 0 && len(req.Topics) > 0 {
			r.answer(resp)
			return
		}
		answer, err := r.coordinate(ctx, coordinator.ShardOf(req.Group), &passed)
		codes := map[place]int16{}
		if err == nil {
			for _, t := range answer.(*kmsg.OffsetCommitResponse).Topics {
				for _, p := range t.Partitions {
					codes[place{t.Topic, p.Partition}] = p.ErrorCode
				}
			}
		}
		for i := range resp.Topics {
			for j := range resp.Topics[i].Partitions {
				p := &resp.Topics[i].Partitions[j]
				if p.ErrorCode != 0 {
					continue
				}
				code, told := codes[place{names[i], p.Partition}]
				switch {
				case err != nil:
					p.ErrorCode = r.coordinatorCode(err)
				case !told:
					p.ErrorCode = r.note(kerr.UnknownServerError.Code)
				default:
					p.ErrorCode = r.note(code)
				}
			}
		}
		r.answer(resp)
	})
}

func (r *request) refuseOffsetCommit(req *kmsg.OffsetCommitRequest) {
	resp := kmsg.NewPtrOffsetCommitResponse()
	resp.Version = r.header.Version
	for _, t := range req.Topics {
		out := kmsg.NewOffsetCommitResponseTopic()
		out.Topic, out.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			o := kmsg.NewOffsetCommitResponseTopicPartition()
			o.Partition, o.ErrorCode = p.Partition, r.fail(errGroupDenied)
			out.Partitions = append(out.Partitions, o)
		}
		resp.Topics = append(resp.Topics, out)
	}
	r.answer(resp)
}
