package oracle

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// as writes down what a request at a version answers to a user.
func (t *T) as(user, rights string, req kmsg.Request, version int16, without ...string) {
	t.As(user)
	t.byName = true
	t.Say("%s:", rights)
	req.SetVersion(version)
	t.Do(req, without...)
}

// stages asks the same again and again while a user gets more rights: first without any.
func stages(name string, request func(t *T, topic, group string) (req kmsg.Request, version int16), rights ...string) Case {
	return Case{name, func(t *T) {
		topic, user := t.Topic(), t.User()
		group := t.Name()
		t.Alias(group, "group")
		t.step(user, "with no right", topic, group, request)
		for _, r := range rights {
			t.Allow(user, fmt.Sprintf(r, topic, group))
			t.step(user, "with "+fmt.Sprintf(r, "topic-1", "group"), topic, group, request)
		}
	}}
}

// producing waits until the broker gives out producer ids.
func (t *T) producing() {
	t.As("")
	t.until("producer ids", func() bool {
		return t.ask(kmsg.NewPtrInitProducerIDRequest()).(*kmsg.InitProducerIDResponse).ErrorCode == 0
	})
}

func (t *T) step(user, rights, topic, group string, request func(t *T, topic, group string) (kmsg.Request, int16)) {
	req, version := request(t, topic, group)
	t.as(user, rights, req, version, "Configs", "Replicas", "ISR", "Offset", "LogAppendTime", "LogStartOffset", "ErrorRecords",
		"MemberID", "ProducerID", "ProducerEpoch", "HighWatermark", "CommittedOffset", "CommitTimestamp")
}

const (
	rTopic   = "%[1]s"
	rGroup   = "%[2]s"
	rCluster = "kafka-cluster%.0[1]s"
)

// of has the rights of one kind: "READ TOPIC" of the case's topic.
func of(rights ...string) []string {
	var out []string
	for _, r := range rights {
		switch {
		case slices.Contains([]string{"T"}, r[:1]):
			out = append(out, r[2:]+" TOPIC "+rTopic)
		case r[:1] == "G":
			out = append(out, r[2:]+" GROUP "+rGroup)
		default:
			out = append(out, r[2:]+" CLUSTER "+rCluster)
		}
	}
	return out
}

// names of topics that are asked for: one that is there, and one that is not.
const noTopic = "no-such-topic"

