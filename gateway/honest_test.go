package gateway

import (
	"context"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
)

// APIs whose answer for one logical broker is short, and has to be there.

func TestElectLeadersIsNotNeeded(t *testing.T) {
	c := serve(t, newFake(t, "a:2"), nil).dial()
	for v := range int16(3) {
		for kind := range int8(3) {
			req := kmsg.NewPtrElectLeadersRequest()
			req.Version, req.ElectionType = v, kind
			req.Topics = []kmsg.ElectLeadersRequestTopic{{Topic: "a", Partitions: []int32{0, 1, 2}}, {Topic: "b", Partitions: []int32{0}}}
			got := ""
			for _, topic := range c.ask(req).(*kmsg.ElectLeadersResponse).Topics {
				for _, p := range topic.Partitions {
					got += fmt.Sprintf("%s-%d:%d ", topic.Topic, p.Partition, p.ErrorCode)
				}
			}
			want := "a-0:84 a-1:84 a-2:3 b-0:3 "
			if v > 0 && kind == 2 {
				want = "a-0:42 a-1:42 a-2:42 b-0:42 "
			}
			if got != want {
				t.Errorf("version %d, election type %d: %s, want %s", v, kind, got, want)
			}
		}
		req := kmsg.NewPtrElectLeadersRequest()
		req.Version = v
		if resp := c.ask(req).(*kmsg.ElectLeadersResponse); resp.ErrorCode != 0 || len(resp.Topics) != 0 {
			t.Errorf("version %d, all partitions: %+v", v, resp)
		}
	}
}

func TestReplicasAreInTheirDirectory(t *testing.T) {
	c := serve(t, newFake(t, "a:2"), nil).dial()
	for v := range int16(3) {
		req := kmsg.NewPtrAlterReplicaLogDirsRequest()
		req.Version = v
		topics := []kmsg.AlterReplicaLogDirsRequestDirTopic{{Topic: "a", Partitions: []int32{0, 7}}, {Topic: "b", Partitions: []int32{0}}}
		req.Dirs = []kmsg.AlterReplicaLogDirsRequestDir{{Dir: logDir, Topics: topics}, {Dir: "/elsewhere", Topics: topics[:1]}}
		got := ""
		for _, topic := range c.ask(req).(*kmsg.AlterReplicaLogDirsResponse).Topics {
			for _, p := range topic.Partitions {
				got += fmt.Sprintf("%s-%d:%d ", topic.Topic, p.Partition, p.ErrorCode)
			}
		}
		if want := "a-0:0 a-7:3 b-0:3 a-0:57 a-7:57 "; got != want {
			t.Errorf("version %d: %s, want %s", v, got, want)
		}
	}
}

func TestTheQuorumIsTheCatalogs(t *testing.T) {
	f := newFake(t)
	f.status = func(context.Context) (*admin.Status, error) {
		return &admin.Status{Controller: "n2", Nodes: []admin.NodeStatus{
			{ID: "n1", Alive: true, CatalogRole: "voter", CatalogTerm: 4, CatalogEnd: 17},
			{ID: "n2", Alive: true, CatalogRole: "leader", CatalogTerm: 4, CatalogEnd: 18, PeerAddress: "127.0.0.1:77"},
			{ID: "n3"},
			{ID: "n4", Alive: true, CatalogRole: "nonvoter", CatalogTerm: 4, CatalogEnd: 12},
		}}, nil
	}
	c := serve(t, f, nil).dial()
	for v := range int16(3) {
		req := kmsg.NewPtrDescribeQuorumRequest()
		req.Version = v
		req.Topics = []kmsg.DescribeQuorumRequestTopic{
			{Topic: metadataTopic, Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{Partition: 0}, {Partition: 1}}},
			{Topic: "a", Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{Partition: 0}}},
		}
		resp := c.ask(req).(*kmsg.DescribeQuorumResponse)
		got := resp.Topics[0].Partitions[0]
		if got.ErrorCode != 0 || got.LeaderID != nodeBroker(1) || got.LeaderEpoch != 4 || got.HighWatermark != 18 {
			t.Errorf("version %d: %+v", v, got)
		}
		ends := ""
		for _, s := range got.CurrentVoters {
			ends += fmt.Sprintf("%d:%d ", s.ReplicaID, s.LogEndOffset)
		}
		ends += "and"
		for _, s := range got.Observers {
			ends += fmt.Sprintf(" %d:%d", s.ReplicaID, s.LogEndOffset)
		}
		if want := fmt.Sprintf("%d:17 %d:18 %d:-1 and %d:12", nodeBroker(0), nodeBroker(1), nodeBroker(2), nodeBroker(3)); ends != want {
			t.Errorf("version %d: %s, want %s", v, ends, want)
		}
		for _, code := range []int16{resp.Topics[0].Partitions[1].ErrorCode, resp.Topics[1].Partitions[0].ErrorCode} {
			if code != kerr.UnknownTopicOrPartition.Code {
				t.Errorf("version %d: another partition is %d", v, code)
			}
		}
	}
}

