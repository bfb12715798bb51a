package placement

import (
	"errors"
	"fmt"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

func TestMoreReplicasThanNodesIsRefused(t *testing.T) {
	if _, err := Assign([]Node{{ID: "a"}, {ID: "b"}}, 1, 3, 0); !errors.Is(err, outcome.ErrInvalidReplicationFactor) {
		t.Fatal(err)
	}
	for _, bad := range [][2]int{{0, 1}, {1, 0}, {-1, 1}} {
		if _, err := Assign([]Node{{ID: "a"}}, int32(bad[0]), bad[1], 0); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
}

func TestTheEmptyNodeIsFilledFirst(t *testing.T) {
	nodes := []Node{{ID: "a", Replicas: 10, Leaders: 5}, {ID: "b", Replicas: 10, Leaders: 5}, {ID: "c"}}
	assignment, err := Assign(nodes, 4, 1, 7)
	if err != nil {
		t.Fatal(err)
	}
	for p, replicas := range assignment {
		if len(replicas) != 1 || replicas[0] != "c" {
			t.Errorf("partition %d is on %v, want c", p, replicas)
		}
	}
}

// Any nodes, zones, loads and counts: replicas are on different nodes and, as
// far as possible, zones; with equal loads nothing is uneven by more than one;
// the same input gives the same output.
func TestAssignmentsAreSpread(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zones := rapid.IntRange(1, 4).Draw(t, "zones")
		var nodes []Node
		zone := map[fsm.NodeID]string{}
		for i := range rapid.IntRange(1, 9).Draw(t, "nodes") {
			n := Node{ID: fsm.NodeID(fmt.Sprintf("n%d", i)), Zone: fmt.Sprintf("z%d", i%zones)}
			nodes = append(nodes, n)
			zone[n.ID] = n.Zone
		}
		present := min(zones, len(nodes))
		factor := rapid.IntRange(1, len(nodes)).Draw(t, "factor")
		partitions := rapid.Int32Range(1, 60).Draw(t, "partitions")
		seed := rapid.Uint64().Draw(t, "seed")
		assignment, err := Assign(nodes, partitions, factor, seed)
		if err != nil {
			t.Fatal(err)
		}
		again, _ := Assign(rapid.Permutation(nodes).Draw(t, "order"), partitions, factor, seed)
		if !reflect.DeepEqual(assignment, again) {
			t.Fatal("the order of the nodes changed the answer")
		}
		if err := CheckAssignment(nodes, assignment, factor); err != nil {
			t.Fatal(err)
		}
		replicas, leaders := map[fsm.NodeID]int{}, map[fsm.NodeID]int{}
		for p, on := range assignment {
			seen, inZones := map[fsm.NodeID]bool{}, map[string]bool{}
			for _, id := range on {
				if seen[id] {
					t.Fatalf("partition %d has two replicas on %s", p, id)
				}
				seen[id], inZones[zone[id]] = true, true
				replicas[id]++
			}
			leaders[on[0]]++
			if len(on) != factor || len(inZones) != min(factor, present) {
				t.Fatalf("partition %d: %v in %d zones, want %d replicas in %d", p, on, len(inZones), factor, min(factor, present))
			}
		}
		if len(nodes)%zones == 0 || len(nodes) < zones { // zones of one size
			uneven(t, "replicas", nodes, replicas, 1)
			uneven(t, "leaders", nodes, leaders, 1)
		}
	})
}

// Topics created one after the other take the load that is there into account.
func TestTopicsOneAfterTheOtherStayEven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := make([]Node, rapid.IntRange(1, 7).Draw(t, "nodes"))
		for i := range nodes {
			nodes[i].ID = fsm.NodeID(fmt.Sprintf("n%d", i))
		}
		replicas, leaders := map[fsm.NodeID]int{}, map[fsm.NodeID]int{}
		factor := rapid.IntRange(1, len(nodes)).Draw(t, "factor")
		for range rapid.IntRange(1, 8).Draw(t, "topics") {
			assignment, err := Assign(nodes, rapid.Int32Range(1, 9).Draw(t, "partitions"), factor, rapid.Uint64().Draw(t, "seed"))
			if err != nil {
				t.Fatal(err)
			}
			for _, on := range assignment {
				leaders[on[0]]++
				for _, id := range on {
					replicas[id]++
				}
			}
			for i := range nodes {
				nodes[i].Replicas, nodes[i].Leaders = replicas[nodes[i].ID], leaders[nodes[i].ID]
			}
			uneven(t, "replicas", nodes, replicas, 1)
			// Older topics do not move, so one can be left behind.
			uneven(t, "leaders", nodes, leaders, 2)
		}
	})
}

// The largest topic is placed while a client waits, also on nodes with very
// different loads.
func TestTheLargestTopicIsPlacedAtOnce(t *testing.T) {
	nodes := make([]Node, 30)
	for i := range nodes {
		nodes[i] = Node{ID: fsm.NodeID(fmt.Sprintf("n%02d", i)), Zone: fmt.Sprintf("z%d", i%4), Leaders: i * 100, Replicas: i * 300}
	}
	assignment, err := Assign(nodes, fsm.MaxPartitions, 3, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckAssignment(nodes, assignment, 3); err != nil {
		t.Fatal(err)
	}
	// The leaders end as even as if they had all been placed at once.
	leaders := map[fsm.NodeID]int{}
	for _, n := range nodes {
		leaders[n.ID] = n.Leaders
	}
	for _, on := range assignment {
		leaders[on[0]]++
	}
	low, high := leaders["n00"], leaders["n00"]
	for _, n := range nodes {
		low, high = min(low, leaders[n.ID]), max(high, leaders[n.ID])
	}
	if high-low > 1 {
		t.Errorf("between %d and %d leaders per node", low, high)
	}
}

func uneven(t *rapid.T, what string, nodes []Node, count map[fsm.NodeID]int, allowed int) {
	low, high := count[nodes[0].ID], count[nodes[0].ID]
	for _, n := range nodes {
		low, high = min(low, count[n.ID]), max(high, count[n.ID])
	}
	if high-low > allowed {
		t.Fatalf("%s are uneven: %v", what, count)
	}
}
