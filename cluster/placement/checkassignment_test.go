package placement

import (
	"slices"

	"github.com/trimaran-io/trimaran/fsm"
)

// CheckAssignment reports whether an assignment made by hand can be taken: every
// partition has rf replicas on different nodes out of those given. It may be
// uneven: that is the choice of who made it. The error is
// outcome.ErrInvalidAssignment or outcome.ErrInvalidPartitions.
func CheckAssignment(nodes []Node, assignment [][]fsm.NodeID, rf int) error {
	return fsm.CheckAssignment(assignment, rf, func(id fsm.NodeID) bool {
		return slices.ContainsFunc(nodes, func(n Node) bool { return n.ID == id })
	})
}
