package fsm

import (
	"errors"
	"slices"
	"testing"

	"github.com/trimaran-io/trimaran/outcome"
)

// TestAMoveInSteps: who leaves is a holder until it is settled, plans that rest on another state
// are void, and a node that holds something does not leave the cluster.
func TestAMoveInSteps(t *testing.T) {
	c := NewCatalog()
	var index Index
	must := func(want error, command CatalogCommand) {
		t.Helper()
		index++
		if err := c.Apply(index, command.Encode()).Err; !errors.Is(err, want) {
			t.Fatalf("%+v: %v, want %v", command, err, want)
		}
	}
	var nodes []Node
	for _, id := range []NodeID{"n1", "n2", "n3", "n4"} {
		nodes = append(nodes, Node{ID: id, Incarnation: "aaaaaaaa"})
	}
	must(nil, CatalogCommand{FormCluster: &FormCluster{ClusterID: "c", Nodes: nodes}})
	id := TopicID{1}
	first := []NodeID{"n1", "n2", "n3"}
	must(nil, CatalogCommand{CreateTopic: &CreateTopic{Topic{Name: "t", ID: id, ReplicationFactor: 3, Partitions: []Partition{{Replicas: first, Bootstrap: first}, {Replicas: first, Bootstrap: first}}}}})
	move := func(from, to []NodeID) CatalogCommand {
		return CatalogCommand{Reassign: &Reassign{Topic: id, Moves: []Move{{From: from, To: to}}}}
	}
	second := []NodeID{"n4", "n2", "n3"}
	must(outcome.ErrFeatureLevel, move(first, second))
	for _, node := range nodes {
		node.FeatureLevel = 2
		must(nil, CatalogCommand{RegisterNode: &node})
	}
	must(nil, CatalogCommand{RaiseFeatureLevel: &RaiseFeatureLevel{2}})
	holders := func(want ...NodeID) {
		t.Helper()
		p, _ := c.View().Partition(PartitionID{Topic: id})
		if !slices.Equal(p.Holders(), want) || !slices.Equal(p.Bootstrap, first) {
			t.Fatalf("held by %q, formed with %q; want %q", p.Holders(), p.Bootstrap, want)
		}
		restored, err := RestoreCatalog(c.Snapshot())
		if err != nil {
			t.Fatal(err)
		}
		if q, _ := restored.View().Partition(PartitionID{Topic: id}); !slices.Equal(q.Holders(), want) {
			t.Fatalf("restored: %q", q.Holders())
		}
	}
	must(nil, move(first, second))
	holders("n4", "n2", "n3", "n1")
	must(nil, move(first, second)) // as it is
	must(outcome.ErrInvalidAssignment, move(first, []NodeID{"n1", "n2", "n4"}))
	must(outcome.ErrInvalidAssignment, move(second, []NodeID{"n1", "n2"}))
	must(outcome.ErrInvalidAssignment, move(second, []NodeID{"n1", "n1", "n2"}))
	must(outcome.ErrInvalidAssignment, move(second, []NodeID{"n1", "n2", "n9"}))
	must(outcome.ErrInvalidAssignment, CatalogCommand{RemoveNode: &RemoveNode{"n1", "aaaaaaaa"}})
	// Another plan before the first is done: who has not come yet may have to go as well.
	third := []NodeID{"n1", "n2", "n3"}
	must(nil, move(second, third))
	holders("n1", "n2", "n3", "n4")
	must(nil, CatalogCommand{Settle: &Settle{Topic: id, Nodes: []NodeID{"n4", "n2"}}})
	holders("n1", "n2", "n3")
	must(nil, CatalogCommand{Settle: &Settle{Topic: id, Nodes: []NodeID{"n4"}}})
	must(outcome.ErrUnknownTopicOrPartition, CatalogCommand{Settle: &Settle{Topic: id, Partition: 2}})

	must(outcome.ErrInvalidAssignment, CatalogCommand{Reassign: &Reassign{Topic: id, ReplicationFactor: 1, Moves: []Move{{From: first, To: first[:1]}}}})
	must(nil, CatalogCommand{Reassign: &Reassign{Topic: id, ReplicationFactor: 1, Moves: []Move{{From: first, To: first[:1]}, {Partition: 1, From: first, To: first[2:]}}}})
	holders("n1", "n2", "n3")
	must(nil, CatalogCommand{Settle: &Settle{Topic: id, Nodes: []NodeID{"n2", "n3"}}})
	holders("n1")

	must(nil, CatalogCommand{SetNodeState: &SetNodeState{ID: "n4", State: NodeLeaving, Successor: "n1"}})
	must(outcome.ErrInvalidAssignment, CatalogCommand{SetNodeState: &SetNodeState{ID: "n4", State: NodeDraining, Successor: "n1"}})
	must(outcome.ErrInvalidAssignment, CatalogCommand{SetNodeState: &SetNodeState{ID: "n4", State: NodeLeaving, Successor: "n4"}})
	must(outcome.ErrInvalidConfig, CatalogCommand{SetNodeState: &SetNodeState{ID: "n4", State: "tired"}})
	registered := nodes[3]
	registered.FeatureLevel, registered.Zone = 2, "z"
	must(nil, CatalogCommand{RegisterNode: &registered})
	if n, _ := c.View().Node("n4"); n.State != NodeLeaving || n.Successor != "n1" || n.Zone != "z" {
		t.Fatalf("registering changed what the operator wants: %+v", n)
	}
	must(nil, CatalogCommand{RemoveNode: &RemoveNode{"n4", "aaaaaaaa"}})
}
