package gateway

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/gateway/listen"
	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/acl"
)

func asSuper(listen.Client) security.Identity {
	return security.Identity{Principal: security.User("root")}
}

func clusterRows() (rows []matrixRow) {
	cluster := func(api kmsg.Key, op acl.Operation, allowed int16, ask func(c *matrixCase) int16) {
		rows = append(rows, matrixRow{api: api, name: "of the cluster", op: op, kind: acl.Cluster, resource: acl.ClusterName, allowed: allowed, denied: cluster31, ask: ask})
	}
	rows = append(rows, configsRow(kmsg.ConfigResourceTypeBroker, "broker", acl.Cluster, acl.ClusterName, cluster31)...)
	cluster(kmsg.DescribeACLs, acl.Describe, 0, func(c *matrixCase) int16 {
		req := kmsg.NewPtrDescribeACLsRequest()
		req.ResourceType, req.ResourcePatternType, req.Operation, req.PermissionType = 1, 1, 1, 1
		return c.ask(req).(*kmsg.DescribeACLsResponse).ErrorCode
	})
	cluster(kmsg.CreateACLs, acl.Alter, 0, func(c *matrixCase) int16 {
		req := kmsg.NewPtrCreateACLsRequest()
		req.Creations = []kmsg.CreateACLsRequestCreation{{ResourceType: 2, ResourcePatternType: 3, ResourceName: "x", Principal: "User:x", Host: "*", Operation: 3, PermissionType: 3}}
		return c.ask(req).(*kmsg.CreateACLsResponse).Results[0].ErrorCode
	})
	cluster(kmsg.DeleteACLs, acl.Alter, 0, func(c *matrixCase) int16 {
		req := kmsg.NewPtrDeleteACLsRequest()
		req.Filters = []kmsg.DeleteACLsRequestFilter{{ResourceType: 2, ResourcePatternType: 3, Operation: 1, PermissionType: 1}}
		return c.ask(req).(*kmsg.DeleteACLsResponse).Results[0].ErrorCode
	})
	cluster(kmsg.DescribeUserSCRAMCredentials, acl.Describe, 0, func(c *matrixCase) int16 {
		return c.ask(kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()).(*kmsg.DescribeUserSCRAMCredentialsResponse).ErrorCode
	})
	cluster(kmsg.AlterUserSCRAMCredentials, acl.Alter, 0, func(c *matrixCase) int16 {
		return c.ask(upsertion("u", 1, 4096, 32)).(*kmsg.AlterUserSCRAMCredentialsResponse).Results[0].ErrorCode
	})
	cluster(kmsg.AlterReplicaLogDirs, acl.Alter, kerr.LogDirNotFound.Code, func(c *matrixCase) int16 {
		req := kmsg.NewPtrAlterReplicaLogDirsRequest()
		req.Dirs = []kmsg.AlterReplicaLogDirsRequestDir{{Dir: "/x", Topics: []kmsg.AlterReplicaLogDirsRequestDirTopic{{Topic: "events-1", Partitions: []int32{0}}}}}
		return c.ask(req).(*kmsg.AlterReplicaLogDirsResponse).Topics[0].Partitions[0].ErrorCode
	})
	cluster(kmsg.DescribeLogDirs, acl.Describe, 0, func(c *matrixCase) int16 {
		req := kmsg.NewPtrDescribeLogDirsRequest()
		req.Version = 3
		resp := c.ask(req).(*kmsg.DescribeLogDirsResponse)
		if resp.ErrorCode != 0 && len(resp.Dirs) > 0 {
			return -1
		}
		return resp.ErrorCode
	})
	cluster(kmsg.ElectLeaders, acl.Alter, kerr.ElectionNotNeeded.Code, func(c *matrixCase) int16 {
		req := kmsg.NewPtrElectLeadersRequest()
		req.Version = 2
		req.Topics = []kmsg.ElectLeadersRequestTopic{{Topic: "events-1", Partitions: []int32{0}}}
		resp := c.ask(req).(*kmsg.ElectLeadersResponse)
		if code := resp.Topics[0].Partitions[0].ErrorCode; resp.ErrorCode == 0 || resp.ErrorCode == code {
			return code
		}
		return -1
	})
	cluster(kmsg.AlterPartitionAssignments, acl.Alter, 0, func(c *matrixCase) int16 {
		return c.ask(kmsg.NewPtrAlterPartitionAssignmentsRequest()).(*kmsg.AlterPartitionAssignmentsResponse).ErrorCode
	})
	cluster(kmsg.ListPartitionReassignments, acl.Describe, 0, func(c *matrixCase) int16 {
		return c.ask(kmsg.NewPtrListPartitionReassignmentsRequest()).(*kmsg.ListPartitionReassignmentsResponse).ErrorCode
	})
	cluster(kmsg.DescribeClientQuotas, acl.DescribeConfigs, 0, func(c *matrixCase) int16 {
		return c.ask(kmsg.NewPtrDescribeClientQuotasRequest()).(*kmsg.DescribeClientQuotasResponse).ErrorCode
	})
	cluster(kmsg.DescribeQuorum, acl.Describe, 0, func(c *matrixCase) int16 {
		return c.ask(kmsg.NewPtrDescribeQuorumRequest()).(*kmsg.DescribeQuorumResponse).ErrorCode
	})
	cluster(kmsg.UpdateFeatures, acl.Alter, 0, func(c *matrixCase) int16 {
		return c.ask(kmsg.NewPtrUpdateFeaturesRequest()).(*kmsg.UpdateFeaturesResponse).ErrorCode
	})
	cluster(kmsg.ListConfigResources, acl.DescribeConfigs, 0, func(c *matrixCase) int16 {
		req := kmsg.NewPtrListConfigResourcesRequest()
		req.Version = 1
		resp := c.ask(req).(*kmsg.ListConfigResourcesResponse)
		if resp.ErrorCode != 0 && len(resp.ConfigResources) > 0 {
			return -1
		}
		return resp.ErrorCode
	})
	initProducer := func(id *string) func(c *matrixCase) int16 {
		return func(c *matrixCase) int16 {
			req := kmsg.NewPtrInitProducerIDRequest()
			req.TransactionalID = id
			return c.ask(req).(*kmsg.InitProducerIDResponse).ErrorCode
		}
	}
	cluster(kmsg.InitProducerID, acl.IdempotentWrite, 0, initProducer(nil))
	rows = append(rows, matrixRow{api: kmsg.InitProducerID, name: "of a topic", op: acl.Write, kind: acl.Topic, resource: "events-1", denied: cluster31, some: true, ask: initProducer(nil)})
	own := func(key kmsg.Key, op acl.Operation, body []byte) {
		cluster(key, op, 0, func(c *matrixCase) int16 {
			c.f.status = statusOfFake
			code, _ := c.own(int16(key), body)
			return code
		})
	}
	own(StatusKey, acl.Describe, nil)
	own(ReplicaCheckKey, acl.Alter, append([]byte{0, 8}, "events-1\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"...))
	own(AdministerKey, acl.Alter, []byte(`{"op":"drain","node":"n1"}`))
	own(BackupKey, acl.Alter, backupBody(`{"op":"catalog","topic":"00000000000000000000000000000000","partition":0}`))
	return rows
}

// upsertion gives a user a password that is so many bytes when it is salted.
func upsertion(user string, mechanism int8, iterations int32, size int) *kmsg.AlterUserSCRAMCredentialsRequest {
	req := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
	up := kmsg.NewAlterUserSCRAMCredentialsRequestUpsertion()
	up.Name, up.Mechanism, up.Iterations, up.Salt, up.SaltedPassword = user, mechanism, iterations, []byte("salt"), make([]byte, size)
	req.Upsertions = append(req.Upsertions, up)
	return req
}
