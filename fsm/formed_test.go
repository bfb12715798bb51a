package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/trimaran-io/trimaran/outcome"
)

// formingModel is nodes and one partition's groups beside a catalog: who has opened a replica, and
// whom the group's configuration names.
type formingModel struct {
	t     *rapid.T
	c     *Catalog
	index Index
	up    map[string]bool // identities
	// The partitions, by number of the topic.
	groups map[TopicID]*formingGroup
}

type formingGroup struct {
	original []string // whom its creation meant
	formed   bool
	voters   map[string]bool // its configuration
	opened   map[string]bool // who has a replica, with a log
	anew     map[string]bool // who had one and gave it up
}

func (m *formingModel) apply(c CatalogCommand) error {
	m.index++
	err := m.c.Apply(m.index, c.Encode()).Err
	m.open()
	return err
}

// open has every node that is up open what it holds, as it does at once.
func (m *formingModel) open() {
	for _, topic := range m.c.View().All() {
		g, p := m.groups[topic.ID], &topic.Partitions[0]
		if g == nil {
			continue
		}
		for _, node := range m.c.View().Nodes() {
			id := node.Identity()
			if !m.up[id] || g.opened[id] == p.Holds(node.ID) {
				continue
			}
			if g.opened[id] {
				delete(g.opened, id)
				g.anew[id] = true
				continue
			}
			if !g.anew[id] && slices.Contains(p.Voters, id) {
				if !slices.Equal(p.Voters, g.original) {
					m.t.Fatalf("%s forms the group of %s with %q; it was created on %q", id, topic.Name, p.Voters, g.original)
				}
				if !g.formed {
					g.formed = true
					for _, v := range p.Voters {
						g.voters[v] = true
					}
				}
			}
			g.opened[id] = g.formed // else it waits for the leader
		}
	}
}

func (m *formingModel) lead(topic *Topic) {
	g, p := m.groups[topic.ID], &topic.Partitions[0]
	there := 0
	for id := range g.voters {
		if m.up[id] && g.opened[id] {
			there++
		}
	}
	if !g.formed || there <= len(g.voters)/2 {
		return
	}
	wanted := map[string]bool{}
	for _, id := range p.Replicas {
		node, _ := m.c.View().Node(id)
		identity := node.Identity()
		if wanted[identity] = true; !g.voters[identity] {
			if !m.up[identity] || !g.opened[identity] {
				return
			}
			g.voters[identity] = true
		}
	}
	g.voters = wanted
	settle := &Settle{Topic: topic.ID, Nodes: p.Leaving}
	if m.c.View().FeatureLevel() >= levelVoters {
		settle.Replicas = p.Replicas
	}
	if err := m.apply(CatalogCommand{Settle: settle}); err != nil {
		m.t.Fatal(err)
	}
}

