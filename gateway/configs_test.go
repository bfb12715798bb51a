package gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
)

func describe(version int16, typ kmsg.ConfigResourceType, name string, names ...string) *kmsg.DescribeConfigsRequest {
	req := kmsg.NewPtrDescribeConfigsRequest()
	req.Version, req.IncludeSynonyms, req.IncludeDocumentation = version, version >= 1, version >= 3
	req.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: typ, ResourceName: name, ConfigNames: names}}
	return req
}

func configsOf(resp kmsg.Response) map[string]kmsg.DescribeConfigsResponseResourceConfig {
	configs := map[string]kmsg.DescribeConfigsResponseResourceConfig{}
	for _, c := range resp.(*kmsg.DescribeConfigsResponse).Resources[0].Configs {
		configs[c.Name] = c
	}
	return configs
}

// A topic shows all that Kafka knows: what is set, what the node's operator has as
// default, and Kafka's defaults, each with where it comes from.
func TestDescribeConfigsOfATopic(t *testing.T) {
	f := newFake(t)
	if err := f.doCreate(fsm.TopicSpec{Name: "a", Partitions: 1, ReplicationFactor: 3, Configs: map[string]string{"retention.ms": " 5 "}}, false); err != nil {
		t.Fatal(err)
	}
	c := serve(t, f, func(cfg *Config) { cfg.TopicDefaults = map[string]string{"segment.bytes": "1000"} }).dial()
	for v := int16(0); v <= 4; v++ {
		configs := configsOf(c.ask(describe(v, kmsg.ConfigResourceTypeTopic, "a")))
		if len(configs) != len(fsm.Configs()) {
			t.Fatalf("version %d: %d configurations, want %d", v, len(configs), len(fsm.Configs()))
		}
		for name, want := range map[string]struct {
			value  string
			source kmsg.ConfigSource
		}{
			"retention.ms":     {"5", kmsg.ConfigSourceDynamicTopicConfig},
			"segment.bytes":    {"1000", kmsg.ConfigSourceStaticBrokerConfig},
			"cleanup.policy":   {"delete", kmsg.ConfigSourceDefaultConfig},
			"compression.type": {"producer", kmsg.ConfigSourceDefaultConfig},
		} {
			got := configs[name]
			if *got.Value != want.value || got.ReadOnly || got.IsSensitive {
				t.Errorf("version %d: %+v", v, got)
			}
			if v == 0 && got.IsDefault != (want.source == kmsg.ConfigSourceDefaultConfig) || v > 0 && got.Source != want.source {
				t.Errorf("version %d: source of %s: %+v", v, name, got)
			}
		}
		if v == 0 {
			continue
		}
		if s := configs["retention.ms"].ConfigSynonyms; len(s) != 2 || s[0].Name != "retention.ms" || *s[0].Value != "5" || s[1].Name != "log.retention.ms" || s[1].Source != kmsg.ConfigSourceDefaultConfig {
			t.Errorf("version %d: synonyms %+v", v, s)
		}
		if v >= 3 && (configs["retention.ms"].ConfigType != kmsg.ConfigTypeLong || configs["cleanup.policy"].ConfigType != kmsg.ConfigTypeList) {
			t.Errorf("version %d: types", v)
		}
		if v >= 3 && !strings.Contains(*configs["cleanup.policy"].Documentation, "leader has closed") {
			t.Errorf("version %d: nothing says what is compacted: %q", v, *configs["cleanup.policy"].Documentation)
		}
	}
	if configs := configsOf(c.ask(describe(4, kmsg.ConfigResourceTypeTopic, "a", "retention.ms", "colour"))); len(configs) != 1 {
		t.Errorf("two names: %v", configs)
	}
	resp := c.ask(describe(4, kmsg.ConfigResourceTypeTopic, "nothing")).(*kmsg.DescribeConfigsResponse)
	if resp.Resources[0].ErrorCode != kerr.UnknownTopicOrPartition.Code {
		t.Errorf("%+v", resp.Resources[0])
	}
}

