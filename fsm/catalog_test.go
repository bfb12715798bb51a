package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/trimaran-io/trimaran/outcome"
)

// drawCommand draws a command that may or may not be allowed, out of few enough
// names that they meet.
func drawCommand(t *rapid.T) []byte {
	node := func() Node {
		return Node{
			ID:           NodeID(rapid.SampledFrom([]string{"n1", "n2", "n3", "n4", "N5", ""}).Draw(t, "node")),
			Incarnation:  rapid.SampledFrom([]string{"aaaaaaaa", "aaaaaaaa", "bbbbbbbb", "x"}).Draw(t, "incarnation"),
			Zone:         rapid.SampledFrom([]string{"", "z"}).Draw(t, "zone"),
			FeatureLevel: rapid.SampledFrom([]int{0, 2, 3, 3}).Draw(t, "knows"),
		}
	}
	name := func() string {
		return rapid.SampledFrom([]string{"a", "b", "a.b", "a_b", "c.", "", "d/e"}).Draw(t, "name")
	}
	id := func() TopicID { return TopicID{15: byte(rapid.IntRange(0, 6).Draw(t, "id"))} }
	c := CatalogCommand{Version: rapid.SampledFrom([]int{0, 0, 0, 0, 0, 0, 0, 2}).Draw(t, "version")}
	switch rapid.SampledFrom([]string{"form", "register", "remove", "create", "create", "create", "delete", "none", "garbage", "level", "state", "reassign", "reassign", "settle", "credentials", "acls", "tokens"}).Draw(t, "kind") {
	case "form":
		c.FormCluster = &FormCluster{ClusterID: rapid.SampledFrom([]string{"c", "d"}).Draw(t, "cluster")}
		for range rapid.IntRange(0, 3).Draw(t, "nodes") {
			c.FormCluster.Nodes = append(c.FormCluster.Nodes, node())
		}
	case "register":
		n := node()
		c.RegisterNode = &n
	case "remove":
		n := node()
		c.RemoveNode = &RemoveNode{n.ID, n.Incarnation}
	case "create":
		topic := Topic{Name: name(), ID: id(), ReplicationFactor: rapid.IntRange(1, 2).Draw(t, "rf")}
		for range rapid.IntRange(0, 2).Draw(t, "partitions") {
			p := Partition{}
			for range topic.ReplicationFactor {
				p.Replicas = append(p.Replicas, node().ID)
			}
			p.Bootstrap = p.Replicas
			topic.Partitions = append(topic.Partitions, p)
		}
		if rapid.Bool().Draw(t, "configured") {
			topic.Configs = map[string]string{"retention.ms": rapid.SampledFrom([]string{"1", "x"}).Draw(t, "value"), "segment.ms": "7"}
		}
		c.CreateTopic = &CreateTopic{topic}
	case "delete":
		c.DeleteTopic = &DeleteTopic{Name: name(), ID: id()}
	case "level":
		c.RaiseFeatureLevel = &RaiseFeatureLevel{FeatureLevel: rapid.IntRange(0, FeatureLevel).Draw(t, "level")}
	case "state":
		c.SetNodeState = &SetNodeState{ID: node().ID, State: NodeState(rapid.SampledFrom([]string{"", "draining", "leaving", "x"}).Draw(t, "state")), Successor: node().ID}
	case "reassign":
		some := func() (ids []NodeID) {
			for range rapid.IntRange(0, 3).Draw(t, "replicas") {
				ids = append(ids, node().ID)
			}
			return ids
		}
		c.Reassign = &Reassign{Topic: id(), ReplicationFactor: rapid.IntRange(0, 2).Draw(t, "factor")}
		for range rapid.IntRange(0, 2).Draw(t, "moves") {
			c.Reassign.Moves = append(c.Reassign.Moves, Move{Partition: int32(rapid.IntRange(-1, 2).Draw(t, "partition")), From: some(), To: some()})
		}
	case "settle":
		c.Settle = &Settle{Topic: id(), Partition: int32(rapid.IntRange(-1, 2).Draw(t, "partition")), Nodes: []NodeID{node().ID}, Replicas: rapid.SampledFrom([][]NodeID{nil, {"n1"}, {"n1", "n2"}}).Draw(t, "where")}
	case "credentials":
		c.AlterCredentials = drawCredentials(t)
	case "acls":
		c.AlterACLs = drawACLs(t)
	case "tokens":
		c.AlterTokens = drawTokens(t)
	case "garbage":
		return rapid.SliceOf(rapid.Byte()).Draw(t, "garbage")
	}
	data := c.Encode()
	if rapid.IntRange(0, 9).Draw(t, "damaged") == 0 {
		data[rapid.IntRange(0, len(data)-1).Draw(t, "at")] ^= byte(rapid.IntRange(1, 255).Draw(t, "flip"))
	}
	return data
}

