package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/fsm"
)

// A node that is taken out of the cluster hears of it as a member of the catalog's group, ends, and
// remembers it in its data directory. One that was away then, or cut off, is in that group no more when it is
// back, so that nobody tells it anything: it asks.

// ErrLeft ends a node that was taken out of the cluster, as was asked for, and is what Start gives from
// then on: the data directory belongs to nobody any more.
var ErrLeft = errors.New("this node has left the cluster: its replicas are elsewhere, and it cannot come back with this data directory")

// leftTimeout bounds the question of one turn, all nodes asked together.
const leftTimeout = time.Second

// leave ends this node for good.
func (n *Node) leave() {
	if n.Err() != nil {
		return
	}
	if err := n.lost(n.who.Leave()); err != nil {
		n.logger.Warn("cannot note that this node has left the cluster", "error", err)
	}
	n.fail(ErrLeft)
}

// hasLeft asks the nodes that gossip names, of which the catalog's leader can tell; known says that it did. All that
// this node knows of the cluster may be gone: those that are there now it has never been connected with.
func (n *Node) hasLeft(ctx context.Context) (left, known bool) {
	ctx, cancel := context.WithTimeout(ctx, leftTimeout)
	defer cancel()
	members := n.gossip.Members()
	answers := make(chan []byte, len(members))
	for _, m := range members {
		go func() {
			if m.Identity == n.identity || m.ClusterID != n.ClusterID() {
				answers <- nil
				return
			}
			reply, err := n.ask(ctx, m.Identity, callMember)
			if err != nil {
				reply = nil
			}
			answers <- reply
		}()
	}
	for range members {
		if reply := <-answers; len(reply) == 1 {
			left, known = left || reply[0] == 0, true
			cancel() // the others need not be waited for
		}
	}
	return left, known
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

// giveUpVote takes the vote in the catalog's group from a node that is to leave the cluster. obstacle says
// why that has to wait. It is called at the catalog's leader.
func (c *catalog) giveUpVote(node fsm.Node) (obstacle string, err error) {
	n, identity := c.node, node.Identity()
	g := c.raftGroup()
	if g == nil {
		return "", errNotLeader{}
	}
	servers, err := g.Servers()
	if err != nil {
		return "", err
	}
	votes := slices.ContainsFunc(servers, func(s raft.Server) bool { return string(s.ID) == identity && s.Suffrage == raft.Voter })
	switch {
	case !votes:
		return "", nil
	case identity == n.identity: // leadersLoop hands the catalog over
		return fmt.Sprintf("node %s leads the catalog, and no other node takes over", node.ID), nil
	case !n.majorityWithout(servers, identity):
		return fmt.Sprintf("without node %s the catalog would have no majority: too few of its other voters are there", node.ID), nil
	}
	if err := g.Change(n.ctx, func() raft.Future { return g.Raft.DemoteVoter(raft.ServerID(identity), 0, callTimeout) }); err != nil {
		return "", err
	}
	n.logger.Info("a node that leaves has given up its vote in the catalog", "node", node.ID)
	return "", nil
}
