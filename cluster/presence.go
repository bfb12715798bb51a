package cluster

import (
	"errors"

	"github.com/trimaran-io/trimaran/cluster/liveness"
	"github.com/trimaran-io/trimaran/cluster/membership"
	"github.com/trimaran-io/trimaran/cluster/peer"
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
			switch n.link.Reach(identity) {
			case peer.Reached:
				return liveness.Reached
			case peer.Refused:
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
	})
}

func (n *Node) connected(identity string) bool { return n.nodes.Connected(identity) }

func (n *Node) nodesHere(view *fsm.Topics) map[fsm.NodeID]bool { return n.nodes.Here(view) }

// Gateways is liveness.Nodes.ClientAddresses.
func (n *Node) Gateways() map[fsm.NodeID]string { return n.nodes.ClientAddresses(n.Topics()) }

// Serving is nil while this node serves clients as well as any. elsewhere says that others may serve
// them meanwhile: this node does not reach a majority of the catalog's voters, and those that it does
// not hear may be one. Nodes whose address refuses connections are not: nobody is served there.
func (n *Node) Serving() (elsewhere bool, err error) {
	if err := n.ending.serving(); err != nil {
		return false, err
	}
	if !n.served.Load() {
		return false, n.Ready()
	}
	return n.cutOff()
}

// cutOff is Serving for a node that has served.
func (n *Node) cutOff() (elsewhere bool, err error) {
	g := n.catalog.Member()
	if g == nil {
		return false, errors.New("the catalog is not open yet")
	}
	return n.nodes.CutOff(g.Voters())
}