func TestThereAreNoFeaturesToUpdate(t *testing.T) {
	c := serve(t, newFake(t), nil).dial()
	for v := range int16(3) {
		req := kmsg.NewPtrUpdateFeaturesRequest()
		req.Version = v
		if resp := c.ask(req).(*kmsg.UpdateFeaturesResponse); resp.ErrorCode != 0 {
			t.Errorf("version %d, nothing to update: %+v", v, resp)
		}
		req.FeatureUpdates = []kmsg.UpdateFeaturesRequestFeatureUpdate{{Feature: "metadata.version", MaxVersionLevel: 25}}
		resp := c.ask(req).(*kmsg.UpdateFeaturesResponse)
		code := resp.ErrorCode
		if v < 2 {
			code = resp.Results[0].ErrorCode
		}
		if code != kerr.InvalidUpdateVersion.Code {
			t.Errorf("version %d: %+v", v, resp)
		}
	}
}

// As without an authorizer in Kafka, whoever asks may do everything; who does not ask is not told.
func TestAuthorizedOperationsAreAll(t *testing.T) {
	const unknown = -2147483648
	// The bits that Kafka 4.3 gives (AclEntry.supportedOperations).
	const allOfTopic, allOfCluster, allOfGroup = 3576, 8096, 3400
	c := serve(t, newFake(t, "a"), nil).dial()
	for _, include := range []bool{false, true} {
		want := func(all int32) int32 {
			if include {
				return all
			}
			return unknown
		}
		metadata := metadataOf("a", "b")
		metadata.Version, metadata.IncludeTopicAuthorizedOperations, metadata.IncludeClusterAuthorizedOperations = 8, include, include
		m := c.ask(metadata).(*kmsg.MetadataResponse)
		if m.AuthorizedOperations != want(allOfCluster) || m.Topics[0].AuthorizedOperations != want(allOfTopic) || m.Topics[1].AuthorizedOperations != unknown {
			t.Errorf("include %v: %d, %d, of an absent topic %d", include, m.AuthorizedOperations, m.Topics[0].AuthorizedOperations, m.Topics[1].AuthorizedOperations)
		}
		cluster := kmsg.NewPtrDescribeClusterRequest()
		cluster.IncludeClusterAuthorizedOperations = include
		if got := c.ask(cluster).(*kmsg.DescribeClusterResponse).ClusterAuthorizedOperations; got != want(allOfCluster) {
			t.Errorf("include %v: cluster %d", include, got)
		}
		groups := kmsg.NewPtrDescribeGroupsRequest()
		groups.Version, groups.Groups, groups.IncludeAuthorizedOperations = 3, []string{"g"}, include
		if got := c.ask(groups).(*kmsg.DescribeGroupsResponse).Groups[0].AuthorizedOperations; got != want(allOfGroup) {
			t.Errorf("include %v: group %d", include, got)
		}
	}
}