// Replicas with the same log have the same bytes, wherever one of them was
// restored from a snapshot; a refused command changes nothing; what was handed
// out never changes.
func TestACatalogIsWhatItsLogSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, other, restored := NewCatalog(), NewCatalog(), NewCatalog()
		if rapid.IntRange(0, 4).Draw(t, "formed") > 0 {
			command := CatalogCommand{FormCluster: &FormCluster{"c", []Node{{ID: "n1", Incarnation: "aaaaaaaa"}, {ID: "n2", Incarnation: "aaaaaaaa"}}}}.Encode()
			for _, replica := range []*Catalog{c, other, restored} {
				replica.Apply(1, command)
			}
		}
		var index Index = 1
		for range rapid.IntRange(1, 30).Draw(t, "commands") {
			index += Index(rapid.IntRange(1, 3).Draw(t, "gap"))
			command := drawCommand(t)
			view := c.View()
			shown, before, applied := show(view), contents(c), c.LastApplied()
			result := c.Apply(index, command)
			other.Apply(index, slices.Clone(command))
			if fromSnapshot := restored.Apply(index, command); told(fromSnapshot.Err) != told(result.Err) {
				t.Fatalf("replicas answer differently: %v, %v", result.Err, fromSnapshot.Err)
			}
			if show(view) != shown {
				t.Fatal("a view changed after it was handed out")
			}
			snapshot := c.Snapshot()
			want := index
			if errors.Is(result.Err, ErrNewer) {
				want = applied // it goes no further
			}
			if c.LastApplied() != want {
				t.Fatalf("applied %d, want %d", c.LastApplied(), want)
			}
			if (result.Err != nil || c.View() == view) && contents(c) != before {
				t.Fatalf("the state changed behind %v", result.Err)
			}
			if result.Err != nil && outcome.Code(result.Err) == outcome.ErrUnknown && !errors.Is(result.Err, outcome.ErrUnknown) {
				t.Fatalf("an error without a code: %v", result.Err)
			}
			if !bytes.Equal(snapshot, other.Snapshot()) || !bytes.Equal(snapshot, restored.Snapshot()) {
				t.Fatal("the same log gave different bytes")
			}
			if rapid.Bool().Draw(t, "restore") {
				var err error
				if restored, err = RestoreCatalog(snapshot); err != nil {
					t.Fatal(err)
				}
			}
			checkView(t, c.View())
		}
	})
}

// checkView asks for everything in every way that there is.
func checkView(t *rapid.T, v *Topics) {
	if !slices.IsSortedFunc(v.All(), func(a, b *Topic) int { return strings.Compare(a.Name, b.Name) }) {
		t.Fatal("topics are not sorted")
	}
	for _, topic := range v.All() {
		byName, ok1 := v.Lookup(topic.Name)
		byID, ok2 := v.ByID(topic.ID)
		if !ok1 || !ok2 || byName != topic || byID != topic {
			t.Fatalf("topic %s is not found", topic.Name)
		}
		for i := range topic.Partitions {
			if p, ok := v.Partition(PartitionID{topic.ID, int32(i)}); !ok || p != &topic.Partitions[i] {
				t.Fatalf("partition %s-%d is not found", topic.Name, i)
			}
		}
		for _, i := range []int{-1, len(topic.Partitions)} {
			if _, ok := v.Partition(PartitionID{topic.ID, int32(i)}); ok {
				t.Fatalf("partition %s-%d is found", topic.Name, i)
			}
		}
		if topic.ReplicationFactor > len(v.Nodes()) {
			t.Fatalf("topic %s has more replicas than there are nodes", topic.Name)
		}
	}
	if len(v.byName) != len(v.All()) || len(v.byID) != len(v.All()) || len(v.byMetric) != len(v.All()) {
		t.Fatal("an index holds what is no topic")
	}
	for _, n := range v.Nodes() {
		if found, ok := v.Node(n.ID); !ok || found != n {
			t.Fatalf("node %s is not found", n.ID)
		}
	}
	if _, ok := v.Node("nobody"); ok {
		t.Fatal("found a node that is not registered")
	}
}

