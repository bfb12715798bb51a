package main

import (
	"testing"

	"github.com/trimaran-io/trimaran/admin"
)

// TestTierTableSaysWhatANodeDoesNotSee: after what the leader says.
func TestTierTableSaysWhatANodeDoesNotSee(t *testing.T) {
	for leader, want := range map[string]string{"": "node n2: not there", "503": "503"} {
		status := &admin.Status{Topics: []admin.TopicStatus{{Name: "a", Partitions: []admin.PartitionStatus{{
			Tier:     &admin.TierStatus{Segments: 1, Error: leader},
			Replicas: []admin.ReplicaStatus{{Node: "n1"}, {Node: "n2", Unseen: "not there"}},
		}}}}}
		rows := tierRows(status)
		if last := rows[len(rows)-1]; len(rows) != 2 || last[len(last)-1] != want {
			t.Errorf("%v", rows)
		}
	}
}