func TestDescribeConfigsOfTheBroker(t *testing.T) {
	c := serve(t, newFake(t), nil).dial()
	configs := configsOf(c.ask(describe(4, kmsg.ConfigResourceTypeBroker, "1")))
	for name, want := range map[string]string{"broker.id": "1", "auto.create.topics.enable": "true", "message.max.bytes": "1048588", "log.retention.ms": "604800000"} {
		if got := configs[name]; got.Value == nil || *got.Value != want || !got.ReadOnly {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for name, want := range map[string]int16{"": 0, "2": kerr.InvalidRequest.Code, "x": kerr.InvalidRequest.Code} {
		if got := c.ask(describe(4, kmsg.ConfigResourceTypeBroker, name)).(*kmsg.DescribeConfigsResponse).Resources[0]; got.ErrorCode != want || len(got.Configs) > 0 {
			t.Errorf("broker %q: %+v", name, got)
		}
	}
	if got := c.ask(describe(4, 99, "x")).(*kmsg.DescribeConfigsResponse).Resources[0]; got.ErrorCode != kerr.InvalidRequest.Code {
		t.Errorf("%+v", got)
	}
}

// No names, null or an empty list, mean all; what is asked for again is answered once,
// or a request of two megabytes would have an answer of a gigabyte.
func TestDescribeConfigsOfAllAndOfTheSame(t *testing.T) {
	c := serve(t, newFake(t, "a", "b"), nil).dial()
	for v := int16(0); v <= 4; v++ {
		req := describe(v, kmsg.ConfigResourceTypeTopic, "a")
		req.Resources[0].ConfigNames = []string{}
		if n := len(configsOf(c.ask(req))); n != len(fsm.Configs()) {
			t.Errorf("version %d: an empty list of names gives %d configurations, want %d", v, n, len(fsm.Configs()))
		}
		for range 3 {
			req.Resources = append(req.Resources, req.Resources[0])
		}
		req.Resources = append(req.Resources, kmsg.DescribeConfigsRequestResource{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "b"})
		var names []string
		for _, r := range c.ask(req).(*kmsg.DescribeConfigsResponse).Resources {
			names = append(names, r.ResourceName)
		}
		if got := strings.Join(names, " "); got != "a b" {
			t.Errorf("version %d: a is asked for four times and b once, answered are %s", v, got)
		}
	}
}

// As many configurations as a request can hold are not compared with each other:
// that would take a core for a minute.
func TestManyAlterationsAreLookedThroughQuickly(t *testing.T) {
	began := time.Now()
	var a alteration
	for i := range 200_000 {
		a.change(fmt.Sprintf("%06d", i), fsm.DeleteConfig, nil)
	}
	if a.err != nil {
		t.Error(a.err)
	}
	if took := time.Since(began); took > patience {
		t.Errorf("200,000 different configurations took %v", took)
	}
	if a.change("000007", fsm.DeleteConfig, nil); !errors.Is(a.err, errInvalidRequest) {
		t.Errorf("named twice: %v", a.err)
	}
}

// Altering replaces what is set; altering incrementally changes it.
func TestAlterConfigs(t *testing.T) {
	f := newFake(t, "a")
	c := serve(t, f, nil).dial()
	set := func() map[string]string {
		topic, _ := f.Topics().Lookup("a")
		return topic.Configs
	}
	text := kmsg.StringPtr
	for v := int16(0); v <= 2; v++ {
		req := kmsg.NewPtrAlterConfigsRequest()
		req.Version = v
		req.Resources = []kmsg.AlterConfigsRequestResource{
			{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "a", Configs: []kmsg.AlterConfigsRequestResourceConfig{{Name: "retention.ms", Value: text("7")}}},
			{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "b"},
			{ResourceType: kmsg.ConfigResourceTypeBroker, ResourceName: "1", Configs: []kmsg.AlterConfigsRequestResourceConfig{{Name: "message.max.bytes", Value: text("7")}}},
		}
		resp := c.ask(req).(*kmsg.AlterConfigsResponse)
		for i, want := range []int16{0, kerr.UnknownTopicOrPartition.Code, kerr.InvalidRequest.Code} {
			if got := resp.Resources[i]; got.ErrorCode != want || (want != 0) != (got.ErrorMessage != nil) {
				t.Errorf("version %d, resource %d: %+v", v, i, got)
			}
		}
		if configs := set(); len(configs) != 1 || configs["retention.ms"] != "7" {
			t.Errorf("version %d: %v", v, configs)
		}
	}
	incremental := func(v int16, validateOnly bool, changes ...kmsg.IncrementalAlterConfigsRequestResourceConfig) int16 {
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		req.Version, req.ValidateOnly = v, validateOnly
		req.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "a", Configs: changes}}
		return c.ask(req).(*kmsg.IncrementalAlterConfigsResponse).Resources[0].ErrorCode
	}
	type change = kmsg.IncrementalAlterConfigsRequestResourceConfig
	for v := int16(0); v <= 1; v++ {
		for name, test := range map[string]struct {
			want    int16
			changes []change
		}{
			"no value":       {kerr.InvalidRequest.Code, []change{{Name: "retention.ms", Op: kmsg.IncrementalAlterConfigOpSet}}},
			"twice":          {kerr.InvalidRequest.Code, []change{{Name: "retention.ms", Value: text("1")}, {Name: "retention.ms", Value: text("2")}}},
			"unknown":        {kerr.InvalidConfig.Code, []change{{Name: "colour", Value: text("1")}}},
			"no such change": {kerr.InvalidRequest.Code, []change{{Name: "retention.ms", Op: 9, Value: text("1")}}},
			"not allowed":    {kerr.InvalidConfig.Code, []change{{Name: "unclean.leader.election.enable", Value: text("true")}}},
		} {
			if code := incremental(v, false, test.changes...); code != test.want {
				t.Errorf("version %d, %s: %d, want %d", v, name, code, test.want)
			}
		}
		if code := incremental(v, true, change{Name: "retention.ms", Op: kmsg.IncrementalAlterConfigOpDelete}); code != 0 || set()["retention.ms"] != "7" {
			t.Errorf("version %d: %d, %v", v, code, set())
		}
	}
	// Version 0 has no words that are that long.
	if code := incremental(1, false, change{Name: "cleanup.policy", Op: kmsg.IncrementalAlterConfigOpSubtract, Value: text(strings.Repeat("a,", 17<<10))}); code != kerr.InvalidConfig.Code {
		t.Errorf("a value of 34 KB to take out of a list: %d", code)
	}
	if code := incremental(1, false,
		change{Name: "retention.ms", Op: kmsg.IncrementalAlterConfigOpDelete},
		change{Name: "cleanup.policy", Op: kmsg.IncrementalAlterConfigOpAppend, Value: text("compact")},
	); code != 0 || len(set()) != 1 || set()["cleanup.policy"] != "delete,compact" {
		t.Errorf("%d, %v", code, set())
	}
}

