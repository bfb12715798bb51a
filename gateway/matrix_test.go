package gateway

import (
	"encoding/binary"
	"encoding/json"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/security/acl"
)

// matrixRow asks for something and needs one right that matters; others are given.
type matrixRow struct {
	api      kmsg.Key
	name     string
	op       acl.Operation
	kind     acl.ResourceType
	resource string
	given    []acl.Binding
	ask      func(c *matrixCase) int16 // the code of the answer
	allowed  int16
	denied   int16
	quiet    bool // what is denied is left out, and nobody hears of it
	some     bool // a right to anything of the kind is enough, so that a deny of one is not
}

type matrixCase struct {
	*client
	f *fakeCluster
	g *gatewayOf
}

const (
	shown, hidden = int16(0), int16(-99) // what a list has and what it leaves out
	ended         = int16(-98)           // the connection
)

var (
	topic29   = kerr.TopicAuthorizationFailed.Code
	group30   = kerr.GroupAuthorizationFailed.Code
	cluster31 = kerr.ClusterAuthorizationFailed.Code
	txn53     = kerr.TransactionalIDAuthorizationFailed.Code
)

func matrix() []matrixRow {
	rows := topicRows()
	rows = append(rows, groupRows()...)
	rows = append(rows, clusterRows()...)
	rows = append(rows, transactionRows()...)
	return rows
}

func listed1(names []string) int16 {
	for _, n := range names {
		if n == "events-1" || n == "readers-1" {
			return shown
		}
	}
	return hidden
}

func produceRow(version int16, name, topic string, allowed int16) matrixRow {
	return matrixRow{api: kmsg.Produce, name: name, op: acl.Write, kind: acl.Topic, resource: topic, allowed: allowed, denied: topic29, ask: func(c *matrixCase) int16 {
		records := messageSet("a")
		if version >= 3 {
			records = recordBatch("a")
		}
		req := produceAt(version, c.f, "events-1", 0, records)
		req.Topics[0].Topic = topic
		return c.ask(req).(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode
	}}
}

func fetchRow(version int16, name, topic string, allowed int16) matrixRow {
	return matrixRow{api: kmsg.Fetch, name: name, op: acl.Read, kind: acl.Topic, resource: topic, allowed: allowed, denied: topic29, ask: func(c *matrixCase) int16 {
		req := fetchAt(version, c.f, 0, 1<<20, "events-1")
		req.Topics[0].Topic = topic
		return c.ask(req).(*kmsg.FetchResponse).Topics[0].Partitions[0].ErrorCode
	}}
}

func metadataRow(version int16, name, topic string, byID bool, allowed int16) matrixRow {
	return matrixRow{api: kmsg.Metadata, name: name, op: acl.Describe, kind: acl.Topic, resource: topic, allowed: allowed, denied: topic29, ask: func(c *matrixCase) int16 {
		req := metadataOf(topic)
		req.Version = version
		if byID {
			req.Topics[0].Topic, req.Topics[0].TopicID = nil, c.f.id(topic, 0).Topic
		}
		out := c.ask(req).(*kmsg.MetadataResponse).Topics[0]
		if out.ErrorCode == topic29 && (len(out.Partitions) > 0 || !byID && out.TopicID != [16]byte{} || byID && out.Topic != nil) {
			return -1 // it tells more than it should
		}
		return out.ErrorCode
	}}
}

func createRow(name string, op acl.Operation, kind acl.ResourceType, resource string) matrixRow {
	return matrixRow{api: kmsg.CreateTopics, name: name, op: op, kind: kind, resource: resource, allowed: 0, denied: topic29, ask: func(c *matrixCase) int16 {
		req := kmsg.NewPtrCreateTopicsRequest()
		req.Version, req.TimeoutMillis = 5, 5000
		req.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: "new-1", NumPartitions: 1, ReplicationFactor: 1}}
		return c.ask(req).(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode
	}}
}

func deleteRow(version int16, name string, op acl.Operation, kind acl.ResourceType, resource, topic string, allowed int16) matrixRow {
	return matrixRow{api: kmsg.DeleteTopics, name: name, op: op, kind: kind, resource: resource, allowed: allowed, denied: topic29, ask: func(c *matrixCase) int16 {
		req := kmsg.NewPtrDeleteTopicsRequest()
		req.Version, req.TimeoutMillis, req.TopicNames = version, 5000, []string{topic}
		req.Topics = []kmsg.DeleteTopicsRequestTopic{{TopicID: c.f.id("events-1", 0).Topic}}
		return c.ask(req).(*kmsg.DeleteTopicsResponse).Topics[0].ErrorCode
	}}
}

