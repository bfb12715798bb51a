package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/cluster/identity"
	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/membership"
)

// ErrLeftOut ends a node whose cluster was recovered without it: the others have gone on, and what
// it has is of before. Nothing is noted of that, as the node may be a survivor on which the
// recovery was not carried out yet.
var ErrLeftOut = errors.New("the cluster was recovered without this node, and has gone on: if the node is a survivor run 'trimaran recover --apply' here, too, and else start it with an empty data directory")

// successorTimeout bounds the question to a node that gossip names, in which cluster it is.
const successorTimeout = 5 * time.Second

// foreign is told by gossip of nodes of other clusters. It does not wait.
func (n *Node) foreign(m membership.Member) {
	if !identity.Succeeds(m.ClusterID, n.who.ClusterID()) {
		return
	}
	select {
	case n.successors <- m.PeerAddr:
	default:
	}
}

// watchForSuccessor ends the node when a node of what became of its cluster says so itself, on the
// peer link: that is what gossip only suggests.
func (n *Node) watchForSuccessor() {
	for {
		select {
		case <-n.ctx.Done():
			return
		case addr := <-n.successors:
			if theirs := n.clusterAt(addr); identity.Succeeds(theirs, n.who.ClusterID()) {
				n.fail(fmt.Errorf("%w (it is cluster %s now, this node is of %s)", ErrLeftOut, theirs, n.who.ClusterID()))
				return
			}
		}
	}
}

// clusterAt asks the node at a peer address for its cluster; "" if it is this node's, or is not
// told.
func (n *Node) clusterAt(addr string) string {
	ctx, cancel := context.WithTimeout(n.ctx, successorTimeout)
	defer cancel()
	_, _, err := n.link.CallAddr(ctx, addr, calls.Member.Kind)
	var other *link.ClusterMismatch
	if errors.As(err, &other) {
		return other.Theirs
	}
	return ""
}