func TestCreatePartitionsInEveryVersion(t *testing.T) {
	f := newFake(t, "a:2", "b:2", "c:2", "d:2")
	c := serve(t, f, nil).dial()
	for v := int16(0); v <= 3; v++ {
		req := kmsg.NewPtrCreatePartitionsRequest()
		req.Version, req.TimeoutMillis = v, 5000
		req.Topics = []kmsg.CreatePartitionsRequestTopic{
			{Topic: "a", Count: 3 + int32(v)},
			{Topic: "nothing", Count: 3},
			{Topic: "b", Count: 3 + int32(v), Assignment: []kmsg.CreatePartitionsRequestTopicAssignment{{Replicas: []int32{2}}}},
			{Topic: "c", Count: 3 + int32(v), Assignment: []kmsg.CreatePartitionsRequestTopicAssignment{{Replicas: []int32{1}}}},
			{Topic: "d", Count: 4, Assignment: []kmsg.CreatePartitionsRequestTopicAssignment{{Replicas: []int32{1}}}},
		}
		resp := c.ask(req).(*kmsg.CreatePartitionsResponse)
		for i, want := range []int16{0, kerr.UnknownTopicOrPartition.Code, kerr.InvalidReplicaAssignment.Code, 0, kerr.InvalidReplicaAssignment.Code} {
			if resp.Topics[i].ErrorCode != want {
				t.Errorf("version %d: %+v", v, resp.Topics[i])
			}
		}
		if topic, _ := f.Topics().Lookup("a"); len(topic.Partitions) != 3+int(v) {
			t.Errorf("version %d: %d partitions", v, len(topic.Partitions))
		}
	}
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.TimeoutMillis, req.ValidateOnly = 5000, true
	req.Topics = []kmsg.CreatePartitionsRequestTopic{{Topic: "b", Count: 2}, {Topic: "a", Count: 100}, {Topic: "a", Count: 101}}
	resp := c.ask(req).(*kmsg.CreatePartitionsResponse)
	for i, want := range []int16{kerr.InvalidPartitions.Code, kerr.InvalidRequest.Code, kerr.InvalidRequest.Code} {
		if resp.Topics[i].ErrorCode != want {
			t.Errorf("%+v", resp.Topics[i])
		}
	}
}