// TestAGroupIsFormedOnceWhoeverHasTheNames draws what can happen to nodes, names and replicas, and
// to the cluster's feature level meanwhile: no node ever forms a group but those that it was
// created on, with the configuration that they all begin with.
func TestAGroupIsFormedOnceWhoeverHasTheNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &formingModel{t: t, c: NewCatalog(), up: map[string]bool{}, groups: map[TopicID]*formingGroup{}}
		born := 0
		node := func(name string, level int) *Node {
			born++
			n := &Node{ID: NodeID(name), Incarnation: fmt.Sprintf("%08x", born), FeatureLevel: level}
			m.up[n.Identity()] = true
			return n
		}
		names := []string{"n1", "n2", "n3", "n4"}
		first := rapid.IntRange(1, 3).Draw(t, "first")
		form := &FormCluster{ClusterID: "c"}
		for _, name := range names[:first] {
			form.Nodes = append(form.Nodes, *node(name, 2))
		}
		if err := m.apply(CatalogCommand{FormCluster: form}); err != nil {
			t.Fatal(err)
		}
		if err := m.apply(CatalogCommand{RaiseFeatureLevel: &RaiseFeatureLevel{2}}); err != nil {
			t.Fatal(err)
		}
		some := func(label string) Node { return rapid.SampledFrom(m.c.View().Nodes()).Draw(t, label) }
		places := func(n int) (ids []NodeID) {
			for _, node := range rapid.Permutation(m.c.View().Nodes()).Draw(t, "places")[:n] {
				ids = append(ids, node.ID)
			}
			return ids
		}
		for range rapid.SampledFrom([]int{10, 100, 300}).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"create", "register", "register", "remove", "remove", "move", "move", "move", "move", "lead", "lead", "lead", "lead", "stop", "start", "start", "restore", "upgrade", "raise"}).Draw(t, "step") {
			case "create":
				on := places(rapid.IntRange(1, len(m.c.View().Nodes())).Draw(t, "factor"))
				there, group := 0, &formingGroup{voters: map[string]bool{}, opened: map[string]bool{}, anew: map[string]bool{}}
				for _, id := range on {
					n, _ := m.c.View().Node(id)
					group.original = append(group.original, n.Identity())
					if m.up[n.Identity()] {
						there++
					}
				}
				if there <= len(on)/2 { // placement wants a majority
					continue
				}
				born++
				id := TopicID{14: byte(born >> 8), 15: byte(born), 0: 1}
				m.groups[id] = group
				topic := Topic{Name: fmt.Sprint("t", born), ID: id, ReplicationFactor: len(on), Partitions: []Partition{{Replicas: on, Bootstrap: on}}}
				if err := m.apply(CatalogCommand{CreateTopic: &CreateTopic{topic}}); err != nil {
					t.Fatal(err)
				}
			case "register":
				name := rapid.SampledFrom(names).Draw(t, "name")
				if _, ok := m.c.View().Node(NodeID(name)); ok || m.c.View().CheckName(NodeID(name)) != nil {
					continue
				}
				if err := m.apply(CatalogCommand{RegisterNode: node(name, 3)}); err != nil {
					t.Fatal(err)
				}
			case "remove":
				n := some("node")
				if m.apply(CatalogCommand{RemoveNode: &RemoveNode{n.ID, n.Incarnation}}) == nil {
					delete(m.up, n.Identity())
				}
			case "move":
				if all := m.c.View().All(); len(all) > 0 {
					topic := rapid.SampledFrom(all).Draw(t, "topic")
					to := places(rapid.IntRange(1, len(m.c.View().Nodes())).Draw(t, "factor"))
					err := m.apply(CatalogCommand{Reassign: &Reassign{topic.ID, len(to), []Move{{From: topic.Partitions[0].Replicas, To: to}}}})
					if err != nil {
						t.Fatal(err)
					}
				}
			case "lead":
				if all := m.c.View().All(); len(all) > 0 {
					m.lead(rapid.SampledFrom(all).Draw(t, "topic"))
				}
			case "stop":
				m.up[some("node").Identity()] = false
			case "start":
				m.up[some("node").Identity()] = true
				m.open()
			case "restore":
				restored, err := RestoreCatalog(m.c.Snapshot())
				if err != nil {
					t.Fatal(err)
				}
				m.c = restored
				m.open()
			case "upgrade":
				n := some("node")
				if n.FeatureLevel = 3; !m.up[n.Identity()] {
					continue
				}
				if err := m.apply(CatalogCommand{RegisterNode: &n}); err != nil {
					t.Fatal(err)
				}
			case "raise":
				level := m.c.View().NextFeatureLevel()
				if err := m.apply(CatalogCommand{RaiseFeatureLevel: &RaiseFeatureLevel{level}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		// And it is formed at all.
		for _, n := range m.c.View().Nodes() {
			m.up[n.Identity()] = true
		}
		m.open()
		for _, topic := range m.c.View().All() {
			if !m.groups[topic.ID].formed {
				t.Fatalf("%s was created on %q and is never formed", topic.Name, m.groups[topic.ID].original)
			}
		}
	})
}

