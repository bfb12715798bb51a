package gateway

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/security/acl"
)

// statusOfFake is what a cluster with the matrix's topics says of itself.
func statusOfFake(context.Context) (*admin.Status, error) {
	return &admin.Status{ClusterID: "fake", Controller: "n1", Nodes: []admin.NodeStatus{{ID: "n1", PeerAddress: "peer:1"}},
		Topics: []admin.TopicStatus{{Name: "events-1"}, {Name: "public"}}}, nil
}

func groupRows() (rows []matrixRow) {
	group := func(api kmsg.Key, name string, op acl.Operation, allowed int16, ask func(c *matrixCase) int16, given ...acl.Binding) {
		rows = append(rows, matrixRow{api: api, name: name, op: op, kind: acl.Group, resource: "readers-1", given: given, allowed: allowed, denied: group30, ask: ask})
	}
	topic := func(api kmsg.Key, name string, op acl.Operation, ask func(c *matrixCase) int16, given ...acl.Binding) {
		rows = append(rows, matrixRow{api: api, name: name, op: op, kind: acl.Topic, resource: "events-1", given: given, denied: topic29, ask: ask})
	}
	commit := func(version int16) func(c *matrixCase) int16 {
		return func(c *matrixCase) int16 {
			return c.ask(commitOf(c.f, version)).(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode
		}
	}
	group(kmsg.OffsetCommit, "of the group", acl.Read, 0, commit(2), allow(acl.Topic, "events-1", acl.Read))
	topic(kmsg.OffsetCommit, "of the topic", acl.Read, commit(2), allow(acl.Group, "readers-1", acl.Read))
	topic(kmsg.OffsetCommit, "of the topic by id", acl.Read, commit(10), allow(acl.Group, "readers-1", acl.Read))
	fetch := func(version int16, all bool) func(c *matrixCase) int16 {
		return func(c *matrixCase) int16 { return fetchedOffset(c, version, all) }
	}
	describeTopic, describeGroup := allow(acl.Topic, "events-1", acl.Describe), allow(acl.Group, "readers-1", acl.Describe)
	group(kmsg.OffsetFetch, "of the group, v1", acl.Describe, 0, fetch(1, false), describeTopic)
	group(kmsg.OffsetFetch, "of the group, v5", acl.Describe, 0, fetch(5, false), describeTopic)
	group(kmsg.OffsetFetch, "of the group, v8", acl.Describe, 0, fetch(8, false), describeTopic)
	topic(kmsg.OffsetFetch, "of the topic, v5", acl.Describe, fetch(5, false), describeGroup)
	topic(kmsg.OffsetFetch, "of the topic, v8", acl.Describe, fetch(8, false), describeGroup)
	topic(kmsg.OffsetFetch, "of the topic by id", acl.Describe, fetch(10, false), describeGroup)
	for _, v := range []int16{5, 8} {
		rows = append(rows, matrixRow{api: kmsg.OffsetFetch, name: "all", op: acl.Describe, kind: acl.Topic, resource: "events-1", given: []acl.Binding{describeGroup}, denied: hidden, quiet: true, ask: fetch(v, true)})
	}
	group(kmsg.FindCoordinator, "v3", acl.Describe, 0, func(c *matrixCase) int16 {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.Version, req.CoordinatorKey = 3, "readers-1"
		return c.ask(req).(*kmsg.FindCoordinatorResponse).ErrorCode
	})
	group(kmsg.FindCoordinator, "v4", acl.Describe, 0, func(c *matrixCase) int16 {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.Version, req.CoordinatorKeys = 4, []string{"readers-1"}
		return c.ask(req).(*kmsg.FindCoordinatorResponse).Coordinators[0].ErrorCode
	})
	rows = append(rows, matrixRow{api: kmsg.FindCoordinator, name: "transactional", op: acl.Describe, kind: acl.TransactionalID, resource: "txn-1", denied: txn53, ask: func(c *matrixCase) int16 {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.Version, req.CoordinatorType, req.CoordinatorKey = 3, 1, "txn-1"
		return c.ask(req).(*kmsg.FindCoordinatorResponse).ErrorCode
	}})
	group(kmsg.JoinGroup, "v2", acl.Read, kerr.InvalidSessionTimeout.Code, func(c *matrixCase) int16 {
		req := kmsg.NewPtrJoinGroupRequest()
		req.Version, req.Group, req.ProtocolType, req.SessionTimeoutMillis = 2, "readers-1", "consumer", 1
		req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range"}}
		return c.ask(req).(*kmsg.JoinGroupResponse).ErrorCode
	})
	group(kmsg.SyncGroup, "v1", acl.Read, kerr.UnknownMemberID.Code, func(c *matrixCase) int16 {
		req := kmsg.NewPtrSyncGroupRequest()
		req.Version, req.Group, req.MemberID = 1, "readers-1", "m"
		return c.ask(req).(*kmsg.SyncGroupResponse).ErrorCode
	})
	group(kmsg.Heartbeat, "v1", acl.Read, kerr.UnknownMemberID.Code, func(c *matrixCase) int16 {
		req := kmsg.NewPtrHeartbeatRequest()
		req.Version, req.Group, req.MemberID = 1, "readers-1", "m"
		return c.ask(req).(*kmsg.HeartbeatResponse).ErrorCode
	})
	group(kmsg.LeaveGroup, "v1", acl.Read, kerr.UnknownMemberID.Code, func(c *matrixCase) int16 {
		req := kmsg.NewPtrLeaveGroupRequest()
		req.Version, req.Group, req.MemberID = 1, "readers-1", "m"
		return c.ask(req).(*kmsg.LeaveGroupResponse).ErrorCode
	})
	group(kmsg.DescribeGroups, "v5", acl.Describe, 0, func(c *matrixCase) int16 {
		req := kmsg.NewPtrDescribeGroupsRequest()
		req.Version, req.Groups = 5, []string{"readers-1"}
		return c.ask(req).(*kmsg.DescribeGroupsResponse).Groups[0].ErrorCode
	})
	group(kmsg.DeleteGroups, "v0", acl.Delete, kerr.GroupIDNotFound.Code, func(c *matrixCase) int16 {
		req := kmsg.NewPtrDeleteGroupsRequest()
		req.Groups = []string{"readers-1"}
		return c.ask(req).(*kmsg.DeleteGroupsResponse).Groups[0].ErrorCode
	})
	group(kmsg.OffsetDelete, "of the group", acl.Delete, 0, func(c *matrixCase) int16 { return deletedOffset(c) }, allow(acl.Topic, "events-1", acl.Read))
	topic(kmsg.OffsetDelete, "of the topic", acl.Read, func(c *matrixCase) int16 { return deletedOffset(c) }, allow(acl.Group, "readers-1", acl.Delete))
	list := func(name string, kind acl.ResourceType, resource string) {
		rows = append(rows, matrixRow{api: kmsg.ListGroups, name: name, op: acl.Describe, kind: kind, resource: resource, denied: hidden, quiet: true, ask: func(c *matrixCase) int16 {
			c.asRoot(commitOf(c.f, 2))
			var names []string
			for _, g := range c.ask(kmsg.NewPtrListGroupsRequest()).(*kmsg.ListGroupsResponse).Groups {
				names = append(names, g.Group)
			}
			return listed1(names)
		}})
	}
	list("by the group", acl.Group, "readers-1")
	list("by the cluster", acl.Cluster, acl.ClusterName)
	rows = append(rows, configsRow(kmsg.ConfigResourceTypeGroupConfig, "group", acl.Group, "readers-1", group30)...)
	return rows
}

func commitOf(f *fakeCluster, version int16) *kmsg.OffsetCommitRequest {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group = version, "readers-1"
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic, t.TopicID = "events-1", f.id("events-1", 0).Topic
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Offset = 7
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	return req
}

// asRoot has a super user ask, by another connection.
func (c *matrixCase) asRoot(req kmsg.Request) {
	c.t.Helper()
	was := c.g.who.Load()
	c.g.as(asSuper)
	defer c.g.who.Store(was)
	c.g.dial().ask(req)
}

// fetchedOffset is the code of a topic's offset, or whether a list has it.
func fetchedOffset(c *matrixCase, version int16, all bool) int16 {
	c.asRoot(commitOf(c.f, 2))
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Version, req.Group = version, "readers-1"
	group := kmsg.OffsetFetchRequestGroup{Group: "readers-1"}
	if !all {
		req.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: "events-1", Partitions: []int32{0}}}
		group.Topics = []kmsg.OffsetFetchRequestGroupTopic{{Topic: "events-1", TopicID: c.f.id("events-1", 0).Topic, Partitions: []int32{0}}}
	}
	req.Groups = []kmsg.OffsetFetchRequestGroup{group}
	resp := c.ask(req).(*kmsg.OffsetFetchResponse)
	type offset struct {
		topic string
		code  int16
	}
	code := resp.ErrorCode
	var offsets []offset
	for _, t := range resp.Topics {
		offsets = append(offsets, offset{t.Topic, t.Partitions[0].ErrorCode})
	}
	for _, g := range resp.Groups {
		code = g.ErrorCode
		for _, t := range g.Topics {
			offsets = append(offsets, offset{"events-1", t.Partitions[0].ErrorCode})
		}
	}
	switch {
	case code != 0:
		return code
	case all && len(offsets) == 0:
		return hidden
	case len(offsets) != 1:
		return -1
	}
	return offsets[0].code
}

func deletedOffset(c *matrixCase) int16 {
	c.asRoot(commitOf(c.f, 2))
	req := kmsg.NewPtrOffsetDeleteRequest()
	req.Group = "readers-1"
	req.Topics = []kmsg.OffsetDeleteRequestTopic{{Topic: "events-1", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{}}}}
	resp := c.ask(req).(*kmsg.OffsetDeleteResponse)
	if resp.ErrorCode != 0 {
		return resp.ErrorCode
	}
	return resp.Topics[0].Partitions[0].ErrorCode
}
