package coordinator

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm/groups"
)

// maxCommitBytes is about what a commit may be, so that its command is within
// maxCommand.
const maxCommitBytes = maxCommand / 2

func commitResponse(req *kmsg.OffsetCommitRequest) *kmsg.OffsetCommitResponse {
	resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
	for _, topic := range req.Topics {
		t := kmsg.NewOffsetCommitResponseTopic()
		t.Topic, t.TopicID = topic.Topic, topic.TopicID
		for _, partition := range topic.Partitions {
			p := kmsg.NewOffsetCommitResponseTopicPartition()
			p.Partition = partition.Partition
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}

// fillCommit gives the code to all partitions that have none.
func fillCommit(resp *kmsg.OffsetCommitResponse, code int16) {
	for i := range resp.Topics {
		for j := range resp.Topics[i].Partitions {
			if p := &resp.Topics[i].Partitions[j]; p.ErrorCode == 0 {
				p.ErrorCode = code
			}
		}
	}
}

// offsetCommit answers OffsetCommit when the offsets are replicated. That topics
// have the partitions is for the caller to check.
func (c *Coordinator) offsetCommit(ctx context.Context, client Client, req *kmsg.OffsetCommitRequest) (kmsg.Response, error) {
	resp := commitResponse(req)
	if len(req.Group) > groups.MaxGroupID {
		fillCommit(resp, kerr.InvalidGroupID.Code)
		return resp, nil
	}
	topics := c.commitTopics(req)
	g := c.lockGroup(req.Group, req.Generation < 0)
	if g == nil {
		code := kerr.IllegalGeneration.Code
		if client.Version >= 9 {
			code = kerr.GroupIDNotFound.Code
		}
		fillCommit(resp, code)
		return resp, nil
	}
	if code := g.validateCommit(req); code != 0 {
		c.unlockGroup(g)
		fillCommit(resp, code)
		return resp, nil
	}
	if m := g.byID[req.MemberID]; m != nil && (g.state == stable || g.state == preparing) {
		g.keepAlive(m)
	}
	cmd := c.commitCommand(g.id, topics, req, resp)
	if cmd.Len() == 0 {
		c.unlockGroup(g)
		return resp, nil
	}
	if cmd.Size() > maxCommitBytes || c.cfg.State.size()+2*cmd.Size() > c.maxState {
		c.unlockGroup(g)
		fillCommit(resp, kerr.InvalidCommitOffsetSize.Code)
		return resp, nil
	}
	w := g.write(cmd, nil)
	c.unlockGroup(g)
	if err := w.wait(ctx); err != nil {
		return nil, err
	}
	if errors.Is(w.err, ErrNotLeader) {
		return nil, w.err
	}
	if code := c.codeOf(w.err); code != 0 {
		fillCommit(resp, code)
	}
	return resp, nil
}

// validateCommit says who may commit: members of this generation, and whoever uses
// the group only to store offsets while it has no members.
func (g *group) validateCommit(req *kmsg.OffsetCommitRequest) int16 {
	switch {
	case req.Generation < 0 && g.state == empty:
		return 0
	case req.Generation >= 0 || req.MemberID != "" || req.InstanceID != nil:
		if code := g.validate(req.MemberID, req.InstanceID); code != 0 {
			return code
		}
		if req.Generation != g.generation {
			return kerr.IllegalGeneration.Code
		}
	case g.state != empty:
		return kerr.UnknownMemberID.Code
	}
	if g.state == completing {
		return kerr.RebalanceInProgress.Code
	}
	return 0
}

// commitTopic is a topic of a commit as the catalog has it.
type commitTopic struct {
	name string
	id   [16]byte
	ok   bool // it is there
}

// commitTopics looks up the topics of a commit, each of which may have to be waited for.
func (c *Coordinator) commitTopics(req *kmsg.OffsetCommitRequest) []commitTopic {
	topics := make([]commitTopic, len(req.Topics))
	for i, topic := range req.Topics {
		t := commitTopic{name: topic.Topic, id: topic.TopicID}
		if req.Version >= 10 {
			t.name, t.ok = c.topicName(t.id)
		} else {
			t.id, t.ok = c.topicID(t.name)
		}
		topics[i] = t
	}
	return topics
}

// commitCommand puts into a command what can be committed, and into the response
// why the rest cannot. topics are those of the request, see commitTopics.
func (c *Coordinator) commitCommand(group string, topics []commitTopic, req *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse) groups.Changes {
	var cmd groups.Changes
	now := time.Now().UnixMilli()
	for i, topic := range req.Topics {
		name, id, unknown := topics[i].name, topics[i].id, kerr.UnknownTopicOrPartition.Code
		if req.Version >= 10 {
			unknown = kerr.UnknownTopicID.Code
			if topics[i].ok {
				resp.Topics[i].Topic = name
			}
		}
		ok := topics[i].ok && len(name) <= groups.MaxTopic
		for j, partition := range topic.Partitions {
			code := &resp.Topics[i].Partitions[j].ErrorCode
			metadata := ""
			if partition.Metadata != nil {
				metadata = *partition.Metadata
			}
			switch {
			case !ok:
				*code = unknown
			case partition.Partition < 0:
				*code = kerr.UnknownTopicOrPartition.Code
			case len(metadata) > min(c.set.OffsetMetadataMaxBytes, groups.MaxMetadata):
				*code = kerr.OffsetMetadataTooLarge.Code
			default:
				cmd.SetOffset(group, name, id, partition.Partition, groups.Offset{
					Offset: partition.Offset, LeaderEpoch: partition.LeaderEpoch, Metadata: metadata, CommittedAt: now,
				})
			}
		}
	}
	return cmd
}

// offsetFetch answers OffsetFetch from what is replicated. Where only stable offsets are wanted, a
// partition for which a transaction has one pending is UNSTABLE_OFFSET_COMMIT (KIP-447).
func (c *Coordinator) offsetFetch(req *kmsg.OffsetFetchRequest) *kmsg.OffsetFetchResponse {
	resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
	if req.Version < 8 {
		all := req.Topics == nil && req.Version >= 2
		var topics []kmsg.OffsetFetchRequestGroupTopic
		for _, topic := range req.Topics {
			topics = append(topics, kmsg.OffsetFetchRequestGroupTopic{Topic: topic.Topic, Partitions: topic.Partitions})
		}
		for _, topic := range c.fetchOffsets(req.Group, topics, all, false, req.RequireStable) {
			t := kmsg.NewOffsetFetchResponseTopic()
			t.Topic = topic.Topic
			for _, p := range topic.Partitions {
				t.Partitions = append(t.Partitions, kmsg.OffsetFetchResponseTopicPartition(p))
			}
			resp.Topics = append(resp.Topics, t)
		}
		return resp
	}
	for _, group := range req.Groups {
		g := kmsg.NewOffsetFetchResponseGroup()
		g.Group = group.Group
		g.Topics = c.fetchOffsets(group.Group, group.Topics, group.Topics == nil, req.Version >= 10, req.RequireStable)
		resp.Groups = append(resp.Groups, g)
	}
	return resp
}

func (c *Coordinator) fetchOffsets(group string, topics []kmsg.OffsetFetchRequestGroupTopic, all, byID, stable bool) []kmsg.OffsetFetchResponseGroupTopic {
	if all {
		return c.allOffsets(group, stable)
	}
	answers := make([]kmsg.OffsetFetchResponseGroupTopic, 0, len(topics))
	for _, topic := range topics {
		t := kmsg.NewOffsetFetchResponseGroupTopic()
		t.Topic, t.TopicID = topic.Topic, topic.TopicID
		ok, unknown := false, int16(0)
		if byID {
			t.Topic, ok = c.topicName(t.TopicID)
			unknown = kerr.UnknownTopicID.Code
		} else {
			t.TopicID, ok = c.topicID(t.Topic)
		}
		for _, partition := range topic.Partitions {
			p := noOffset(partition)
			if !ok {
				p.ErrorCode = unknown
			} else if stable && c.cfg.State.pending(group, t.Topic, t.TopicID, partition) {
				p.ErrorCode = kerr.UnstableOffsetCommit.Code
			} else if o, found := c.cfg.State.offset(group, t.Topic, t.TopicID, partition); found {
				p.set(o)
			}
			t.Partitions = append(t.Partitions, p.OffsetFetchResponseGroupTopicPartition)
		}
		answers = append(answers, t)
	}
	return answers
}

func (c *Coordinator) allOffsets(group string, stable bool) []kmsg.OffsetFetchResponseGroupTopic {
	answers := []kmsg.OffsetFetchResponseGroupTopic{}
	for _, o := range c.cfg.State.offsets(group) {
		if id, ok := c.topicID(o.Topic); !ok || id != o.TopicID {
			continue
		}
		if n := len(answers); n == 0 || answers[n-1].Topic != o.Topic {
			t := kmsg.NewOffsetFetchResponseGroupTopic()
			t.Topic, t.TopicID = o.Topic, o.TopicID
			answers = append(answers, t)
		}
		p := noOffset(o.Partition)
		if stable && c.cfg.State.pending(group, o.Topic, o.TopicID, o.Partition) {
			p.ErrorCode = kerr.UnstableOffsetCommit.Code
		} else {
			p.set(o.Offset)
		}
		t := &answers[len(answers)-1]
		t.Partitions = append(t.Partitions, p.OffsetFetchResponseGroupTopicPartition)
	}
	return answers
}

type fetched struct {
	kmsg.OffsetFetchResponseGroupTopicPartition
}

// noOffset is the answer where nothing is committed; it is no error.
func noOffset(partition int32) fetched {
	p := fetched{kmsg.NewOffsetFetchResponseGroupTopicPartition()}
	none := ""
	p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = partition, -1, -1, &none
	return p
}

func (p *fetched) set(o groups.Offset) {
	p.Offset, p.LeaderEpoch, p.Metadata = o.Offset, o.LeaderEpoch, &o.Metadata
}
