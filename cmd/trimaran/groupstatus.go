package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
)

// groupShardsText says in a line who coordinates consumer groups.
func groupShardsText(status *admin.Status) string {
	leads, away, damaged := map[fsm.NodeID]int{}, 0, 0
	for _, s := range status.GroupShards {
		leads[s.Leader]++
		for _, r := range s.Replicas {
			switch r.Role {
			case "damaged":
				damaged++
			case "offline":
				away++
			}
		}
	}
	var led []string
	for _, node := range slices.Sorted(maps.Keys(leads)) {
		if node != "" {
			led = append(led, fmt.Sprintf("%s leads %d", node, leads[node]))
		}
	}
	text := fmt.Sprintf("Consumer groups: %d shards", len(status.GroupShards))
	if len(led) > 0 {
		text += ", " + strings.Join(led, ", ")
	}
	for _, amiss := range []struct {
		count int
		text  string
	}{{leads[""], "%d WITHOUT A LEADER"}, {away, "%d replicas offline"}, {damaged, "%d replicas damaged"}} {
		if amiss.count > 0 {
			text += ", " + fmt.Sprintf(amiss.text, amiss.count)
		}
	}
	return text
}