func TestDeleteRecordsInEveryVersion(t *testing.T) {
	f := newFake(t, "a:2")
	if _, err := f.doAppend(f.id("a", 0), asBatches(recordBatch("x", "y", "z"))); err != nil {
		t.Fatal(err)
	}
	c := serve(t, f, nil).dial()
	for v := int16(0); v <= 2; v++ {
		req := kmsg.NewPtrDeleteRecordsRequest()
		req.Version, req.TimeoutMillis = v, 5000
		req.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: "a", Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Partition: 0, Offset: int64(v) + 1}, {Partition: 1, Offset: 1}, {Partition: 2}}}}
		resp := c.ask(req).(*kmsg.DeleteRecordsResponse)
		for i, want := range []struct {
			low  int64
			code int16
		}{{int64(v) + 1, 0}, {-1, kerr.OffsetOutOfRange.Code}, {-1, kerr.UnknownTopicOrPartition.Code}} {
			if got := resp.Topics[0].Partitions[i]; got.LowWatermark != want.low || got.ErrorCode != want.code || got.Partition != int32(i) {
				t.Errorf("version %d: %+v, want %+v", v, got, want)
			}
		}
	}
}

func TestDescribeLogDirsInEveryVersion(t *testing.T) {
	f := newFake(t, "a:2")
	f.status = func(context.Context) (*admin.Status, error) {
		return &admin.Status{
			Nodes: []admin.NodeStatus{{DiskFree: 1, DiskTotal: 10}, {DiskFree: 2, DiskTotal: 20}},
			Topics: []admin.TopicStatus{{Name: "a", Partitions: []admin.PartitionStatus{
				{Partition: 0, Leader: "n2", Replicas: []admin.ReplicaStatus{{Node: "n1", Bytes: 900}, {Node: "n2", Bytes: 100}}},
				{Partition: 1, Replicas: []admin.ReplicaStatus{{Node: "n1", Bytes: 7}, {Node: "n2", Bytes: 8}}},
			}}},
		}, nil
	}
	c := serve(t, f, nil).dial()
	for v := int16(0); v <= 5; v++ {
		req := kmsg.NewPtrDescribeLogDirsRequest()
		req.Version = v
		dir := c.ask(req).(*kmsg.DescribeLogDirsResponse).Dirs[0]
		if p := dir.Topics[0].Partitions; len(p) != 2 || p[0].Size != 100 || p[1].Size != 8 || v >= 4 && (dir.TotalBytes != 30 || dir.UsableBytes != 3) {
			t.Errorf("version %d: %+v", v, dir)
		}
		req.Topics = []kmsg.DescribeLogDirsRequestTopic{{Topic: "a", Partitions: []int32{1, 5}}, {Topic: "nothing", Partitions: []int32{0}}}
		dir = c.ask(req).(*kmsg.DescribeLogDirsResponse).Dirs[0]
		if len(dir.Topics) != 1 || len(dir.Topics[0].Partitions) != 1 || dir.Topics[0].Partitions[0].Partition != 1 {
			t.Errorf("version %d: %+v", v, dir)
		}
	}
}

func TestDescribeProducersAndReassignments(t *testing.T) {
	c := serve(t, newFake(t, "a"), nil).dial()
	req := kmsg.NewPtrDescribeProducersRequest()
	req.Topics = []kmsg.DescribeProducersRequestTopic{{Topic: "a", Partitions: []int32{0, 1, 0}}, {Topic: "nothing", Partitions: []int32{0}}, {Topic: "a", Partitions: []int32{0}}}
	resp := c.ask(req).(*kmsg.DescribeProducersResponse)
	if len(resp.Topics[0].Partitions) != 2 || len(resp.Topics[2].Partitions) != 0 {
		t.Errorf("named again: %+v", resp.Topics)
	}
	if p := resp.Topics[0].Partitions[0]; p.ErrorCode != 0 || len(p.ActiveProducers) != 1 || p.ActiveProducers[0].ProducerID != 7 || p.ActiveProducers[0].CurrentTxnStartOffset != -1 {
		t.Errorf("%+v", p)
	}
	for _, p := range []kmsg.DescribeProducersResponseTopicPartition{resp.Topics[0].Partitions[1], resp.Topics[1].Partitions[0]} {
		if p.ErrorCode != kerr.UnknownTopicOrPartition.Code {
			t.Errorf("%+v", p)
		}
	}
	if list := c.ask(kmsg.NewPtrListPartitionReassignmentsRequest()).(*kmsg.ListPartitionReassignmentsResponse); list.ErrorCode != 0 || len(list.Topics) > 0 {
		t.Errorf("%+v", list)
	}
}

