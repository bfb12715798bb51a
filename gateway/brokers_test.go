package gateway

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/gateway/shim"
)

func TestNodesAreShownByChoice(t *testing.T) {
	for _, try := range []struct {
		name      string
		change    func(*Config)
		brokers   []string
		partition string
	}{
		{"as it is", nil, []string{"1 127.0.0.1"}, "1 [] [] []"},
		{"gateways", func(c *Config) { c.ListGateways = true }, []string{"2 a.example.org", "4 c.example.org"}, "2 [] [] []"},
		{"replicas", func(c *Config) { c.ShowReplicas = true }, []string{"2 a.example.org", "4 c.example.org"}, "2 [2 3 4] [2 4] [3]"},
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

// TestAnIDHasOneAddressAtEveryNode: clients key connections by it, and close those of a broker that
// has another address than before. Leaders, coordinators and the controller are the same at every
// node as well, and are listed.
func TestAnIDHasOneAddressAtEveryNode(t *testing.T) {
	for _, try := range []struct {
		name   string
		change func(*Config)
		shim   string // the address that the client says; "": it comes without
		ids    []int32
	}{
		{"gateways", func(c *Config) { c.ListGateways = true }, "", []int32{2, 3, 4}},
		{"replicas", func(c *Config) { c.ShowReplicas = true }, "", []int32{2, 3, 4}},
		{"through a shim", nil, "shim.example.org:9092", []int32{1}},
		{"gateways, through a shim", func(c *Config) { c.ListGateways = true }, "shim.example.org:9092", []int32{1, 2, 3, 4}},
		{"replicas, through a shim", func(c *Config) { c.ShowReplicas = true }, "shim.example.org:9092", []int32{1, 2, 3, 4}},
	} {
		t.Run(try.name, func(t *testing.T) {
			f := newFake(t, "events:4")
			shards := make([]fsm.Partition, coordinator.Shards)
			for i := range shards {
				shards[i].Replicas = []fsm.NodeID{fsm.NodeID(fmt.Sprint("n", i%3+1)), fsm.NodeID(fmt.Sprint("n", (i+1)%3+1)), fsm.NodeID(fmt.Sprint("n", (i+2)%3+1))}
				shards[i].Bootstrap = shards[i].Replicas
			}
			if err := f.apply(fsm.CatalogCommand{CreateGroupShards: &fsm.CreateGroupShards{ReplicationFactor: 3, Partitions: shards}}); err != nil {
				t.Fatal(err)
			}
			f.gateways = map[fsm.NodeID]string{}
			addresses := map[int32]string{}
			same := func(node int, id int32, host string, port int32) {
				t.Helper()
				at := fmt.Sprint(host, ":", port)
				if was, ok := addresses[id]; ok && was != at {
					t.Errorf("node %d: broker %d is at %s, elsewhere at %s", node, id, at, was)
				}
				addresses[id] = at
			}
			var ask []func(req kmsg.Request) kmsg.Response
			for i := range 3 {
				g := serve(t, f, try.change)
				f.gateways[fsm.NodeID(fmt.Sprint("n", i+1))] = g.addr
				if try.shim == "" {
					ask = append(ask, g.dial().ask)
					continue
				}
				ws, _, err := g.dialWS(http.Header{shim.AdvertiseHeader: {try.shim}})
				if err != nil {
					t.Fatal(err)
				}
				ask = append(ask, newClient(t, shim.NewConn(ws, 0)).ask)
			}
			var first string
			for node, ask := range ask {
				metadata := kmsg.NewPtrMetadataRequest()
				metadata.Version = 12
				m := ask(metadata).(*kmsg.MetadataResponse)
				var listed []int32
				for _, b := range m.Brokers {
					listed = append(listed, b.NodeID)
					same(node, b.NodeID, b.Host, b.Port)
				}
				d := ask(kmsg.NewPtrDescribeClusterRequest()).(*kmsg.DescribeClusterResponse)
				for _, b := range d.Brokers {
					same(node, b.NodeID, b.Host, b.Port)
				}
				said := fmt.Sprint(m.ControllerID, d.ControllerID)
				named := []int32{m.ControllerID, d.ControllerID}
				for _, p := range m.Topics[0].Partitions {
					said, named = fmt.Sprint(said, " ", p.Leader), append(named, p.Leader)
				}
				for _, version := range []int16{0, 4} {
					find := kmsg.NewPtrFindCoordinatorRequest()
					find.Version, find.CoordinatorKey, find.CoordinatorKeys = version, "a", []string{"a", "b", "c"}
					c := ask(find).(*kmsg.FindCoordinatorResponse)
					if version == 0 {
						c.Coordinators = []kmsg.FindCoordinatorResponseCoordinator{{NodeID: c.NodeID, Host: c.Host, Port: c.Port}}
					}
					for _, c := range c.Coordinators {
						same(node, c.NodeID, c.Host, c.Port)
						said, named = fmt.Sprint(said, " ", c.NodeID), append(named, c.NodeID)
					}
				}
				if first == "" {
					first = said
				} else if said != first {
					t.Errorf("node %d: controller, leaders and coordinators are %s, elsewhere %s", node, said, first)
				}
				slices.Sort(listed)
				if !slices.Equal(listed, try.ids) {
					t.Errorf("node %d lists %v, want %v", node, listed, try.ids)
				}
				for _, id := range named {
					if !slices.Contains(listed, id) {
						t.Errorf("node %d names %d, which it does not list", node, id)
					}
				}
				configs := kmsg.NewPtrDescribeConfigsRequest()
				for _, id := range listed {
					configs.Resources = append(configs.Resources, kmsg.DescribeConfigsRequestResource{ResourceType: kmsg.ConfigResourceTypeBroker, ResourceName: fmt.Sprint(id)})
				}
				for _, c := range ask(configs).(*kmsg.DescribeConfigsResponse).Resources {
					if c.ErrorCode != 0 {
						t.Errorf("broker %s has no configuration: %d", c.ResourceName, c.ErrorCode)
					}
				}
			}
		})
	}
}

func partitionShown(p kmsg.MetadataResponseTopicPartition) string {
	return fmt.Sprint(p.Leader, " ", p.Replicas, " ", p.ISR, " ", p.OfflineReplicas)
}
