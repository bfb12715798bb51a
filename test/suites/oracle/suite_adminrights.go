package oracle

import "github.com/twmb/franz-go/pkg/kmsg"

var adminRightCases = []Case{
	stages("CreateTopics", func(t *T, topic, _ string) (kmsg.Request, int16) {
		return create(true, named(topic+"-new"), named(topic), named("no such name")), 5
	}, of("T CREATE", "C CREATE")...),
	stages("DeleteTopics", func(t *T, topic, _ string) (kmsg.Request, int16) {
		req := kmsg.NewPtrDeleteTopicsRequest()
		req.TimeoutMillis, req.TopicNames = 10_000, []string{topic, noTopic}
		return req, 4
	}, of("T DESCRIBE", "T DELETE")...),
	stages("DeleteTopics by id", func(t *T, topic, _ string) (kmsg.Request, int16) {
		t.As("")
		req := kmsg.NewPtrDeleteTopicsRequest()
		req.TimeoutMillis = 10_000
		for _, id := range [][16]byte{t.TopicID(topic), {1}} {
			req.Topics = append(req.Topics, kmsg.DeleteTopicsRequestTopic{TopicID: id})
		}
		return req, 6
	}, of("T DESCRIBE", "T DELETE")...),
	stages("DeleteRecords", func(t *T, topic, _ string) (kmsg.Request, int16) {
		req := kmsg.NewPtrDeleteRecordsRequest()
		req.TimeoutMillis = 10_000
		for _, name := range []string{topic, noTopic} {
			rt := kmsg.NewDeleteRecordsRequestTopic()
			rt.Topic = name
			rt.Partitions = append(rt.Partitions, kmsg.NewDeleteRecordsRequestTopicPartition())
			req.Topics = append(req.Topics, rt)
		}
		return req, 2
	}, of("T DESCRIBE", "T DELETE")...),
	stages("InitProducerID", func(t *T, _, _ string) (kmsg.Request, int16) {
		t.producing()
		return kmsg.NewPtrInitProducerIDRequest(), 4
	}, of("T WRITE")...),
	stages("InitProducerID with a right of the cluster", func(t *T, _, _ string) (kmsg.Request, int16) {
		t.producing()
		return kmsg.NewPtrInitProducerIDRequest(), 4
	}, of("C IDEMPOTENT_WRITE")...),
	stages("OffsetForLeaderEpoch", func(_ *T, topic, _ string) (kmsg.Request, int16) {
		req := kmsg.NewPtrOffsetForLeaderEpochRequest()
		req.ReplicaID = -1
		for _, name := range []string{topic, noTopic} {
			rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
			rt.Topic = name
			rp := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
			rp.LeaderEpoch = 9999
			rt.Partitions = append(rt.Partitions, rp)
			req.Topics = append(req.Topics, rt)
		}
		return req, 3
	}, of("T DESCRIBE")...),
	stages("DescribeConfigs", func(t *T, topic, group string) (kmsg.Request, int16) {
		req := kmsg.NewPtrDescribeConfigsRequest()
		for kind, names := range map[kmsg.ConfigResourceType][]string{kmsg.ConfigResourceTypeTopic: {topic}} {
			for _, name := range names {
				r := kmsg.NewDescribeConfigsRequestResource()
				r.ResourceType, r.ResourceName, r.ConfigNames = kind, name, []string{}
				req.Resources = append(req.Resources, r)
			}
		}
		return req, 1
	}, of("T DESCRIBE", "T DESCRIBE_CONFIGS")...),
	stages("DescribeConfigs of a topic that is not there", func(*T, string, string) (kmsg.Request, int16) {
		return describeConfigs(kmsg.ConfigResourceTypeTopic, noTopic), 1
	}, "DESCRIBE_CONFIGS TOPIC "+noTopic+"%.0[1]s"),
	stages("DescribeConfigs of the broker", func(*T, string, string) (kmsg.Request, int16) {
		return describeConfigs(kmsg.ConfigResourceTypeBroker, "1"), 1
	}, of("C DESCRIBE", "C DESCRIBE_CONFIGS")...),
	stages("DescribeConfigs of a group", func(_ *T, _, group string) (kmsg.Request, int16) {
		return describeConfigs(32, group), 1
	}, of("G DESCRIBE", "G DESCRIBE_CONFIGS")...),
	stages("IncrementalAlterConfigs", func(_ *T, topic, _ string) (kmsg.Request, int16) {
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		for _, name := range []string{topic, noTopic} {
			r := kmsg.NewIncrementalAlterConfigsRequestResource()
			r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, name
			c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
			c.Name, c.Value = "retention.ms", kmsg.StringPtr("5")
			r.Configs = append(r.Configs, c)
			req.Resources = append(req.Resources, r)
		}
		return req, 1
	}, of("T ALTER", "T ALTER_CONFIGS")...),
	stages("AlterConfigs", func(_ *T, topic, _ string) (kmsg.Request, int16) {
		req := kmsg.NewPtrAlterConfigsRequest()
		r := kmsg.NewAlterConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, topic
		req.Resources = append(req.Resources, r)
		return req, 1
	}, of("T ALTER_CONFIGS")...),
	stages("IncrementalAlterConfigs of the broker", func(*T, string, string) (kmsg.Request, int16) {
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		r := kmsg.NewIncrementalAlterConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeBroker, "1"
		req.Resources = append(req.Resources, r)
		return req, 1
	}, of("C ALTER", "C ALTER_CONFIGS")...),
	stages("DescribeLogDirs", func(_ *T, topic, _ string) (kmsg.Request, int16) {
		req := kmsg.NewPtrDescribeLogDirsRequest()
		rt := kmsg.NewDescribeLogDirsRequestTopic()
		rt.Topic, rt.Partitions = topic, []int32{0}
		req.Topics = append(req.Topics, rt)
		return req, 3
	}),
	stages("CreatePartitions", func(_ *T, topic, _ string) (kmsg.Request, int16) {
		req := kmsg.NewPtrCreatePartitionsRequest()
		req.TimeoutMillis, req.ValidateOnly = 10_000, true
		for _, name := range []string{topic, noTopic} {
			rt := kmsg.NewCreatePartitionsRequestTopic()
			rt.Topic, rt.Count = name, 2
			req.Topics = append(req.Topics, rt)
		}
		return req, 2
	}, of("T DESCRIBE", "T ALTER")...),
	stages("AlterPartitionAssignments", func(*T, string, string) (kmsg.Request, int16) {
		req := kmsg.NewPtrAlterPartitionAssignmentsRequest()
		req.TimeoutMillis = 10_000
		return req, 0
	}, of("C DESCRIBE", "C ALTER")...),
	stages("ListPartitionReassignments", func(*T, string, string) (kmsg.Request, int16) {
		req := kmsg.NewPtrListPartitionReassignmentsRequest()
		req.TimeoutMillis = 10_000
		return req, 0
	}, of("C DESCRIBE")...),
	stages("ElectLeaders", func(_ *T, topic, _ string) (kmsg.Request, int16) {
		req := kmsg.NewPtrElectLeadersRequest()
		req.TimeoutMillis = 10_000
		rt := kmsg.NewElectLeadersRequestTopic()
		rt.Topic, rt.Partitions = topic, []int32{0}
		req.Topics = append(req.Topics, rt)
		return req, 2
	}, of("C DESCRIBE", "C ALTER")...),
	stages("DescribeClientQuotas", func(*T, string, string) (kmsg.Request, int16) {
		return kmsg.NewPtrDescribeClientQuotasRequest(), 1
	}, of("C DESCRIBE", "C DESCRIBE_CONFIGS")...),
	stages("DescribeUserSCRAMCredentials", func(*T, string, string) (kmsg.Request, int16) {
		req := kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
		req.Users = []kmsg.DescribeUserSCRAMCredentialsRequestUser{{Name: "nobody"}}
		return req, 0
	}, of("C DESCRIBE")...),
	stages("AlterUserSCRAMCredentials", func(*T, string, string) (kmsg.Request, int16) {
		req := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
		req.Deletions = []deletion{{Name: "nobody", Mechanism: 1}, {Name: "somebody", Mechanism: 9}}
		return req, 0
	}, of("C DESCRIBE", "C ALTER")...),
	stages("DescribeACLs", func(*T, string, string) (kmsg.Request, int16) {
		return filterAny(func(f *kmsg.DescribeACLsRequest) { f.ResourceName = kmsg.StringPtr("nobody has it") }), 3
	}, of("C DESCRIBE")...),
	stages("CreateACLs", func(*T, string, string) (kmsg.Request, int16) {
		req := kmsg.NewPtrCreateACLsRequest()
		req.Creations = append(req.Creations, entry(""), entry(""))
		return req, 3
	}, of("C DESCRIBE", "C ALTER")...),
	stages("DeleteACLs", func(*T, string, string) (kmsg.Request, int16) {
		req := kmsg.NewPtrDeleteACLsRequest()
		f := kmsg.NewDeleteACLsRequestFilter()
		f.ResourceType, f.ResourceName, f.ResourcePatternType = kmsg.ACLResourceTypeAny, kmsg.StringPtr("nobody has it"), kmsg.ACLResourcePatternTypeAny
		f.Operation, f.PermissionType = kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
		req.Filters = append(req.Filters, f)
		return req, 3
	}, of("C DESCRIBE", "C ALTER")...),
	stages("DescribeQuorum", func(*T, string, string) (kmsg.Request, int16) {
		req := kmsg.NewPtrDescribeQuorumRequest()
		rt := kmsg.NewDescribeQuorumRequestTopic()
		rt.Topic = "__cluster_metadata"
		rt.Partitions = append(rt.Partitions, kmsg.NewDescribeQuorumRequestTopicPartition())
		req.Topics = append(req.Topics, rt)
		return req, 1
	}),
	stages("UpdateFeatures", func(*T, string, string) (kmsg.Request, int16) {
		req := kmsg.NewPtrUpdateFeaturesRequest()
		req.ValidateOnly, req.TimeoutMillis = true, 10_000
		return req, 1
	}, of("C DESCRIBE")...),
	stages("DescribeCluster", func(*T, string, string) (kmsg.Request, int16) {
		req := kmsg.NewPtrDescribeClusterRequest()
		req.IncludeClusterAuthorizedOperations = true
		return req, 0
	}, of("C DESCRIBE", "C ALTER", "C ALTER_CONFIGS")...),
	stages("DescribeProducers", func(_ *T, topic, _ string) (kmsg.Request, int16) {
		req := kmsg.NewPtrDescribeProducersRequest()
		for _, name := range []string{topic, noTopic} {
			rt := kmsg.NewDescribeProducersRequestTopic()
			rt.Topic, rt.Partitions = name, []int32{0}
			req.Topics = append(req.Topics, rt)
		}
		return req, 0
	}, of("T DESCRIBE", "T READ")...),
	stages("ListConfigResources", func(*T, string, string) (kmsg.Request, int16) {
		req := kmsg.NewPtrListConfigResourcesRequest()
		req.ResourceTypes = []int8{16}
		return req, 1
	}, of("C DESCRIBE", "C DESCRIBE_CONFIGS")...),
	{"denials win", func(t *T) {
		topic, user := t.Topic(), t.User()
		request := metadata(12, false)
		t.Allow(user, "ALL TOPIC "+topic)
		t.step(user, "with all allowed", topic, "", request)
		t.Deny(user, "WRITE TOPIC "+topic)
		t.step(user, "with WRITE denied", topic, "", request)
		t.Deny(user, "DESCRIBE TOPIC "+topic)
		t.step(user, "with DESCRIBE denied", topic, "", request)
	}},
	{"ListGroups", func(t *T) {
		user, group := t.User(), t.Name()
		t.Alias(group, "group")
		t.coordinated(group)
		t.commit(group, "", -1, t.Topic(), 0, 5, "")
		list := func(what string) {
			t.As(user)
			resp := t.ask(kmsg.NewPtrListGroupsRequest()).(*kmsg.ListGroupsResponse)
			there := false
			for _, g := range resp.Groups {
				there = there || g.Group == group
			}
			t.Say("%s: %s, the group is listed: %v", what, errorName(resp.ErrorCode), there)
		}
		list("with no right")
		t.Allow(user, "READ GROUP "+group)
		list("with READ of it")
	}},
}

func describeConfigs(kind kmsg.ConfigResourceType, name string) kmsg.Request {
	req := kmsg.NewPtrDescribeConfigsRequest()
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName, r.ConfigNames = kind, name, []string{}
	req.Resources = append(req.Resources, r)
	return req
}