func configsRow(kind kmsg.ConfigResourceType, name string, of acl.ResourceType, resource string, denied int16) []matrixRow {
	text := kmsg.StringPtr("1000")
	alter := int16(0)
	if kind != kmsg.ConfigResourceTypeTopic {
		alter = kerr.InvalidRequest.Code
	}
	return []matrixRow{
		{api: kmsg.DescribeConfigs, name: name, op: acl.DescribeConfigs, kind: of, resource: resource, denied: denied, ask: func(c *matrixCase) int16 {
			return c.ask(describe(4, kind, resourceName(of, resource))).(*kmsg.DescribeConfigsResponse).Resources[0].ErrorCode
		}},
		{api: kmsg.AlterConfigs, name: name, op: acl.AlterConfigs, kind: of, resource: resource, allowed: alter, denied: denied, ask: func(c *matrixCase) int16 {
			req := kmsg.NewPtrAlterConfigsRequest()
			req.Resources = []kmsg.AlterConfigsRequestResource{{ResourceType: kind, ResourceName: resourceName(of, resource), Configs: []kmsg.AlterConfigsRequestResourceConfig{{Name: "retention.ms", Value: text}}}}
			return c.ask(req).(*kmsg.AlterConfigsResponse).Resources[0].ErrorCode
		}},
		{api: kmsg.IncrementalAlterConfigs, name: name, op: acl.AlterConfigs, kind: of, resource: resource, allowed: alter, denied: denied, ask: func(c *matrixCase) int16 {
			req := kmsg.NewPtrIncrementalAlterConfigsRequest()
			req.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{ResourceType: kind, ResourceName: resourceName(of, resource), Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: "retention.ms", Value: text}}}}
			return c.ask(req).(*kmsg.IncrementalAlterConfigsResponse).Resources[0].ErrorCode
		}},
	}
}

func resourceName(of acl.ResourceType, resource string) string {
	if of == acl.Cluster {
		return "1" // the broker
	}
	return resource
}

