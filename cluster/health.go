package cluster

import (
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/catalog"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/fsm"
)

// What is amiss, as an operator and a load balancer are told. The catalog says which groups there are and
// who shall hold them, their configurations say who votes, and connections say who is there. Nothing is
// taken from how a group was formed: all of its first members may be gone.

// ledHere reports whether this node knows a leader of the group that it can rely on: itself, with a disk that moves
// and a majority that is there, or a node that it reaches and that does not deny it. What a member of a group remembers
// of its leader is not enough: it outlives the leader by Raft's timeouts, which are slow.
func (n *Node) ledHere(g *raftgroup.Member) bool {
	identity, _ := g.Leader()
	if identity != n.identity {
		return identity != "" && n.connected(identity) && !unled(g)
	}
	servers, err := g.Servers()
	return err == nil && !g.Stuck() && n.majorityHere(servers)
}

// catalogLed reports whether this node knows a leader of the catalog that it can rely on.
func (n *Node) catalogLed() bool {
	g := n.catalog.Member()
	return g != nil && n.ledHere(g)
}

// online reports whether a partition or shard has a leader, as far as it can be told from here: by the replica here if it
// votes and hears of leaders, and else by whether a majority of those that hold it is there.
func (n *Node) online(id fsm.PartitionID, p *fsm.Partition, here map[fsm.NodeID]bool) bool {
	if r := n.guide(id); r != nil && slices.Contains(r.Member.Voters(), n.identity) {
		if leader, _ := r.Leader(); leader.Identity == n.identity {
			if _, err := r.Leads(); err != nil {
				return false // not past its barrier
			}
		}
		return n.ledHere(r.Member)
	}
	there := 0
	for _, holder := range p.Holders() {
		there += boolInt(here[holder] && holder != n.nodeID) // this one has no vote, or its disk hangs
	}
	return there > len(p.Replicas)/2
}

// underReplicated reports whether one of the nodes that shall hold what this node leads could not vote for it this
// moment, since it is not there or has no vote yet, or whether one that votes until it has left is not there.
func (n *Node) underReplicated(topics *fsm.Topics, p *fsm.Partition, g *raftgroup.Member) bool {
	vote := g.Voters()
	return slices.ContainsFunc(vote, func(identity string) bool { return !n.connected(identity) }) ||
		slices.ContainsFunc(p.Replicas, func(id fsm.NodeID) bool {
			node, ok := topics.Node(id)
			return !ok || !slices.Contains(vote, node.Identity())
		})
}

// groupsHealth counts groups of one kind.
type groupsHealth struct {
	all     int
	offline int // without a leader, as online says
	led     int // by this node
	under   int // of those led: underReplicated
}

// health looks at topics' partitions, or at shards.
func (n *Node) health(view *fsm.Topics, topics []*fsm.Topic, here map[fsm.NodeID]bool) (h groupsHealth) {
	for _, topic := range topics {
		for i := range topic.Partitions {
			id, p := fsm.PartitionID{Topic: topic.ID, Partition: int32(i)}, &topic.Partitions[i]
			h.all++
			h.offline += boolInt(!n.online(id, p, here))
			if r := n.replica(id); r != nil {
				if leader, _ := r.Leader(); leader.Identity == n.identity {
					h.led++
					h.under += boolInt(n.underReplicated(view, p, r.Member))
				}
			}
		}
	}
	return h
}

// catalogHealth is health of the catalog's group.
func (n *Node) catalogHealth(view *fsm.Topics) (h groupsHealth) {
	h.all, h.offline = 1, boolInt(!n.catalogLed())
	g := n.catalog.Member()
	if g == nil || g.Raft.State() != raft.Leader {
		return h
	}
	h.led = 1
	vote, want := g.Voters(), 0
	for _, node := range view.Nodes() {
		want += boolInt(node.State != fsm.NodeLeaving)
	}
	away := slices.ContainsFunc(vote, func(identity string) bool { return !n.connected(identity) })
	h.under = boolInt(away || len(vote) < min(want, catalog.MaxVoters))
	return h
}

// shortcomings counts what is amiss with the replicas that should run here.
type shortcomings struct {
	closed   int // not running
	starting int // neither broken nor up: not running yet, or never had a leader although a majority is there
}

func (n *Node) shortcomings() (s shortcomings) {
	for _, topic := range n.Topics().Placed() {
		for p, partition := range topic.Partitions {
			if !slices.Contains(partition.Replicas, n.nodeID) {
				continue
			}
			id := fsm.PartitionID{Topic: topic.ID, Partition: int32(p)}
			r, broken := n.replicas.Look(id)
			if r == nil {
				s.closed++
				if broken == nil {
					s.starting++
				}
				continue
			}
			everLed := r.WasLed()
			// Those without which it cannot be led may never come back, and one that came later has no voters yet: it
			// waits for the group's leader to take it in.
			if servers, err := r.Member.Servers(); !everLed && err == nil && n.majorityHere(servers) {
				s.starting++
			}
		}
	}
	return s
}

// serves is nil if a client is served through this node about as well as through another one. A node that reaches fewer
// than half of the nodes is cut off, or all but a few are gone. One that reaches no leader at all, not the
// catalog's nor a partition's, serves nobody. What is short of that, a partition without a leader or a catalog
// without one, is no reason to send clients elsewhere: they would find the same there.
func (n *Node) serves() error {
	view := n.Topics()
	here, all := n.nodesHere(view), len(view.Nodes())
	if 2*len(here) < all {
		return fmt.Errorf("this node reaches %d of the cluster's %d nodes, itself among them", len(here), all)
	}
	if n.catalogLed() {
		return nil
	}
	partitions := 0
	for _, topic := range view.All() {
		for i := range topic.Partitions {
			if n.online(fsm.PartitionID{Topic: topic.ID, Partition: int32(i)}, &topic.Partitions[i], here) {
				return nil
			}
			partitions++
		}
	}
	return fmt.Errorf("neither the catalog nor any of %d partitions has a leader that this node reaches", partitions)
}