// Tools that list or change access control lists are told that there are none.
func TestThereAreNoACLs(t *testing.T) {
	c := serve(t, newFake(t), nil).dial()
	for v := range int16(4) {
		describe := kmsg.NewPtrDescribeACLsRequest()
		describe.Version = v
		if resp := c.ask(describe).(*kmsg.DescribeACLsResponse); resp.ErrorCode != kerr.SecurityDisabled.Code || resp.ErrorMessage == nil || len(resp.Resources) > 0 {
			t.Errorf("version %d: %+v", v, resp)
		}
		create := kmsg.NewPtrCreateACLsRequest()
		create.Version, create.Creations = v, make([]kmsg.CreateACLsRequestCreation, 2)
		if resp := c.ask(create).(*kmsg.CreateACLsResponse); len(resp.Results) != 2 || resp.Results[1].ErrorCode != kerr.SecurityDisabled.Code {
			t.Errorf("version %d: %+v", v, resp)
		}
		remove := kmsg.NewPtrDeleteACLsRequest()
		remove.Version, remove.Filters = v, make([]kmsg.DeleteACLsRequestFilter, 3)
		if resp := c.ask(remove).(*kmsg.DeleteACLsResponse); len(resp.Results) != 3 || resp.Results[2].ErrorCode != kerr.SecurityDisabled.Code {
			t.Errorf("version %d: %+v", v, resp)
		}
	}
}

// Who wants to place replicas is told why not, and which partitions are not there. At the one
// broker is where each of them is.
func TestNothingIsReassigned(t *testing.T) {
	c := serve(t, newFake(t, "a:2"), nil).dial()
	for v := range int16(2) {
		req := kmsg.NewPtrAlterPartitionAssignmentsRequest()
		req.Version = v
		for _, name := range []string{"a", "b"} {
			topic := kmsg.NewAlterPartitionAssignmentsRequestTopic()
			topic.Topic = name
			topic.Partitions = []kmsg.AlterPartitionAssignmentsRequestTopicPartition{{Partition: 0, Replicas: []int32{1}}, {Partition: 0, Replicas: []int32{1, 2}}, {Partition: 1}, {Partition: 2}, {Partition: -1}}
			req.Topics = append(req.Topics, topic)
		}
		resp := c.ask(req).(*kmsg.AlterPartitionAssignmentsResponse)
		got := ""
		for _, topic := range resp.Topics {
			got += topic.Topic
			for _, p := range topic.Partitions {
				got += fmt.Sprintf(" %d:%d", p.Partition, p.ErrorCode)
			}
			got += "; "
		}
		if want := "a 0:0 0:39 1:85 2:3 -1:3; b 0:3 0:3 1:3 2:3 -1:3; "; resp.ErrorCode != 0 || got != want {
			t.Errorf("version %d: %q, want %q", v, got, want)
		}
	}
}

