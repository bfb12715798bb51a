package placement

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/trimaran-io/trimaran/fsm"
)

// TestScripts runs testdata: "assign" places partitions on the nodes named by
// "nodes", and their load grows by what was placed.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var nodes []Node
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "nodes":
				nodes = readNodes(t, d.Input)
				return ""
			case "assign":
				partitions, rf, seed := 1, 1, 0
				d.MaybeScanArgs(t, "partitions", &partitions)
				d.MaybeScanArgs(t, "rf", &rf)
				d.MaybeScanArgs(t, "seed", &seed)
				assignment, err := Assign(nodes, int32(partitions), rf, uint64(seed))
				if err != nil {
					return "refused: " + err.Error()
				}
				return tell(nodes, assignment)
			case "check":
				rf := 1
				d.MaybeScanArgs(t, "rf", &rf)
				var assignment [][]fsm.NodeID
				for line := range strings.Lines(d.Input) {
					var replicas []fsm.NodeID
					for _, id := range strings.Fields(line) {
						replicas = append(replicas, fsm.NodeID(id))
					}
					assignment = append(assignment, replicas)
				}
				if err := CheckAssignment(nodes, assignment, rf); err != nil {
					return "refused: " + err.Error()
				}
				return "fine"
			}
			d.Fatalf(t, "no such command")
			return ""
		})
	})
}

// readNodes reads lines "id [zone=z] [replicas=n] [leaders=n]".
func readNodes(t *testing.T, text string) []Node {
	var nodes []Node
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		n := Node{ID: fsm.NodeID(fields[0])}
		for _, field := range fields[1:] {
			name, value, _ := strings.Cut(field, "=")
			number, err := strconv.Atoi(value)
			switch name {
			case "zone":
				n.Zone, err = value, nil
			case "replicas":
				n.Replicas = number
			case "leaders":
				n.Leaders = number
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// tell adds the assignment to the nodes' load and shows both.
func tell(nodes []Node, assignment [][]fsm.NodeID) string {
	var b strings.Builder
	for p, replicas := range assignment {
		fmt.Fprintf(&b, "%d: %s\n", p, replicas)
		for i, id := range replicas {
			n := slices.IndexFunc(nodes, func(n Node) bool { return n.ID == id })
			nodes[n].Replicas++
			if i == 0 {
				nodes[n].Leaders++
			}
		}
	}
	for _, n := range nodes {
		fmt.Fprintf(&b, "%s has %d replicas, leads %d\n", n.ID, n.Replicas, n.Leaders)
	}
	return b.String()
}
