package cluster

import (
	"context"
	"errors"
	"time"
)

// A node that is taken out of the cluster hears of it as a member of the catalog's group, ends, and
// remembers it in its data directory. One that was away then is in that group no more when it comes back, so
// that nobody tells it anything: it asks.

// errLeft ends a node that was decommissioned. Its data directory belongs to nobody any more.
var errLeft = errors.New("this node has left the cluster: its replicas are elsewhere, and it cannot come back with this data directory")

// leftTimeout bounds the question of one turn, all nodes asked together.
const leftTimeout = time.Second

// leave ends this node for good.
func (n *Node) leave() {
	if n.Err() != nil {
		return
	}
	if err := n.saveIdentity(func(f *identityFile) { f.Left = true }); err != nil {
		n.logger.Warn("cannot note that this node has left the cluster", "error", err)
	}
	n.fail(errLeft)
}

// hasLeft asks the nodes that are there, of which the catalog's leader can tell.
func (n *Node) hasLeft(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, leftTimeout)
	defer cancel()
	for _, m := range n.gossip.Members() {
		if m.Identity == n.identity || !n.connected(m.Identity) {
			continue
		}
		reply, err := n.ask(ctx, m.Identity, callMember)
		if err == nil && len(reply) == 1 {
			return reply[0] == 0
		}
	}
	return false
}

// answerMember tells a node whether it belongs to the cluster (callMember). Only a confirmed leader of the
// catalog knows. Before the catalog says who the first nodes are, all that ask belong to it.
func (n *Node) answerMember(ctx context.Context, identity string) ([]byte, error) {
	if _, err := n.catalog.indexAsLeader(ctx); err != nil {
		return nil, err
	}
	view := n.Topics()
	if view.ClusterID() == "" {
		return []byte{1}, nil
	}
	for _, node := range view.Nodes() {
		if node.Identity() == identity {
			return []byte{1}, nil
		}
	}
	return []byte{0}, nil
}
