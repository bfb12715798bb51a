package cluster

import (
	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/fsm"
)

// Who is there. Gossip suggests, connections answer.
//
// Gossip takes seconds to miss a node that has died, and to believe one that is back. It is read
// for what nodes say of themselves, addresses above all. Every node keeps a session with every
// registered one (failover.others); it ends when the process does, or after a second without a sign
// of life. So whoever has to know who is there, to place replicas, to count a majority, to give
// leadership away or to tell a client where to go, asks here and nowhere else.
//
// The answer is this node's own. That another one may reach a node is no help to what is done from
// here: the leader of a group decides for its group, that of the catalog for plans.

// connected reports whether the node is reached right now. A node reaches itself.
func (n *Node) connected(identity string) bool {
	if identity == n.identity {
		return true
	}
	_, connected := n.link.Alive(identity)
	return connected
}

// nodesHere are the registered nodes that are reached right now, this one among them if it is
// registered.
func (n *Node) nodesHere(view *fsm.Topics) map[fsm.NodeID]bool {
	here := map[fsm.NodeID]bool{}
	for _, node := range view.Nodes() {
		if n.connected(node.Identity()) {
			here[node.ID] = true
		}
	}
	return here
}

// majorityOf reports whether more than half of the nodes are among those here.
func majorityOf(nodes []fsm.NodeID, here map[fsm.NodeID]bool) bool {
	there := 0
	for _, id := range nodes {
		there += boolInt(here[id])
	}
	return there > len(nodes)/2
}

// majorityHere reports whether a majority of a group's voters is there.
func (n *Node) majorityHere(servers []raft.Server) bool { return n.majorityWithout(servers, "") }

// majorityWithout is raftgroup.MajorityWithout for the nodes that are reached from here.
func (n *Node) majorityWithout(servers []raft.Server, identity string) bool {
	return raftgroup.MajorityWithout(servers, identity, n.connected)
}

// majorityWith is raftgroup.MajorityWith for the nodes that are reached from here.
func (n *Node) majorityWith(servers []raft.Server, identity string) bool {
	return raftgroup.MajorityWith(servers, identity, n.connected)
}

// leastMissed is raftgroup.LeastMissed for the nodes that are reached from here.
func (n *Node) leastMissed(servers []raft.Server, goes func(identity string) bool) []string {
	return raftgroup.LeastMissed(servers, n.identity, n.connected, goes)
}
