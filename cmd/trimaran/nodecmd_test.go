package main

import (
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
)

// A drained node is waited for as long as it leads what another one could, and not for ever for
// what is on it alone.
func TestDrainWaitsForWhatOthersCanLead(t *testing.T) {
	replicas := func(nodes ...fsm.NodeID) (all []admin.ReplicaStatus) {
		for _, n := range nodes {
			all = append(all, admin.ReplicaStatus{Node: n})
		}
		return all
	}
	status := func(leader fsm.NodeID, holders ...fsm.NodeID) *admin.Status {
		return &admin.Status{
			Nodes:  []admin.NodeStatus{{ID: "n1", State: fsm.NodeDraining, Alive: true}, {ID: "n2"}, {ID: "n3", State: fsm.NodeDraining}},
			Topics: []admin.TopicStatus{{Partitions: []admin.PartitionStatus{{Leader: leader, Replicas: replicas(holders...)}}}},
		}
	}
	silent := func(leader fsm.NodeID) *admin.Status {
		s := status(leader, "n1", "n2")
		s.Nodes[0].Alive = false
		return s
	}
	shard := &admin.Status{Nodes: status("").Nodes, GroupShards: status("n1", "n1", "n2").Topics[0].Partitions}
	for name, test := range map[string]struct {
		status *admin.Status
		alone  int
		over   bool
	}{
		"another can lead":          {status("n1", "n1", "n2", "n3"), 0, false},
		"another leads":             {status("n2", "n1", "n2", "n3"), 0, true},
		"it is alone":               {status("n1", "n1"), 1, true},
		"the other is drained, too": {status("n1", "n1", "n3"), 0, true},
		"a shard":                   {shard, 0, false},
		"it does not answer":        {silent(""), 0, false},
		"it is dead":                {silent("n2"), 0, true},
	} {
		alone, text, over := drained(test.status, "n1")
		if alone != test.alone || over != test.over {
			t.Errorf("%s: %d alone, %v (%s)", name, alone, over, text)
		}
	}
}

func TestDrainOfTheOnlyReplicaEnds(t *testing.T) {
	_, addr, _ := oneNode(t)
	command(t, 0, "", "topic", "create", "events", "--partitions", "2", "--brokers", addr)
	if _, says := command(t, 0, "", "node", "drain", "n1", "--wait", "--brokers", addr); !strings.Contains(says, "2 partitions") {
		t.Errorf("it says %q", says)
	}
	command(t, 0, "", "node", "drain", "n1", "--undo", "--wait", "--brokers", addr)
}
