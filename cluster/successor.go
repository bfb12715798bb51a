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
// peer link: that is what gossip only suggests. Where nodes do not prove who they are anybody can
// say so. Then it ends a node that was started a moment ago, as one that was lost and comes back,
// and one that has no majority of its catalog's voters; others go on.
func (n *Node) watchForSuccessor() {
	var said time.Time
	for {
		select {
		case <-n.ctx.Done():
			return
		case addr := <-n.successors:
			theirs, proven := n.clusterAt(addr)
			switch {
			case !identity.Succeeds(theirs, n.who.ClusterID()):
			case proven || time.Since(n.started) < successorGrace || !n.withMajority():
				n.fail(fmt.Errorf("%w (it is cluster %s now, this node is of %s)", ErrLeftOut, theirs, n.who.ClusterID()))
				return
			case said.IsZero() || time.Since(said) >= successorSaidAgain:
				said = time.Now()
				n.logger.Error("somebody says that the cluster was recovered without this node, and does not prove who that is; it is passed over while this node reaches a majority of its catalog's voters: stop this node if it is right", "addr", addr, "cluster", theirs)
			}
		}
	}
}

// successorGrace is for how long after its start a node believes whoever says so.
const successorGrace = time.Minute

// successorSaidAgain is after how long it is logged again that somebody says so.
const successorSaidAgain = 5 * time.Minute

// withMajority reports whether this node reaches a majority of the catalog's voters.
func (n *Node) withMajority() bool {
	g := n.catalog.Member()
	if g == nil {
		return false
	}
	_, err := n.nodes.CutOff(g.Voters())
	return err == nil
}

// clusterAt asks the node at a peer address for its cluster; "" if it is this node's, or is not
// told. proven: the node has shown that it may have its identity.
func (n *Node) clusterAt(addr string) (theirs string, proven bool) {
	ctx, cancel := context.WithTimeout(n.ctx, successorTimeout)
	defer cancel()
	_, _, err := n.link.CallAddr(ctx, addr, calls.Member.Kind)
	var other *link.ClusterMismatch
	if errors.As(err, &other) {
		return other.Theirs, other.Proven
	}
	return "", false
}
