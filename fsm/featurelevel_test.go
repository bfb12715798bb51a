package fsm

import (
	"errors"
	"testing"

	"github.com/trimaran-io/trimaran/outcome"
)

func TestFeatureLevelRisesWhenEveryNodeKnowsIt(t *testing.T) {
	c := NewCatalog()
	var index Index
	apply := func(command CatalogCommand) error {
		index++
		return c.Apply(index, command.Encode()).Err
	}
	node := func(id NodeID, level int) *Node { return &Node{ID: id, Incarnation: "aaaaaaaa", FeatureLevel: level} }
	must := func(want error, command CatalogCommand) {
		t.Helper()
		if err := apply(command); !errors.Is(err, want) {
			t.Fatalf("%+v: %v, want %v", command, err, want)
		}
	}
	at := func(level, next int) {
		t.Helper()
		if c.View().FeatureLevel() != level || c.View().NextFeatureLevel() != next {
			t.Fatalf("at level %d, next %d; want %d, %d", c.View().FeatureLevel(), c.View().NextFeatureLevel(), level, next)
		}
		if level > FeatureLevel {
			if _, err := RestoreCatalog(c.Snapshot()); !errors.Is(err, ErrSnapshot) {
				t.Fatalf("a catalog of level %d, by a program that knows %d: %v", level, FeatureLevel, err)
			}
			return
		}
		restored, err := RestoreCatalog(c.Snapshot())
		if err != nil {
			t.Fatal(err)
		}
		if restored.View().FeatureLevel() != level || restored.View().NextFeatureLevel() != next {
			t.Fatalf("restored at level %d, next %d", restored.View().FeatureLevel(), restored.View().NextFeatureLevel())
		}
	}
	const newer = FeatureLevel + 1
	must(nil, CatalogCommand{FormCluster: &FormCluster{ClusterID: "c", Nodes: []Node{{ID: "n1", Incarnation: "aaaaaaaa"}, {ID: "n2", Incarnation: "aaaaaaaa"}}}})
	at(1, 1)
	must(nil, CatalogCommand{RegisterNode: node("n1", newer)})
	at(1, 1)
	must(outcome.ErrFeatureLevel, CatalogCommand{RaiseFeatureLevel: &RaiseFeatureLevel{newer}})
	must(nil, CatalogCommand{RegisterNode: node("n2", newer)})
	at(1, newer)
	must(outcome.ErrFeatureLevel, CatalogCommand{RaiseFeatureLevel: &RaiseFeatureLevel{newer + 1}})
	must(nil, CatalogCommand{RaiseFeatureLevel: &RaiseFeatureLevel{newer}})
	at(newer, newer)
	must(nil, CatalogCommand{RaiseFeatureLevel: &RaiseFeatureLevel{1}}) // there is no way back
	at(newer, newer)
	must(outcome.ErrFeatureLevel, CatalogCommand{RegisterNode: node("n3", newer-1)})
	must(outcome.ErrFeatureLevel, CatalogCommand{RegisterNode: node("n2", 0)})
	must(nil, CatalogCommand{RegisterNode: node("n3", newer+5)})
	at(newer, newer)
	must(outcome.ErrInvalidConfig, CatalogCommand{RegisterNode: node("n4", -1)})
}

// A level comes where all nodes' programs know it, and does not where one's does not.
func TestFeatureLevelComes(t *testing.T) {
	command := &CatalogCommand{AlterACLs: &AlterACLs{}}
	c := NewCatalog()
	if !c.View().FeatureLevelComes(command) {
		t.Error("before the cluster is formed nothing is said")
	}
	n1 := Node{ID: "n1", Incarnation: "aaaaaaaa"}
	form := CatalogCommand{FormCluster: &FormCluster{"c", []Node{n1}}}
	if r := c.Apply(1, form.Encode()); r.Err != nil || !c.View().FeatureLevelComes(command) {
		t.Error("the node that formed it has not said yet what it knows:", r.Err)
	}
	n1.FeatureLevel = FeatureLevel
	known := CatalogCommand{RegisterNode: &n1}
	if r := c.Apply(2, known.Encode()); r.Err != nil || !c.View().FeatureLevelComes(command) {
		t.Error("all nodes know it:", r.Err)
	}
	older := CatalogCommand{RegisterNode: &Node{ID: "n2", Incarnation: "bbbbbbbb", FeatureLevel: 3}}
	if r := c.Apply(3, older.Encode()); r.Err != nil || c.View().FeatureLevelComes(command) {
		t.Error("one node does not know it:", r.Err)
	}
}
