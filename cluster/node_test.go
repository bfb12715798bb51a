package cluster

import (
	"github.com/trimaran-io/trimaran/cluster/identity"
	"github.com/trimaran-io/trimaran/cluster/leading"
	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/fsm"
)

// What tests do with a node.

// handOver gives the leadership of a group to a voter that follows.
func (n *Node) handOver(m *raftgroup.Member) error { return n.handovers.Give(leading.Of(m)) }

// handOverTo gives it to one that is suitable.
func (n *Node) handOverTo(m *raftgroup.Member, suitable func(identity string) bool) error {
	return n.handovers.GiveTo(leading.Of(m), suitable)
}

func (n *Node) partitionDir(id fsm.PartitionID) string {
	return n.dir.Join("partitions", id.String())
}

func (n *Node) nodesHere(view *fsm.Topics) map[fsm.NodeID]bool { return n.nodes.Here(view) }

func newUUID() [16]byte { return identity.NewUUID() }