// What kafka-configs asks for of users, clients and resources.
func TestNoQuotasNoUsersAndTheResources(t *testing.T) {
	c := serve(t, newFake(t, "a", "b"), nil).dial()
	for v := range int16(2) {
		quotas := kmsg.NewPtrDescribeClientQuotasRequest()
		quotas.Version, quotas.Components = v, []kmsg.DescribeClientQuotasRequestComponent{{EntityType: "user", MatchType: 2}}
		if resp := c.ask(quotas).(*kmsg.DescribeClientQuotasResponse); resp.ErrorCode != 0 || resp.Entries == nil || len(resp.Entries) > 0 {
			t.Errorf("version %d: %+v", v, resp)
		}
	}
	users := kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
	if resp := c.ask(users).(*kmsg.DescribeUserSCRAMCredentialsResponse); resp.ErrorCode != 0 || len(resp.Results) > 0 {
		t.Errorf("%+v", resp)
	}
	users.Users = []kmsg.DescribeUserSCRAMCredentialsRequestUser{{Name: "x"}, {Name: "y"}, {Name: "x"}}
	results := c.ask(users).(*kmsg.DescribeUserSCRAMCredentialsResponse).Results
	if len(results) != 2 || results[0].User != "x" || results[0].ErrorCode != kerr.DuplicateResource.Code || results[1].ErrorCode != kerr.ResourceNotFound.Code {
		t.Errorf("%+v", results)
	}
	for _, test := range []struct {
		version int16
		kinds   []int8
		want    string
	}{
		{0, nil, ""},
		{1, nil, "2 a, 2 b, 4 1, 8 1, "},
		{1, []int8{2, 16, 2}, "2 a, 2 b, "},
		{1, []int8{4}, "4 1, "},
		{1, []int8{2, 3}, "35"},
	} {
		list := kmsg.NewPtrListConfigResourcesRequest()
		list.Version, list.ResourceTypes = test.version, test.kinds
		resp := c.ask(list).(*kmsg.ListConfigResourcesResponse)
		got := ""
		if resp.ErrorCode != 0 {
			got = fmt.Sprint(resp.ErrorCode)
		}
		for _, r := range resp.ConfigResources {
			got += fmt.Sprintf("%d %s, ", r.Type, r.Name)
		}
		if got != test.want {
			t.Errorf("version %d, kinds %v: %q, not %q", test.version, test.kinds, got, test.want)
		}
	}
}

// What was created is told, and can be deleted by its id.
func TestTopicIDsOfCreateAndDelete(t *testing.T) {
	f := newFake(t, "b")
	c := serve(t, f, nil).dial()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version, req.TimeoutMillis = 7, 5000
	topic := newTopic("a", -1, -1)
	topic.Configs = []kmsg.CreateTopicsRequestTopicConfig{{Name: "retention.ms", Value: kmsg.StringPtr("5")}}
	req.Topics = append(req.Topics, topic)
	created := c.ask(req).(*kmsg.CreateTopicsResponse).Topics[0]
	if created.ErrorCode != 0 || created.TopicID != f.id("a", 0).Topic || created.NumPartitions != 2 || created.ReplicationFactor != 3 || len(created.Configs) != len(fsm.Configs()) {
		t.Fatalf("%+v", created)
	}
	ids := map[string][16]byte{"a": created.TopicID, "b": f.id("b", 0).Topic}
	remove := kmsg.NewPtrDeleteTopicsRequest()
	remove.Version, remove.TimeoutMillis = 6, 5000
	id := fsm.TopicID{15: 99}
	remove.Topics = []kmsg.DeleteTopicsRequestTopic{{TopicID: created.TopicID}, {TopicID: id}, {}, {Topic: kmsg.StringPtr("nothing")}, {Topic: kmsg.StringPtr("b")}}
	removed := c.ask(remove).(*kmsg.DeleteTopicsResponse).Topics
	for i, want := range []int16{0, kerr.UnknownTopicID.Code, kerr.InvalidRequest.Code, kerr.UnknownTopicOrPartition.Code, 0} {
		if got := removed[i]; got.ErrorCode != want {
			t.Errorf("%d: %+v", i, got)
		}
	}
	for i, name := range map[int]string{0: "a", 4: "b"} {
		if got := removed[i]; got.Topic == nil || *got.Topic != name || got.TopicID != ids[name] {
			t.Errorf("%+v, want name and id of %s", got, name)
		}
	}
	if _, there := f.Topics().Lookup("a"); there {
		t.Error("it is still there")
	}
}

// To delete a configuration that does not exist is no error, as in Kafka: tools delete what others
// may have.
func TestDeletingAnUnknownConfigChangesNothing(t *testing.T) {
	f := newFake(t, "a")
	c := serve(t, f, nil).dial()
	for v := range int16(2) {
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		req.Version = v
		req.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "a",
			Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: "no.such.config", Op: kmsg.IncrementalAlterConfigOpDelete}}}}
		if r := c.ask(req).(*kmsg.IncrementalAlterConfigsResponse).Resources[0]; r.ErrorCode != 0 {
			t.Errorf("version %d: %+v", v, r)
		}
	}
	if topic, _ := f.Topics().Lookup("a"); len(topic.Configs) > 0 {
		t.Errorf("%v", topic.Configs)
	}
}