func topicRows() []matrixRow {
	rows := []matrixRow{
		produceRow(0, "v0", "events-1", 0), produceRow(9, "v9", "events-1", 0), produceRow(13, "by id", "events-1", 0), produceRow(9, "absent", "evening", kerr.UnknownTopicOrPartition.Code),
		fetchRow(0, "v0", "events-1", 0), fetchRow(11, "v11", "events-1", 0), fetchRow(13, "by id", "events-1", 0), fetchRow(11, "absent", "evening", kerr.UnknownTopicOrPartition.Code),
		metadataRow(0, "v0", "events-1", false, 0), metadataRow(12, "by id", "events-1", true, 0), metadataRow(9, "absent", "evening", false, kerr.UnknownTopicOrPartition.Code),
		createRow("of the topic", acl.Create, acl.Topic, "new-1"), createRow("of the cluster", acl.Create, acl.Cluster, acl.ClusterName),
		deleteRow(5, "of the topic", acl.Delete, acl.Topic, "events-1", "events-1", 0), deleteRow(5, "of the cluster", acl.Delete, acl.Cluster, acl.ClusterName, "events-1", 0),
		deleteRow(6, "by id", acl.Delete, acl.Topic, "events-1", "", 0), deleteRow(5, "absent", acl.Describe, acl.Topic, "evening", "evening", kerr.UnknownTopicOrPartition.Code),
	}
	rows = append(rows, configsRow(kmsg.ConfigResourceTypeTopic, "topic", acl.Topic, "events-1", topic29)...)
	topic := func(api kmsg.Key, name string, op acl.Operation, ask func(c *matrixCase) int16) {
		rows = append(rows, matrixRow{api: api, name: name, op: op, kind: acl.Topic, resource: "events-1", denied: topic29, ask: ask})
	}
	topic(kmsg.ListOffsets, "v1", acl.Describe, func(c *matrixCase) int16 {
		req := kmsg.NewPtrListOffsetsRequest()
		req.Version = 1
		req.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: "events-1", Partitions: []kmsg.ListOffsetsRequestTopicPartition{{Timestamp: -1}}}}
		return c.ask(req).(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0].ErrorCode
	})
	topic(kmsg.DeleteRecords, "v0", acl.Delete, func(c *matrixCase) int16 {
		req := kmsg.NewPtrDeleteRecordsRequest()
		req.TimeoutMillis = 5000
		req.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: "events-1", Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Offset: -1}}}}
		return c.ask(req).(*kmsg.DeleteRecordsResponse).Topics[0].Partitions[0].ErrorCode
	})
	topic(kmsg.OffsetForLeaderEpoch, "v3", acl.Describe, func(c *matrixCase) int16 {
		req := kmsg.NewPtrOffsetForLeaderEpochRequest()
		req.Version = 3
		req.Topics = []kmsg.OffsetForLeaderEpochRequestTopic{{Topic: "events-1", Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{{CurrentLeaderEpoch: -1, LeaderEpoch: 1}}}}
		return c.ask(req).(*kmsg.OffsetForLeaderEpochResponse).Topics[0].Partitions[0].ErrorCode
	})
	topic(kmsg.CreatePartitions, "v0", acl.Alter, func(c *matrixCase) int16 {
		req := kmsg.NewPtrCreatePartitionsRequest()
		req.TimeoutMillis = 5000
		req.Topics = []kmsg.CreatePartitionsRequestTopic{{Topic: "events-1", Count: 3}}
		return c.ask(req).(*kmsg.CreatePartitionsResponse).Topics[0].ErrorCode
	})
	topic(kmsg.DescribeProducers, "v0", acl.Read, func(c *matrixCase) int16 {
		req := kmsg.NewPtrDescribeProducersRequest()
		req.Topics = []kmsg.DescribeProducersRequestTopic{{Topic: "events-1", Partitions: []int32{0}}}
		return c.ask(req).(*kmsg.DescribeProducersResponse).Topics[0].Partitions[0].ErrorCode
	})
	topic(kmsg.DescribeTopicPartitions, "named", acl.Describe, func(c *matrixCase) int16 {
		req := kmsg.NewPtrDescribeTopicPartitionsRequest()
		req.Topics = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: "events-1"}}
		return c.ask(req).(*kmsg.DescribeTopicPartitionsResponse).Topics[0].ErrorCode
	})
	list := func(api kmsg.Key, ask func(c *matrixCase) int16) {
		rows = append(rows, matrixRow{api: api, name: "all", op: acl.Describe, kind: acl.Topic, resource: "events-1", given: []acl.Binding{allow(acl.Topic, "public", acl.Describe)}, denied: hidden, quiet: true, ask: ask})
	}
	list(kmsg.Metadata, func(c *matrixCase) int16 {
		req := kmsg.NewPtrMetadataRequest()
		req.Version = 9
		var names []string
		for _, t := range c.ask(req).(*kmsg.MetadataResponse).Topics {
			names = append(names, *t.Topic)
		}
		return listed1(names)
	})
	list(kmsg.DescribeTopicPartitions, func(c *matrixCase) int16 {
		var names []string
		for _, t := range c.ask(kmsg.NewPtrDescribeTopicPartitionsRequest()).(*kmsg.DescribeTopicPartitionsResponse).Topics {
			names = append(names, *t.Topic)
		}
		return listed1(names)
	})
	list(StatusKey, func(c *matrixCase) int16 {
		c.f.status = statusOfFake
		code, body := c.own(StatusKey, nil)
		var status admin.Status
		if code != 0 || json.Unmarshal(body, &status) != nil {
			return code
		}
		var names []string
		for _, t := range status.Topics {
			names = append(names, t.Name)
		}
		return listed1(names)
	})
	autoCreate := func(name string, right acl.ResourceType, resource string) {
		rows = append(rows, matrixRow{api: kmsg.Metadata, name: name, op: acl.Create, kind: right, resource: resource, given: []acl.Binding{allow(acl.Topic, "new-1", acl.Describe)},
			allowed: kerr.LeaderNotAvailable.Code, denied: topic29, ask: func(c *matrixCase) int16 {
				req := metadataOf("new-1")
				req.Version, req.AllowAutoTopicCreation = 4, true
				return c.ask(req).(*kmsg.MetadataResponse).Topics[0].ErrorCode
			}})
	}
	autoCreate("creates by the topic", acl.Topic, "new-1")
	autoCreate("creates by the cluster", acl.Cluster, acl.ClusterName)
	rows = append(rows, matrixRow{api: kmsg.Produce, name: "transactional", op: acl.Write, kind: acl.TransactionalID, resource: "txn-1", given: []acl.Binding{allow(acl.Topic, "events-1", acl.Write)}, denied: txn53,
		ask: func(c *matrixCase) int16 {
			req := produceAt(9, c.f, "events-1", 0, recordBatch("a"))
			req.TransactionID = kmsg.StringPtr("txn-1")
			return c.ask(req).(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode
		}})
	rows = append(rows, matrixRow{api: kmsg.Produce, name: "acks=0", op: acl.Write, kind: acl.Topic, resource: "events-1", denied: ended, ask: func(c *matrixCase) int16 {
		req := produceAt(9, c.f, "events-1", 0, recordBatch("a"))
		req.Acks = 0
		c.send(encode(1, req))
		c.send(encode(2, apiVersions()))
		if _, err := c.frame(); err != nil {
			return ended
		}
		return 0
	}})
	return rows
}

func apiVersions() *kmsg.ApiVersionsRequest {
	return &kmsg.ApiVersionsRequest{}
}

// own asks one of Trimaran's own APIs.
func (c *matrixCase) own(key int16, body []byte) (code int16, answer []byte) {
	c.t.Helper()
	c.send(raw(head(key, 0, body...)...))
	b, err := c.frame()
	if err != nil {
		return ended, nil
	}
	return int16(binary.BigEndian.Uint16(b[8:])), b[14:]
}
