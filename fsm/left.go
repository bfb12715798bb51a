package fsm

import (
	"slices"
	"strings"
)

// This file is what the catalog remembers of nodes that have left the cluster: an operator who asks
// again for what is done is told that it is, and not that nobody ever had that name.

// maxLeft is how many of them it remembers.
const maxLeft = 1024

// rememberLeft gives the list with one more, and without the oldest if it becomes too long.
func rememberLeft(left []string, identity string) []string {
	next := append(slices.Clone(left), identity)
	return next[max(0, len(next)-maxLeft):]
}

// HasLeft says whether a node of that name was taken out of the cluster and none has the name now.
// The catalog knows it from level 3 on, of the last maxLeft nodes.
func (t *Topics) HasLeft(id NodeID) bool {
	if _, ok := t.Node(id); ok {
		return false
	}
	return slices.ContainsFunc(t.left, func(identity string) bool {
		name, _, _ := strings.Cut(identity, ".")
		return name == string(id)
	})
}