// twoIncarnations gives a cluster of level in which n2 has left and came back as another node, with
// topics from before, and from after.
func twoIncarnations(t *testing.T, level int) *Catalog {
	t.Helper()
	c, index := NewCatalog(), Index(0)
	must := func(command CatalogCommand) {
		t.Helper()
		index++
		if err := c.Apply(index, command.Encode()).Err; err != nil {
			t.Fatal(err)
		}
	}
	topic := func(number byte, name string, on ...NodeID) {
		must(CatalogCommand{CreateTopic: &CreateTopic{Topic{Name: name, ID: TopicID{15: number}, ReplicationFactor: len(on), Partitions: []Partition{{Replicas: on, Bootstrap: on}}}}})
	}
	must(CatalogCommand{FormCluster: &FormCluster{"c", []Node{{ID: "n1", Incarnation: "aaaaaaaa", FeatureLevel: level}, {ID: "n2", Incarnation: "aaaaaaaa", FeatureLevel: level}}}})
	must(CatalogCommand{RaiseFeatureLevel: &RaiseFeatureLevel{level}})
	topic(1, "moved", "n2")
	topic(2, "stays", "n1")
	topic(3, "both", "n1", "n2")
	must(CatalogCommand{Reassign: &Reassign{Topic: TopicID{15: 1}, Moves: []Move{{From: []NodeID{"n2"}, To: []NodeID{"n1"}}}}})
	must(CatalogCommand{Settle: &Settle{Topic: TopicID{15: 1}, Nodes: []NodeID{"n2"}}})
	must(CatalogCommand{Reassign: &Reassign{Topic: TopicID{15: 3}, ReplicationFactor: 1, Moves: []Move{{From: []NodeID{"n1", "n2"}, To: []NodeID{"n1"}}}}})
	must(CatalogCommand{Settle: &Settle{Topic: TopicID{15: 3}, Nodes: []NodeID{"n2"}}})
	must(CatalogCommand{RemoveNode: &RemoveNode{"n2", "aaaaaaaa"}})
	must(CatalogCommand{RegisterNode: &Node{ID: "n2", Incarnation: "bbbbbbbb", FeatureLevel: 3}})
	must(CatalogCommand{Reassign: &Reassign{Topic: TopicID{15: 1}, Moves: []Move{{From: []NodeID{"n1"}, To: []NodeID{"n2"}}}}})
	topic(4, "after", "n2", "n1")
	return c
}

func votersOf(c *Catalog) string {
	var b strings.Builder
	for _, topic := range c.View().Placed() {
		fmt.Fprintf(&b, "%s%s ", topic.Name, topic.Partitions[0].Voters)
	}
	return strings.TrimSpace(b.String())
}

// Whom a creation means is decided when it is applied: the next node of the name is not meant.
func TestVotersAreIdentities(t *testing.T) {
	for _, level := range []int{2, 3} {
		c := twoIncarnations(t, level)
		const want = "after[n2.bbbbbbbb n1.aaaaaaaa] both[] moved[] stays[n1.aaaaaaaa]"
		if got := votersOf(c); got != want {
			t.Errorf("level %d: %s, want %s", level, got, want)
		}
		restored, err := RestoreCatalog(c.Snapshot())
		if err != nil {
			t.Fatal(err)
		}
		from := want
		if level < levelVoters {
			from = "after[] both[] moved[] stays[]"
		}
		if got := votersOf(restored); got != from {
			t.Errorf("level %d, restored: %s, want %s", level, got, from)
		}
		// Replicas that know it and such that do not become the same.
		for _, c := range []*Catalog{c, restored} {
			c.Apply(100, CatalogCommand{RegisterNode: &Node{ID: "n1", Incarnation: "aaaaaaaa", FeatureLevel: 3}}.Encode())
			if err := c.Apply(101, CatalogCommand{RaiseFeatureLevel: &RaiseFeatureLevel{3}}.Encode()).Err; err != nil {
				t.Fatal(err)
			}
			if got := votersOf(c); got != want {
				t.Errorf("level %d, raised: %s, want %s", level, got, want)
			}
		}
		if !bytes.Equal(c.Snapshot(), restored.Snapshot()) {
			t.Errorf("level %d: replicas have different bytes", level)
		}
	}
}

