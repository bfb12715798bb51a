package gateway

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
)

func TestNodesAreShownByChoice(t *testing.T) {
	for _, try := range []struct {
		name      string
		change    func(*Config)
		brokers   []string
		partition string
	}{
		{"as it is", nil, []string{"1 127.0.0.1"}, "1 [] [] []"},
		{"gateways", func(c *Config) { c.ListGateways = true }, []string{"1 127.0.0.1", "2 a.example.org", "4 c.example.org"}, "1 [] [] []"},
		{"replicas", func(c *Config) { c.ShowReplicas = true }, []string{"1 127.0.0.1", "2 a.example.org", "4 c.example.org"}, "1 [2 3 4] [2 4] [3]"},
	} {
		t.Run(try.name, func(t *testing.T) {
			f := newFake(t, "events")
			f.gateways = map[fsm.NodeID]string{"n1": "a.example.org:9092", "n3": "c.example.org:9092", "n9": "not.registered:9092"}
			c := serve(t, f, try.change).dial()
			req := kmsg.NewPtrMetadataRequest()
			req.Version = 12
			resp := c.ask(req).(*kmsg.MetadataResponse)
			var brokers []string
			for _, b := range resp.Brokers {
				brokers = append(brokers, fmt.Sprint(b.NodeID, " ", b.Host))
			}
			if fmt.Sprint(brokers) != fmt.Sprint(try.brokers) {
				t.Errorf("brokers %q, want %q", brokers, try.brokers)
			}
			if got := fmt.Sprint(partitionShown(resp.Topics[0].Partitions[0])); got != try.partition {
				t.Errorf("partition %s, want %s", got, try.partition)
			}
			describe := kmsg.NewPtrDescribeClusterRequest()
			if got := c.ask(describe).(*kmsg.DescribeClusterResponse).Brokers; len(got) != len(try.brokers) {
				t.Errorf("DescribeCluster lists %v", got)
			}
			partitions := kmsg.NewPtrDescribeTopicPartitionsRequest()
			partitions.ResponsePartitionLimit = 10
			p := c.ask(partitions).(*kmsg.DescribeTopicPartitionsResponse).Topics[0].Partitions[0]
			if got := fmt.Sprint(p.LeaderID, " ", p.Replicas, " ", p.ISR, " ", p.OfflineReplicas); got != try.partition {
				t.Errorf("DescribeTopicPartitions has %s, want %s", got, try.partition)
			}
		})
	}
}

func partitionShown(p kmsg.MetadataResponseTopicPartition) string {
	return fmt.Sprint(p.Leader, " ", p.Replicas, " ", p.ISR, " ", p.OfflineReplicas)
}
