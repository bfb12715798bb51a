package gateway

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/gateway/listen"
	"github.com/trimaran-io/trimaran/outcome"
)

// Clients see one broker, which leads everything, at the address by which they came. By choice they
// see the nodes: with Config.ListGateways so that an old client which forgets its bootstrap list
// finds another one when its own is gone, and with Config.ShowReplicas also which of them have a
// partition's replicas, for tools that look at these.
//
// An id has one address, whichever node is asked: clients key their connections by it, and close
// those of a broker that has moved. So where nodes are shown they are the brokers, each with an id
// and its own address, and lead: a partition is led by the first of its replicas that is there,
// which also is what the cluster makes of it in the end, and any other node hands on what it is
// asked. Only a shim's clients keep the one broker, which the shim is to them at every node, beside
// those.

// Nodes is what Metadata says of the cluster and its nodes. It asks nobody and does not wait.
type Nodes interface {
	// Gateways gives the addresses, host:port, at which the nodes that are there take
	// clients, as far as this node knows; "" of one that has not said so.
	Gateways() map[fsm.NodeID]string
	// ClusterID is "" until the cluster is formed.
	ClusterID() string
}

// shownBroker is a broker as Metadata and DescribeCluster list it.
type shownBroker struct {
	id   int32
	at   listen.Address
	rack string // "": none
}

// nodeBroker is the broker id of a node where nodes are shown: its place among the
// registered nodes, behind the one broker. It moves when a node is taken out of the cluster.
func nodeBroker(place int) int32 { return BrokerID + 1 + int32(place) }

// brokers are what a connection is shown.
type brokers struct {
	list []shownBroker // never empty; the first one is the controller
	// one: the first one leads all partitions and coordinates all groups.
	one          bool
	showReplicas bool
	places       map[fsm.NodeID]int
	alive        map[fsm.NodeID]string // by node; the addresses of those that are there
}

func (r *request) brokers() *brokers {
	s := r.conn.server
	own := shownBroker{id: BrokerID, at: r.conn.client.Broker}
	b := &brokers{list: []shownBroker{own}, one: true, showReplicas: s.cfg.ShowReplicas}
	if !s.cfg.ListGateways && !s.cfg.ShowReplicas {
		return b
	}
	b.places, b.alive = map[fsm.NodeID]int{}, s.nodes.Gateways()
	var nodes []shownBroker
	for place, node := range s.catalog.Topics().Nodes() {
		b.places[node.ID] = place
		at, err := listen.ParseAddress(b.alive[node.ID])
		if err != nil || unspecified(at.Host) {
			continue
		}
		nodes = append(nodes, shownBroker{nodeBroker(place), at, node.Zone})
	}
	switch {
	case r.conn.client.Named:
		b.list = append(b.list, nodes...)
	case len(nodes) > 0:
		b.list, b.one = nodes, false
	}
	return b
}

// unspecified: all addresses of a machine are none that a client could use.
func unspecified(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsUnspecified()
}

// controller is the broker that requests for the whole cluster go to. Any would do; it is the same
// at every node.
func (b *brokers) controller() int32 { return b.list[0].id }

// leader is the broker that leads a partition, or a shard of consumer groups; nil for one that is
// not known.
func (b *brokers) leader(p *fsm.Partition) shownBroker {
	if b.one || p == nil {
		return b.list[0]
	}
	for _, id := range p.Replicas {
		place, ok := b.places[id]
		if i := slices.IndexFunc(b.list, func(s shownBroker) bool { return s.id == nodeBroker(place) }); ok && i >= 0 {
			return b.list[i]
		}
	}
	return b.list[0]
}

// coordinator is the broker that coordinates the groups of a shard.
func (b *brokers) coordinator(topics *fsm.Topics, shard int) shownBroker {
	if shards, ok := topics.GroupShards(); ok && shard < len(shards.Partitions) {
		return b.leader(&shards.Partitions[shard])
	}
	return b.leader(nil)
}

// has says whether a broker of that id is shown.
func (b *brokers) has(id int32) bool {
	return slices.ContainsFunc(b.list, func(s shownBroker) bool { return s.id == id })
}

// replicas gives a partition's replicas, the preferred leader first, and those of them whose nodes
// are there. All are empty unless they are to be shown.
func (b *brokers) replicas(p *fsm.Partition) (replicas, inSync, offline []int32) {
	if !b.showReplicas {
		return nil, nil, nil
	}
	for _, id := range p.Replicas {
		place, ok := b.places[id]
		if !ok {
			continue
		}
		broker := nodeBroker(place)
		replicas = append(replicas, broker)
		if _, alive := b.alive[id]; alive {
			inSync = append(inSync, broker)
		} else {
			offline = append(offline, broker)
		}
	}
	return slices.Clip(replicas), slices.Clip(inSync), slices.Clip(offline)
}

// A manual assignment (of CreateTopics, CreatePartitions and AlterPartitionReassignments) names
// brokers. Clients see one, which is the whole cluster: a partition that is assigned to it
// is placed by the cluster, with the replication factor that it would have anyway.

const placedByCluster = "replicas are placed by the cluster: assign to broker 1, or to none; " +
	"'trimaran topic alter' changes how many there are, 'trimaran node' which nodes have them"

// checkAssignment reports whether the brokers of a partition are the one that there is.
func checkAssignment(partition int32, brokers []int32) error {
	if len(brokers) != 1 || brokers[0] != BrokerID {
		return fmt.Errorf("%w: partition %d: %s", outcome.ErrInvalidAssignment, partition, placedByCluster)
	}
	return nil
}