// Readers of a view need no lock while the catalog goes on.
func TestViewsAreReadWhileTheCatalogChanges(t *testing.T) {
	c := sampleCatalog()
	views := make(chan *Topics)
	var readers sync.WaitGroup
	for range 4 {
		readers.Add(1)
		go func() {
			defer readers.Done()
			for v := range views {
				if topic, ok := v.Lookup("orders"); ok {
					_, _ = v.Partition(PartitionID{Topic: topic.ID})
				}
				_ = show(v)
			}
		}()
	}
	for i := range 50 {
		id := TopicID{0: byte(i) + 1}
		topic := Topic{Name: fmt.Sprintf("t%d", i), ID: id, ReplicationFactor: 1, Partitions: []Partition{{Replicas: []NodeID{"n1"}, Bootstrap: []NodeID{"n1"}}}}
		if r := c.Apply(Index(100+2*i), CatalogCommand{CreateTopic: &CreateTopic{topic}}.Encode()); r.Err != nil {
			t.Fatal(r.Err)
		}
		views <- c.View()
		if i%2 == 0 {
			c.Apply(Index(101+2*i), CatalogCommand{DeleteTopic: &DeleteTopic{ID: id}}.Encode())
			views <- c.View()
		}
	}
	close(views)
	readers.Wait()
}

// The ids of deleted topics are remembered for a while, not for ever.
func TestDeletedIDsAreBounded(t *testing.T) {
	c := sampleCatalog()
	for i := range maxDeleted + 10 {
		id := TopicID{14: byte(i >> 8), 15: byte(i), 0: 1}
		topic := Topic{Name: "t", ID: id, ReplicationFactor: 1, Partitions: []Partition{{Replicas: []NodeID{"n1"}, Bootstrap: []NodeID{"n1"}}}}
		for j, command := range []CatalogCommand{{CreateTopic: &CreateTopic{topic}}, {DeleteTopic: &DeleteTopic{Name: "t"}}} {
			if r := c.Apply(Index(100+2*i+j), command.Encode()); r.Err != nil {
				t.Fatal(r.Err)
			}
		}
	}
	if len(c.deleted) != maxDeleted {
		t.Errorf("%d deleted ids, want %d", len(c.deleted), maxDeleted)
	}
	if _, err := RestoreCatalog(c.Snapshot()); err != nil {
		t.Error(err)
	}
}

// A command is applied once, also if the log is replayed from too early.
func TestAppliedCommandsAreNotAppliedAgain(t *testing.T) {
	c := sampleCatalog()
	before := c.Snapshot()
	if r := c.Apply(c.LastApplied(), CatalogCommand{DeleteTopic: &DeleteTopic{Name: "orders"}}.Encode()); r.Err == nil || !bytes.Equal(before, c.Snapshot()) {
		t.Errorf("applied again: %v", r.Err)
	}
}

// Every default is a value that the check takes, and names are sorted and found.
func TestConfigDefaultsAreAllowed(t *testing.T) {
	previous := ""
	for _, c := range Configs() {
		if c.Name <= previous {
			t.Errorf("%s is out of order", c.Name)
		}
		previous = c.Name
		if err := c.Check(c.Default); err != nil {
			t.Errorf("the default of %s is refused: %v", c.Name, err)
		}
		if found, ok := LookupConfig(c.Name); !ok || found.Type != c.Type {
			t.Errorf("%s is not found", c.Name)
		}
		if c.Type.String() == "" {
			t.Errorf("%s has no type", c.Name)
		}
		if !c.Effect && c.Note == "" {
			t.Errorf("%s has no effect and nothing says what happens instead", c.Name)
		}
		if got := (&Topic{}).Config(c.Name); got != c.Default {
			t.Errorf("%s is %q in a topic that sets nothing, want %q", c.Name, got, c.Default)
		}
	}
	topic := &Topic{Configs: map[string]string{"max.message.bytes": " 100 "}}
	if topic.MaxMessageBytes(nil) != 100 || (&Topic{}).MaxMessageBytes(nil) != 1048588 {
		t.Error("max.message.bytes is not read")
	}
	if topic.Config("no.such") != "" {
		t.Error("an unknown configuration has a value")
	}
}

