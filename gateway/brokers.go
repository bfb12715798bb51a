package gateway

import (
	"slices"

	"github.com/trimaran-io/trimaran/fsm"
)

// Clients see one broker, which leads everything. By choice they see the nodes beside it, as brokers that
// lead nothing: with Config.ListGateways the other gateways, so that an old client which forgets its bootstrap
// list finds another one when its own is gone, and with Config.ShowReplicas all that
// are there, and which of them have a partition's replicas, for tools that look at these.

// shownBroker is a broker as Metadata and DescribeCluster list it.
type shownBroker struct {
	id   int32
	at   address
	rack string // "": none
}

// nodeBroker is the broker id of a node where nodes are shown: its place among the
// registered nodes, behind the one broker. It moves when a node is taken out of the cluster.
func nodeBroker(place int) int32 { return BrokerID + 1 + int32(place) }

// shownBrokers lists the one broker, at the address that the client used, and what else is shown.
func (r *request) shownBrokers() []shownBroker {
	own := r.session.broker
	list := []shownBroker{{id: BrokerID, at: own}}
	cfg := &r.session.server.cfg
	if !cfg.ListGateways && !cfg.ShowReplicas {
		return list
	}
	addresses := cfg.Cluster.Gateways()
	for place, node := range r.session.server.cluster.Topics().Nodes() {
		at, err := parseAddress(addresses[node.ID])
		if err != nil || at == own && !cfg.ShowReplicas {
			continue
		}
		list = append(list, shownBroker{nodeBroker(place), at, node.Zone})
	}
	return list
}

// shownReplicas are a partition's replicas, the preferred leader first, and those of them whose nodes are
// there. Both are empty unless they are to be shown.
type shownReplicas struct {
	places    map[fsm.NodeID]int
	addresses map[fsm.NodeID]string
}

func (r *request) shownReplicas() *shownReplicas {
	if !r.session.server.cfg.ShowReplicas {
		return nil
	}
	s := &shownReplicas{places: map[fsm.NodeID]int{}, addresses: r.session.server.cluster.Gateways()}
	for place, node := range r.session.server.cluster.Topics().Nodes() {
		s.places[node.ID] = place
	}
	return s
}

func (s *shownReplicas) of(p *fsm.Partition) (replicas, inSync, offline []int32) {
	if s == nil {
		return nil, nil, nil
	}
	for _, id := range p.Replicas {
		place, ok := s.places[id]
		if !ok {
			continue
		}
		broker := nodeBroker(place)
		replicas = append(replicas, broker)
		if _, alive := s.addresses[id]; alive {
			inSync = append(inSync, broker)
		} else {
			offline = append(offline, broker)
		}
	}
	return slices.Clip(replicas), slices.Clip(inSync), slices.Clip(offline)
}
