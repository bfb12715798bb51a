package cluster

import (
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/catalog"
	"github.com/trimaran-io/trimaran/fsm"
)

// What is amiss, as an operator and a load balancer are told. The catalog says which groups there are and
// who shall hold them, their configurations say who votes, and connections say who is there. Nothing is
// taken from how a group was formed: all of its first members may be gone.

// health judges groups from what this node sees of them. It has no state and takes no lock.
type health struct {
	self     string // this node's identity
	nodeID   fsm.NodeID
	presence presence
	topics   func() *fsm.Topics
	// catalog gives the catalog's group here, nil before there is one.
	catalogHere func() seenMember
	// replica gives what runs here of a partition or a shard, nil if nothing does; broken says whether it cannot be opened.
	replica func(id fsm.PartitionID) seenReplica
	broken  func(id fsm.PartitionID) bool
	// denied says whether the node of a member's leader is alive and does not say that it leads.
	denied func(m seenMember) bool
}

// presence says who is there (liveness.Nodes).
type presence interface {
	Connected(identity string) bool
	Here(view *fsm.Topics) map[fsm.NodeID]bool
	MajorityHere(servers []raft.Server) bool
}

// seenMember is this node's member of a group.
type seenMember interface {
	Leader() (identity string, term uint64) // that it knows, "" for none
	Servers() ([]raft.Server, error)        // by its newest configuration
	Stuck() bool                            // an append there does not end
}

// seenReplica is a replica that runs here.
type seenReplica interface {
	member() seenMember
	thinksItLeads() bool
	servesAsLeader() bool // it leads and is past its barrier
	WasLed() bool         // it knew a leader once
}

// votersOf gives the identities of a member's voters, nil if that is not known.
func votersOf(m seenMember) (out []string) {
	servers, err := m.Servers()
	if err != nil {
		return nil
	}
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			out = append(out, string(s.ID))
		}
	}
	return out
}

// ledHere reports whether this node knows a leader of the group that it can rely on: itself, with a disk that moves
// and a majority that is there, or a node that it reaches and that does not deny it. What a member of a group remembers
// of its leader is not enough: it outlives the leader by Raft's timeouts, which are slow.
func (h *health) ledHere(m seenMember) bool {
	identity, _ := m.Leader()
	if identity != h.self {
		return identity != "" && h.presence.Connected(identity) && !h.denied(m)
	}
	servers, err := m.Servers()
	return err == nil && !m.Stuck() && h.presence.MajorityHere(servers)
}

// catalogLed reports whether this node knows a leader of the catalog that it can rely on.
func (h *health) catalogLed() bool {
	m := h.catalogHere()
	return m != nil && h.ledHere(m)
}

// online reports whether a partition or shard has a leader, as far as it can be told from here: by the replica here if it
// votes and hears of leaders, and else by whether a majority of those that hold it is there.
func (h *health) online(id fsm.PartitionID, p *fsm.Partition, here map[fsm.NodeID]bool) bool {
	if r := h.replica(id); r != nil && !r.member().Stuck() && slices.Contains(votersOf(r.member()), h.self) {
		if r.thinksItLeads() && !r.servesAsLeader() {
			return false // not past its barrier
		}
		return h.ledHere(r.member())
	}
	there := 0
	for _, holder := range p.Holders() {
		there += boolInt(here[holder] && holder != h.nodeID) // this one has no vote, or its disk hangs
	}
	return there > len(p.Replicas)/2
}

// away reports whether one of those that vote is not there.
func (h *health) away(vote []string) bool {
	return slices.ContainsFunc(vote, func(identity string) bool { return !h.presence.Connected(identity) })
}

// underReplicated reports whether one of the nodes that shall hold what this node leads could not vote for it this
// moment, since it is not there or has no vote yet, or whether one that votes until it has left is not there.
func (h *health) underReplicated(topics *fsm.Topics, p *fsm.Partition, m seenMember) bool {
	vote := votersOf(m)
	return h.away(vote) || slices.ContainsFunc(p.Replicas, func(id fsm.NodeID) bool {
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

// of looks at topics' partitions, or at shards.
func (h *health) of(view *fsm.Topics, topics []*fsm.Topic, here map[fsm.NodeID]bool) (out groupsHealth) {
	for _, topic := range topics {
		for i := range topic.Partitions {
			id, p := fsm.PartitionID{Topic: topic.ID, Partition: int32(i)}, &topic.Partitions[i]
			out.all++
			out.offline += boolInt(!h.online(id, p, here))
			if r := h.replica(id); r != nil && r.thinksItLeads() {
				out.led++
				out.under += boolInt(h.underReplicated(view, p, r.member()))
			}
		}
	}
	return out
}

// ofCatalog is of for the catalog's group; leads says whether this node's member leads it.
func (h *health) ofCatalog(view *fsm.Topics, leads bool) (out groupsHealth) {
	out.all, out.offline = 1, boolInt(!h.catalogLed())
	m := h.catalogHere()
	if m == nil || !leads {
		return out
	}
	out.led = 1
	vote, want := votersOf(m), 0
	for _, node := range view.Nodes() {
		want += boolInt(node.State != fsm.NodeLeaving)
	}
	out.under = boolInt(h.away(vote) || len(vote) < min(want, catalog.MaxVoters))
	return out
}

// shortcomings counts what is amiss with the replicas that should run here.
type shortcomings struct {
	closed   int // not running
	starting int // neither broken nor up: not running yet, or never had a leader although a majority is there
}

func (h *health) shortcomings() (s shortcomings) {
	for _, topic := range h.topics().Placed() {
		for p, partition := range topic.Partitions {
			if !slices.Contains(partition.Replicas, h.nodeID) {
				continue
			}
			id := fsm.PartitionID{Topic: topic.ID, Partition: int32(p)}
			broken, r := h.broken(id), h.replica(id)
			if r == nil {
				s.closed++
				s.starting += boolInt(!broken)
				continue
			}
			// Those without which it cannot be led may never come back, and one that came later has no voters yet: it
			// waits for the group's leader to take it in.
			if servers, err := r.member().Servers(); !r.WasLed() && err == nil && h.presence.MajorityHere(servers) {
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
func (h *health) serves() error {
	view := h.topics()
	here, all := h.presence.Here(view), len(view.Nodes())
	if 2*len(here) < all {
		return fmt.Errorf("this node reaches %d of the cluster's %d nodes, itself among them", len(here), all)
	}
	if h.catalogLed() {
		return nil
	}
	partitions := 0
	for _, topic := range view.All() {
		for i := range topic.Partitions {
			if h.online(fsm.PartitionID{Topic: topic.ID, Partition: int32(i)}, &topic.Partitions[i], here) {
				return nil
			}
			partitions++
		}
	}
	return fmt.Errorf("neither the catalog nor any of %d partitions has a leader that this node reaches", partitions)
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