func sampleCatalog() *Catalog {
	c := NewCatalog()
	c.Apply(1, CatalogCommand{FormCluster: &FormCluster{"c", []Node{{ID: "n1", Incarnation: "aaaaaaaa"}, {ID: "n2", Incarnation: "bbbbbbbb", Zone: "z"}}}}.Encode())
	c.Apply(2, CatalogCommand{CreateTopic: &CreateTopic{Topic{
		Name: "orders", ID: TopicID{15: 1}, ReplicationFactor: 2,
		Partitions: []Partition{{Replicas: []NodeID{"n1", "n2"}, Bootstrap: []NodeID{"n1", "n2"}}},
		Configs:    map[string]string{"retention.ms": "1"},
	}}}.Encode())
	c.Apply(3, CatalogCommand{CreateTopic: &CreateTopic{Topic{Name: "x", ID: TopicID{15: 2}, ReplicationFactor: 1, Partitions: []Partition{{Replicas: []NodeID{"n1"}, Bootstrap: []NodeID{"n1"}}}}}}.Encode())
	c.Apply(4, CatalogCommand{DeleteTopic: &DeleteTopic{Name: "x"}}.Encode())
	return c
}

// Any bytes may be committed to the catalog's log.
func FuzzCatalogApply(f *testing.F) {
	for _, c := range []CatalogCommand{
		{FormCluster: &FormCluster{"d", []Node{{ID: "n3", Incarnation: "cccccccc"}}}},
		{RegisterNode: &Node{ID: "n3", Incarnation: "cccccccc", Zone: "y"}},
		{RegisterNode: &Node{ID: "n1", Incarnation: "cccccccc"}},
		{RemoveNode: &RemoveNode{"n2", "bbbbbbbb"}},
		{CreateTopic: &CreateTopic{Topic{Name: "b", ID: TopicID{15: 3}, ReplicationFactor: 1, Partitions: []Partition{{Replicas: []NodeID{"n1"}, Bootstrap: []NodeID{"n1"}}}, Configs: map[string]string{"segment.ms": "9"}}}},
		{DeleteTopic: &DeleteTopic{Name: "orders"}},
		{DeleteTopic: &DeleteTopic{ID: TopicID{15: 2}}},
		{CreateGroupShards: &CreateGroupShards{1, []Partition{{Replicas: []NodeID{"n2"}, Bootstrap: []NodeID{"n2"}}}}},
	} {
		f.Add(c.Encode())
	}
	f.Add(sampleCredentials().Encode())
	f.Add(sampleACLs().Encode())
	f.Add(sampleTokens().Encode())
	f.Add([]byte("{}"))
	f.Add([]byte("null"))
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		c := sampleCatalog()
		before, view := contents(c), c.View()
		r := c.Apply(10, data)
		after := c.Snapshot()
		if (r.Err != nil || c.View() == view) && contents(c) != before {
			t.Fatal("a refused command changed the state")
		}
		restored, err := RestoreCatalog(after)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(restored.Snapshot(), after) {
			t.Fatal("a restored catalog has another snapshot")
		}
	})
}

// Any bytes may be given as a snapshot, also such that carry a right CRC.
func FuzzRestoreCatalog(f *testing.F) {
	for _, c := range []*Catalog{NewCatalog(), sampleCatalog(), catalogWithShards(f), securedCatalog(f)} {
		snapshot := c.Snapshot()
		f.Add(snapshot)
		f.Add(snapshot[envelopeHead : len(snapshot)-envelopeTail])
	}
	f.Add([]byte("TriC\x00\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		sealed := seal(catalogMagic, catalogVersion, func(b []byte) []byte { return append(b, data...) })
		for _, data := range [][]byte{data, sealed} {
			c, err := RestoreCatalog(data)
			if err != nil {
				if !errors.Is(err, ErrSnapshot) {
					t.Fatalf("not an ErrSnapshot: %v", err)
				}
				continue
			}
			snapshot := c.Snapshot()
			again, err := RestoreCatalog(snapshot)
			if err != nil || !bytes.Equal(again.Snapshot(), snapshot) {
				t.Fatalf("a snapshot of what was restored is refused or differs: %v", err)
			}
			c.Apply(c.LastApplied()+1, CatalogCommand{DeleteTopic: &DeleteTopic{Name: "orders"}}.Encode())
			_ = show(c.View())
		}
	})
}
