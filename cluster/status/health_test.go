package status

import (
	"fmt"
	"slices"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
)

// threeNodes is a catalog with nodes n1 to n3 and a topic whose partitions 0 and 1 prefer n1 and
// n2.
func threeNodes(t *testing.T, more ...fsm.CatalogCommand) (*fsm.Topics, fsm.TopicID) {
	t.Helper()
	c := fsm.NewCatalog()
	var nodes []fsm.Node
	for i := range 3 {
		nodes = append(nodes, fsm.Node{ID: fsm.NodeID(fmt.Sprint("n", i+1)), Incarnation: "00000000", FeatureLevel: fsm.FeatureLevel})
	}
	topic := fsm.Topic{Name: "t", ID: fsm.TopicID{1}, ReplicationFactor: 3}
	for _, replicas := range [][]fsm.NodeID{{"n1", "n2", "n3"}, {"n2", "n3", "n1"}} {
		topic.Partitions = append(topic.Partitions, fsm.Partition{Replicas: replicas, Bootstrap: replicas})
	}
	commands := []fsm.CatalogCommand{{FormCluster: &fsm.FormCluster{ClusterID: "c", Nodes: nodes}}}
	for i := range nodes {
		commands = append(commands, fsm.CatalogCommand{RegisterNode: &nodes[i]})
	}
	commands = append(commands, fsm.CatalogCommand{RaiseFeatureLevel: &fsm.RaiseFeatureLevel{FeatureLevel: 2}}, fsm.CatalogCommand{CreateTopic: &fsm.CreateTopic{Topic: topic}})
	for i, command := range append(commands, more...) {
		if r := c.Apply(fsm.Index(i+1), command.Encode()); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	return c.View(), topic.ID
}

// node is what runs on one node of a test.
type node struct {
	view     *fsm.Topics
	catalog  *seen // nil: there is none yet
	replicas map[fsm.PartitionID]*seen
	broken   map[fsm.PartitionID]error
	full     bool
}

func (n *node) Topics() *fsm.Topics { return n.view }

func (n *node) Catalog() CatalogMember {
	if n.catalog == nil {
		return nil
	}
	return n.catalog
}

func (n *node) Replica(id fsm.PartitionID) Replica {
	if r := n.replicas[id]; r != nil {
		return r
	}
	return nil
}

func (n *node) Running() (all []Replica) {
	for _, r := range n.replicas {
		all = append(all, r)
	}
	return all
}

func (n *node) Broken(id fsm.PartitionID) bool                     { return n.broken[id] != nil }
func (n *node) Troubles() (broken, hurt map[fsm.PartitionID]error) { return n.broken, nil }
func (n *node) Space() (free, total int64)                         { return 1 << 30, 1 << 40 }
func (n *node) Full() bool                                         { return n.full }

// seen is a member and a replica as this package sees them.
type seen struct {
	id      fsm.PartitionID
	led     string
	voters  []string
	hangs   bool
	denied  bool
	barrier bool // it is past it
	known   bool // a leader was
	open    Transactions
}

func (s *seen) Leader() (string, uint64) { return s.led, 1 }
func (s *seen) Servers() (out []raft.Server, err error) {
	for _, v := range s.voters {
		out = append(out, raft.Server{ID: raft.ServerID(v)})
	}
	return out, nil
}
func (s *seen) Stuck() bool                      { return s.hangs }
func (s *seen) Member() Member                   { return s }
func (s *seen) Denied() bool                     { return s.denied }
func (s *seen) ID() fsm.PartitionID              { return s.id }
func (s *seen) Bounds() (start, next fsm.Offset) { return 2, 10 }
func (s *seen) Transactions() Transactions       { return s.open }
func (s *seen) Tier() *admin.TierStatus          { return nil }
func (s *seen) Unseen() string                   { return "" }

func (s *seen) Compaction() Compaction {
	return Compaction{Compacted: true, DirtyRatio: 0.25, Waits: true}
}
func (s *seen) Bytes() int64                  { return 1000 }
func (s *seen) CatchUp() *admin.CatchUpStatus { return nil }
func (s *seen) Leads() bool                   { return s.ThinksItLeads() }
func (s *seen) Term() uint64                  { return 1 }
func (s *seen) End() int64                    { return 7 }
func (s *seen) ThinksItLeads() bool           { return s.led == "n1.00000000" }
func (s *seen) ServesAsLeader() bool          { return s.barrier }
func (s *seen) WasLed() bool                  { return s.known }

// reached are the nodes that are there beside n1.
type reached []string

func (r reached) Connected(identity string) bool {
	return identity == "n1.00000000" || slices.Contains(r, identity)
}

func (r reached) Here(view *fsm.Topics) map[fsm.NodeID]bool {
	here := map[fsm.NodeID]bool{}
	for _, node := range view.Nodes() {
		if r.Connected(node.Identity()) {
			here[node.ID] = true
		}
	}
	return here
}

func (r reached) MajorityHere(servers []raft.Server) bool {
	there := 0
	for _, s := range servers {
		there += boolInt(r.Connected(string(s.ID)))
	}
	return there > len(servers)/2
}

// TestWhatIsOffline is what has no leader that this node can rely on.
func TestWhatIsOffline(t *testing.T) {
	all := []string{n1, n2, n3}
	view, topic := threeNodes(t)
	for what, test := range map[string]struct {
		there  reached
		r      *seen // nil: no replica is here
		online bool
	}{
		"led by one that is there":            {reached{n2}, &seen{led: n2, voters: all}, true},
		"led by one that is gone":             {reached{n3}, &seen{led: n2, voters: all}, false},
		"led by one that denies it":           {reached{n2, n3}, &seen{led: n2, voters: all, denied: true}, false},
		"led here":                            {reached{n2}, &seen{led: n1, voters: all, barrier: true}, true},
		"led here, not past the barrier":      {reached{n2}, &seen{led: n1, voters: all}, false},
		"led here, without a majority":        {reached{}, &seen{led: n1, voters: all, barrier: true}, false},
		"led by nobody":                       {reached{n2, n3}, &seen{voters: all}, false},
		"no replica here, a majority there":   {reached{n2, n3}, nil, true},
		"no replica here, one of three there": {reached{n2}, nil, false},
		"the disk here hangs":                 {reached{n2, n3}, &seen{led: n1, voters: all, hangs: true}, true},
		"no vote here":                        {reached{n2, n3}, &seen{voters: []string{n2, n3}}, true},
	} {
		n := &node{view: view, replicas: map[fsm.PartitionID]*seen{}}
		if test.r != nil {
			for p := range int32(2) {
				n.replicas[fsm.PartitionID{Topic: topic, Partition: p}] = test.r
			}
		}
		h := &Health{Self: n1, NodeID: "n1", Presence: test.there, Here: n}
		p, _ := view.Partition(fsm.PartitionID{Topic: topic})
		if online := h.Online(fsm.PartitionID{Topic: topic}, p, test.there.Here(view)); online != test.online {
			t.Errorf("%s: online %v", what, online)
		}
		if err := h.Serves(); (err == nil) != (test.online && len(test.there) > 0) {
			t.Errorf("%s: %v", what, err)
		}
		short := h.Shortcomings()
		if want := boolInt(test.r == nil) * 2; short.Closed != want {
			t.Errorf("%s: %+v", what, short)
		}
	}
}