// A move of the name alone proves nothing: until it is settled nobody says that the replica is one
// of the group.
func TestAMoveUnderWayLeavesNoVoters(t *testing.T) {
	c := twoIncarnations(t, 2)
	c.Apply(90, CatalogCommand{RegisterNode: &Node{ID: "n1", Incarnation: "aaaaaaaa", FeatureLevel: 3}}.Encode())
	// Where it was created, by the names.
	if p, _ := c.View().Partition(PartitionID{Topic: TopicID{15: 1}}); !slices.Equal(p.Replicas, p.Bootstrap) || len(p.Leaving) != 1 {
		t.Fatalf("%+v", p)
	}
	c.Apply(91, CatalogCommand{RaiseFeatureLevel: &RaiseFeatureLevel{3}}.Encode())
	if p, _ := c.View().Partition(PartitionID{Topic: TopicID{15: 1}}); p.Voters != nil {
		t.Errorf("voters %q", p.Voters)
	}
}

func TestVotersAreNotForCommandsToSay(t *testing.T) {
	c := twoIncarnations(t, 3)
	bad := Partition{Replicas: []NodeID{"n1"}, Bootstrap: []NodeID{"n1"}, Voters: []string{"n1.aaaaaaaa"}}
	for i, command := range []CatalogCommand{
		{CreateTopic: &CreateTopic{Topic{Name: "bad", ID: TopicID{15: 9}, ReplicationFactor: 1, Partitions: []Partition{bad}}}},
		{CreatePartitions: &CreatePartitions{TopicID{15: 2}, 1, []Partition{bad}}},
		{CreateGroupShards: &CreateGroupShards{1, []Partition{bad}}},
	} {
		if err := c.Apply(Index(100+i), command.Encode()).Err; !errors.Is(err, outcome.ErrInvalidAssignment) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// While some nodes' programs take a name for who had it first, nobody else gets it.
func TestANameThatAGroupWasCreatedOnIsFreeFromLevel3On(t *testing.T) {
	for _, level := range []int{2, 3} {
		c := twoIncarnations(t, level)
		c.Apply(100, CatalogCommand{DeleteTopic: &DeleteTopic{Name: "after"}}.Encode())
		c.Apply(101, CatalogCommand{Reassign: &Reassign{Topic: TopicID{15: 1}, Moves: []Move{{From: []NodeID{"n2"}, To: []NodeID{"n1"}}}}}.Encode())
		c.Apply(102, CatalogCommand{Settle: &Settle{Topic: TopicID{15: 1}, Nodes: []NodeID{"n2"}}}.Encode())
		if err := c.View().CheckName("n2"); err != nil {
			t.Errorf("level %d: registered, and %v", level, err)
		}
		if err := c.Apply(103, CatalogCommand{RemoveNode: &RemoveNode{"n2", "bbbbbbbb"}}.Encode()).Err; err != nil {
			t.Fatal(err)
		}
		if err := c.View().CheckName("n2"); (err == nil) != (level >= levelVoters) || err != nil && !errors.Is(err, outcome.ErrInvalidConfig) {
			t.Errorf("level %d: %v", level, err)
		}
		if err := c.View().CheckName("n3"); err != nil {
			t.Errorf("level %d, a new name: %v", level, err)
		}
	}
}

// Who is to have the replicas has changed since a leader said that others are out: its word is old.
func TestAnOldSettleIsVoid(t *testing.T) {
	c := twoIncarnations(t, 3)
	settle := func(index Index, replicas ...NodeID) int {
		t.Helper()
		if err := c.Apply(index, CatalogCommand{Settle: &Settle{Topic: TopicID{15: 1}, Nodes: []NodeID{"n1"}, Replicas: replicas}}.Encode()).Err; err != nil {
			t.Fatal(err)
		}
		p, _ := c.View().Partition(PartitionID{Topic: TopicID{15: 1}})
		return len(p.Leaving)
	}
	if n := settle(100, "n1"); n != 1 {
		t.Errorf("an old one is obeyed: %d are leaving", n)
	}
	if n := settle(101, "n2"); n != 0 {
		t.Errorf("%d are leaving", n)
	}
	before := twoIncarnations(t, 2)
	if err := before.Apply(100, CatalogCommand{Settle: &Settle{Topic: TopicID{15: 1}, Nodes: []NodeID{"n1"}, Replicas: []NodeID{"n2"}}}.Encode()).Err; !errors.Is(err, outcome.ErrFeatureLevel) {
		t.Errorf("at level 2: %v", err)
	}
}
