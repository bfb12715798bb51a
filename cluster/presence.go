package cluster

import (
	"github.com/trimaran-io/trimaran/cluster/election"
	"github.com/trimaran-io/trimaran/cluster/liveness"
	"github.com/trimaran-io/trimaran/cluster/membership"
	"github.com/trimaran-io/trimaran/fsm"
)

// Who is there is said by package liveness, to which these are short ways.

// newPresence gives what this node knows of who is there. The link is set before it is used.
func newPresence(n *Node) *liveness.Nodes {
	return liveness.New(liveness.Config{
		Self: n.identity,
		Connected: func(identity string) bool {
			_, connected := n.link.Alive(identity)
			return connected
		},
		Way: func(identity string) liveness.Way {
			switch n.election.Reach(identity) {
			case election.Reached:
				return liveness.Reached
			case election.Refused:
				return liveness.Refused
			}
			return liveness.Unheard
		},
		Members: func() []membership.Member {
			if !n.isWired() {
				return nil
			}
			return n.gossip.Members()
		},
		Said: func(identity string) []string {
			if !n.isWired() {
				return nil
			}
			return n.gossip.PeerAddrs(identity)
		},
	})
}

func (n *Node) connected(identity string) bool { return n.nodes.Connected(identity) }

// Gateways is liveness.Nodes.ClientAddresses.
func (f *front) Gateways() map[fsm.NodeID]string { return f.nodes.ClientAddresses(f.Topics()) }
