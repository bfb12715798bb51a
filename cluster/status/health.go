package status

import (
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/catalog"
	"github.com/trimaran-io/trimaran/fsm"
)

// What is amiss, as an operator and a load balancer are told. The catalog says which groups there
// are and who shall hold them, their configurations say who votes, and connections say who is
// there. Nothing is taken from how a group was formed: all of its first members may be gone.

// Health judges groups from what this node sees of them. It has no state and takes no lock.
type Health struct {
	Self     string // this node's identity
	NodeID   fsm.NodeID
	Presence Presence
	Here     Here
}

// votersOf gives the identities of a member's voters, nil if that is not known.
func votersOf(m Member) (out []string) {
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

// ledHere reports whether this node knows a leader of the group that it can rely on: itself, with a
// disk that moves and a majority that is there, or a node that it reaches and that does not deny
// it. What a member of a group remembers of its leader is not enough: it outlives the leader by
// Raft's timeouts, which are slow.
func (h *Health) ledHere(m Member) bool {
	identity, _ := m.Leader()
	if identity != h.Self {
		return identity != "" && h.Presence.Connected(identity) && !m.Denied()
	}
	servers, err := m.Servers()
	return err == nil && !m.Stuck() && h.Presence.MajorityHere(servers)
}

// CatalogLed reports whether this node knows a leader of the catalog that it can rely on.
func (h *Health) CatalogLed() bool {
	m := h.Here.Catalog()
	return m != nil && h.ledHere(m)
}

// Online reports whether a partition or shard has a leader, as far as it can be told from here: by
// the replica here if it votes and hears of leaders, and else by whether a majority of those that
// hold it is there.
func (h *Health) Online(id fsm.PartitionID, p *fsm.Partition, here map[fsm.NodeID]bool) bool {
	if r := h.Here.Replica(id); r != nil && !r.Member().Stuck() && slices.Contains(votersOf(r.Member()), h.Self) {
		if r.ThinksItLeads() && !r.ServesAsLeader() {
			return false // not past its barrier
		}
		return h.ledHere(r.Member())
	}
	there := 0
	for _, holder := range p.Holders() {
		// this one has no vote, or its disk hangs
		there += boolInt(here[holder] && holder != h.NodeID)
	}
	return there > len(p.Replicas)/2
}

// away reports whether one of those that vote is not there.
func (h *Health) away(vote []string) bool {
	return slices.ContainsFunc(vote, func(identity string) bool { return !h.Presence.Connected(identity) })
}

// UnderReplicated reports whether one of the nodes that shall hold what this node leads could not
// vote for it this moment, since it is not there or has no vote yet, or whether one that votes
// until it has left is not there.
func (h *Health) UnderReplicated(topics *fsm.Topics, p *fsm.Partition, m Member) bool {
	vote := votersOf(m)
	return h.away(vote) || slices.ContainsFunc(p.Replicas, func(id fsm.NodeID) bool {
		node, ok := topics.Node(id)
		return !ok || !slices.Contains(vote, node.Identity())
	})
}

// raftGroupsHealth counts groups of one kind.
type raftGroupsHealth struct {
	all     int
	offline int // without a leader, as Online says
	led     int // by this node
	under   int // of those led: UnderReplicated
}

// of looks at topics' partitions, or at shards.
func (h *Health) of(view *fsm.Topics, topics []*fsm.Topic, here map[fsm.NodeID]bool) (out raftGroupsHealth) {
	for _, topic := range topics {
		for i := range topic.Partitions {
			id, p := fsm.PartitionID{Topic: topic.ID, Partition: int32(i)}, &topic.Partitions[i]
			out.all++
			out.offline += boolInt(!h.Online(id, p, here))
			if r := h.Here.Replica(id); r != nil && r.ThinksItLeads() {
				out.led++
				out.under += boolInt(h.UnderReplicated(view, p, r.Member()))
			}
		}
	}
	return out
}

// ofCatalog is of for the catalog's group; leads says whether this node's member leads it.
func (h *Health) ofCatalog(view *fsm.Topics, leads bool) (out raftGroupsHealth) {
	out.all, out.offline = 1, boolInt(!h.CatalogLed())
	m := h.Here.Catalog()
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

// Shortcomings counts what is amiss with the replicas that should run here.
type Shortcomings struct {
	Closed int // not running
	// neither broken nor up: not running yet, or never had a leader although a majority is there
	Starting int
}

// Shortcomings looks at all replicas that the catalog names here.
func (h *Health) Shortcomings() (s Shortcomings) {
	for _, topic := range h.Here.Topics().Placed() {
		for p, partition := range topic.Partitions {
			if !slices.Contains(partition.Replicas, h.NodeID) {
				continue
			}
			id := fsm.PartitionID{Topic: topic.ID, Partition: int32(p)}
			broken, r := h.Here.Broken(id), h.Here.Replica(id)
			if r == nil {
				s.Closed++
				s.Starting += boolInt(!broken)
				continue
			}
			// Those without which it cannot be led may never come back, and one that came later has
			// no voters yet: it waits for the group's leader to take it in.
			if servers, err := r.Member().Servers(); !r.WasLed() && err == nil && h.Presence.MajorityHere(servers) {
				s.Starting++
			}
		}
	}
	return s
}

// Serves is nil if a client is served through this node about as well as through another one. A
// node that reaches fewer than half of the nodes is cut off, or all but a few are gone. One that
// reaches no leader at all, not the catalog's nor a partition's, serves nobody. What is short of
// that, a partition without a leader or a catalog without one, is no reason to send clients
// elsewhere: they would find the same there.
func (h *Health) Serves() error {
	view := h.Here.Topics()
	here, all := h.Presence.Here(view), 0
	for _, node := range view.Nodes() {
		// one that is lost is missed by nobody
		all += boolInt(here[node.ID] || node.State != fsm.NodeLeaving)
	}
	if 2*len(here) < all {
		return fmt.Errorf("this node reaches %d of the cluster's %d nodes, itself among them", len(here), all)
	}
	if h.CatalogLed() {
		return nil
	}
	partitions := 0
	for _, topic := range view.All() {
		for i := range topic.Partitions {
			if h.Online(fsm.PartitionID{Topic: topic.ID, Partition: int32(i)}, &topic.Partitions[i], here) {
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