var rightCases = []Case{
	stages("Produce", func(t *T, topic, _ string) (kmsg.Request, int16) {
		req := kmsg.NewPtrProduceRequest()
		req.Acks, req.TimeoutMillis = -1, 10_000
		for _, name := range []string{topic, noTopic} {
			rt := kmsg.NewProduceRequestTopic()
			rt.Topic = name
			rp := kmsg.NewProduceRequestTopicPartition()
			rp.Records = t.batch(rec(0, "k", "v"), 1)
			rt.Partitions = append(rt.Partitions, rp)
			req.Topics = append(req.Topics, rt)
		}
		return req, 9
	}, of("T DESCRIBE", "T WRITE")...),
	stages("Fetch", func(t *T, topic, _ string) (kmsg.Request, int16) {
		req := kmsg.NewPtrFetchRequest()
		req.MaxBytes, req.ReplicaID = 1<<20, -1
		for _, name := range []string{topic, noTopic} {
			rt := kmsg.NewFetchRequestTopic()
			rt.Topic = name
			rp := kmsg.NewFetchRequestTopicPartition()
			rp.PartitionMaxBytes = 1 << 20
			rt.Partitions = append(rt.Partitions, rp)
			req.Topics = append(req.Topics, rt)
		}
		return req, 11
	}, of("T DESCRIBE", "T READ")...),
	stages("Fetch by id", func(t *T, topic, _ string) (kmsg.Request, int16) {
		t.As("")
		req := kmsg.NewPtrFetchRequest()
		req.MaxBytes, req.ReplicaID = 1<<20, -1
		for _, id := range [][16]byte{t.TopicID(topic), {1}} {
			rt := kmsg.NewFetchRequestTopic()
			rt.TopicID = id
			rp := kmsg.NewFetchRequestTopicPartition()
			rp.PartitionMaxBytes = 1 << 20
			rt.Partitions = append(rt.Partitions, rp)
			req.Topics = append(req.Topics, rt)
		}
		return req, 13
	}, of("T DESCRIBE", "T READ")...),
	stages("ListOffsets", func(t *T, topic, _ string) (kmsg.Request, int16) {
		req := kmsg.NewPtrListOffsetsRequest()
		req.ReplicaID = -1
		for _, name := range []string{topic, noTopic} {
			rt := kmsg.NewListOffsetsRequestTopic()
			rt.Topic = name
			rp := kmsg.NewListOffsetsRequestTopicPartition()
			rp.Timestamp = -1
			rt.Partitions = append(rt.Partitions, rp)
			req.Topics = append(req.Topics, rt)
		}
		return req, 5
	}, of("T DESCRIBE")...),
	stages("Metadata of names", metadata(12, false), of("T DESCRIBE", "T READ", "T DELETE")...),
	stages("Metadata of a name, which may be created", metadata(12, true), of("T DESCRIBE", "T CREATE")...),
	stages("Metadata of ids", func(t *T, topic, _ string) (kmsg.Request, int16) {
		t.As("")
		req := kmsg.NewPtrMetadataRequest()
		for _, id := range [][16]byte{t.TopicID(topic), {1}} {
			req.Topics = append(req.Topics, kmsg.MetadataRequestTopic{TopicID: id})
		}
		return req, 12
	}, of("T DESCRIBE")...),
	stages("Metadata of all topics", func(*T, string, string) (kmsg.Request, int16) {
		return kmsg.NewPtrMetadataRequest(), 12
	}, of("T DESCRIBE")...),
	stages("DescribeTopicPartitions", func(_ *T, topic, _ string) (kmsg.Request, int16) {
		req := kmsg.NewPtrDescribeTopicPartitionsRequest()
		req.ResponsePartitionLimit = 100
		req.Topics = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: topic}, {Topic: noTopic}}
		return req, 0
	}, of("T DESCRIBE")...),
	stages("OffsetCommit", func(_ *T, topic, group string) (kmsg.Request, int16) {
		req := kmsg.NewPtrOffsetCommitRequest()
		req.Group, req.Generation = group, -1
		for _, name := range []string{topic, noTopic} {
			rt := kmsg.NewOffsetCommitRequestTopic()
			rt.Topic = name
			rt.Partitions = append(rt.Partitions, kmsg.NewOffsetCommitRequestTopicPartition())
			req.Topics = append(req.Topics, rt)
		}
		return req, 7
	}, of("G DESCRIBE", "T DESCRIBE", "G READ", "T READ")...),
	stages("OffsetFetch", func(t *T, topic, group string) (kmsg.Request, int16) {
		t.As("")
		t.coordinated(group)
		req := kmsg.NewPtrOffsetFetchRequest()
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = group
		for _, name := range []string{topic, noTopic} {
			gt := kmsg.NewOffsetFetchRequestGroupTopic()
			gt.Topic, gt.Partitions = name, []int32{0}
			g.Topics = append(g.Topics, gt)
		}
		req.Groups = append(req.Groups, g)
		return req, 8
	}, of("T DESCRIBE", "G DESCRIBE")...),
	stages("OffsetFetch of all topics", func(t *T, topic, group string) (kmsg.Request, int16) {
		t.As("")
		t.coordinated(group)
		commit := kmsg.NewPtrOffsetCommitRequest()
		commit.Version, commit.Group, commit.Generation = 7, group, -1
		rt := kmsg.NewOffsetCommitRequestTopic()
		rt.Topic = topic
		rt.Partitions = append(rt.Partitions, kmsg.NewOffsetCommitRequestTopicPartition())
		commit.Topics = append(commit.Topics, rt)
		t.ask(commit)
		req := kmsg.NewPtrOffsetFetchRequest()
		req.Group = group
		req.Topics = nil
		return req, 7
	}, of("G DESCRIBE", "T DESCRIBE")...),
	stages("FindCoordinator", func(_ *T, _, group string) (kmsg.Request, int16) {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorKeys = []string{group, "other"}
		return req, 4
	}, of("G DESCRIBE")...),
	stages("FindCoordinator of one", func(_ *T, _, group string) (kmsg.Request, int16) {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorKey = group
		return req, 2
	}),
	stages("JoinGroup", func(_ *T, _, group string) (kmsg.Request, int16) {
		req := joinOf(group, "")
		return req, 5
	}, of("G DESCRIBE", "G READ")...),
	stages("Heartbeat", func(_ *T, _, group string) (kmsg.Request, int16) {
		req := kmsg.NewPtrHeartbeatRequest()
		req.Group, req.MemberID = group, "m"
		return req, 3
	}, of("G DESCRIBE", "G READ")...),
	stages("LeaveGroup", func(_ *T, _, group string) (kmsg.Request, int16) {
		req := kmsg.NewPtrLeaveGroupRequest()
		req.Group = group
		m := kmsg.NewLeaveGroupRequestMember()
		m.MemberID = "m"
		req.Members = append(req.Members, m)
		return req, 4
	}, of("G DESCRIBE", "G READ")...),
	stages("SyncGroup", func(_ *T, _, group string) (kmsg.Request, int16) {
		req := kmsg.NewPtrSyncGroupRequest()
		req.Group, req.MemberID = group, "m"
		return req, 3
	}, of("G DESCRIBE", "G READ")...),
	stages("DescribeGroups", func(t *T, _, group string) (kmsg.Request, int16) {
		t.As("")
		t.coordinated(group)
		req := kmsg.NewPtrDescribeGroupsRequest()
		req.Groups, req.IncludeAuthorizedOperations = []string{group, "other"}, true
		return req, 5
	}, of("G DESCRIBE", "G DELETE")...),
	stages("DeleteGroups", func(t *T, _, group string) (kmsg.Request, int16) {
		t.As("")
		t.coordinated(group)
		req := kmsg.NewPtrDeleteGroupsRequest()
		req.Groups = []string{group}
		return req, 2
	}, of("G DESCRIBE", "G DELETE")...),
	stages("OffsetDelete", func(t *T, topic, group string) (kmsg.Request, int16) {
		t.As("")
		t.coordinated(group)
		commit := kmsg.NewPtrOffsetCommitRequest()
		commit.Version, commit.Group, commit.Generation = 7, group, -1
		ct := kmsg.NewOffsetCommitRequestTopic()
		ct.Topic = topic
		ct.Partitions = append(ct.Partitions, kmsg.NewOffsetCommitRequestTopicPartition())
		commit.Topics = append(commit.Topics, ct)
		t.ask(commit)
		req := kmsg.NewPtrOffsetDeleteRequest()
		req.Group = group
		for _, name := range []string{topic, noTopic} {
			rt := kmsg.NewOffsetDeleteRequestTopic()
			rt.Topic = name
			rt.Partitions = append(rt.Partitions, kmsg.NewOffsetDeleteRequestTopicPartition())
			req.Topics = append(req.Topics, rt)
		}
		return req, 0
	}, of("G DESCRIBE", "G DELETE", "T DESCRIBE", "T READ")...),
}

func metadata(version int16, create bool) func(*T, string, string) (kmsg.Request, int16) {
	return func(t *T, topic, _ string) (kmsg.Request, int16) {
		other := noTopic
		if create {
			other = "new-" + topic
			t.Alias(other, "a-new-topic")
		}
		req := kmsg.NewPtrMetadataRequest()
		req.AllowAutoTopicCreation, req.IncludeTopicAuthorizedOperations = false, true
		req.Topics = []kmsg.MetadataRequestTopic{{Topic: &topic}, {Topic: &other}}
		return req, version
	}
}