// What has no effect here is kept and shown, at the broker before the default of all brokers; what
// has, belongs to the nodes.
func TestTheBrokersConfigurations(t *testing.T) {
	f := newFake(t)
	c := serve(t, f, func(cfg *Config) { cfg.BrokerConfigs = map[string]string{"num.partitions": "4"} }).dial()
	text := kmsg.StringPtr
	alter := func(broker, name string, op kmsg.IncrementalAlterConfigOp, value *string) int16 {
		t.Helper()
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		req.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeBroker, ResourceName: broker,
			Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: name, Op: op, Value: value}}}}
		return c.ask(req).(*kmsg.IncrementalAlterConfigsResponse).Resources[0].ErrorCode
	}
	shows := func(broker, name, value string, source kmsg.ConfigSource) {
		t.Helper()
		got, there := configsOf(c.ask(describe(4, kmsg.ConfigResourceTypeBroker, broker)))[name]
		switch {
		case !there && value == "":
		case !there || got.Value == nil || *got.Value != value || got.Source != source:
			t.Errorf("broker %q shows %s: %+v, want %s from %v", broker, name, got, value, source)
		}
	}
	const set, remove = kmsg.IncrementalAlterConfigOpSet, kmsg.IncrementalAlterConfigOpDelete
	const backoff = "log.cleaner.backoff.ms"
	shows("1", backoff, "15000", kmsg.ConfigSourceDefaultConfig)
	shows("1", "num.partitions", "4", kmsg.ConfigSourceStaticBrokerConfig)
	shows("1", "advertised.listeners", "PLAINTEXT://"+c.RemoteAddr().String(), kmsg.ConfigSourceDefaultConfig)
	for i, step := range []struct {
		broker, name string
		op           kmsg.IncrementalAlterConfigOp
		value        *string
		want         int16
	}{
		{"", backoff, set, text("16000"), 0},
		{"1", backoff, set, text("17000"), 0},
		{"1", backoff, set, text("-1"), kerr.InvalidConfig.Code},
		{"2", backoff, set, text("1"), kerr.InvalidRequest.Code},
		{"1", "num.partitions", set, text("4"), 0}, // as it is
		{"1", "num.partitions", set, text("5"), kerr.InvalidRequest.Code},
		{"1", "num.partitions", remove, nil, 0},
		// kafka-reassign-partitions --verify
		{"1", "leader.replication.throttled.rate", remove, nil, 0},
		{"1", "colour", remove, nil, 0},
		{"1", "colour", set, text("red"), kerr.InvalidRequest.Code},
	} {
		if got := alter(step.broker, step.name, step.op, step.value); got != step.want {
			t.Errorf("step %d: %d, want %d", i, got, step.want)
		}
	}
	shows("1", backoff, "17000", kmsg.ConfigSourceDynamicBrokerConfig)
	shows("", backoff, "16000", kmsg.ConfigSourceDynamicDefaultBrokerConfig)
	again, err := fsm.RestoreCatalog(f.catalog.Snapshot())
	if err != nil || again.View().BrokerConfigs(false)[backoff] != "17000" || again.View().BrokerConfigs(true)[backoff] != "16000" {
		t.Errorf("in a snapshot: %v, %v", again, err)
	}
	alter("1", backoff, remove, nil)
	shows("1", backoff, "16000", kmsg.ConfigSourceDynamicDefaultBrokerConfig)
	alter("", backoff, remove, nil)
	shows("1", backoff, "15000", kmsg.ConfigSourceDefaultConfig)
	shows("", backoff, "", 0)
}

// To take back what is not set is nothing to refuse, whatever it is called; and a list may become
// empty.
func TestTopicConfigurationsTakenBack(t *testing.T) {
	f := newFake(t, "a")
	c := serve(t, f, nil).dial()
	alter := func(name string, op kmsg.IncrementalAlterConfigOp, value *string) int16 {
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		req.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "a",
			Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: name, Op: op, Value: value}}}}
		return c.ask(req).(*kmsg.IncrementalAlterConfigsResponse).Resources[0].ErrorCode
	}
	for _, name := range []string{"retention.ms", "leader.replication.throttled.replicas", "colour"} {
		if code := alter(name, kmsg.IncrementalAlterConfigOpDelete, nil); code != 0 {
			t.Errorf("%s: %d", name, code)
		}
	}
	if code := alter("cleanup.policy", kmsg.IncrementalAlterConfigOpSubtract, kmsg.StringPtr("delete")); code != 0 {
		t.Errorf("cleanup.policy without delete: %d", code)
	}
	if topic, _ := f.Topics().Lookup("a"); topic.Config("cleanup.policy") != "" {
		t.Errorf("cleanup.policy is %q", topic.Config("cleanup.policy"))
	}
}
