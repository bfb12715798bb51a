package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/trimaran-io/trimaran/cluster/membership"
	"github.com/trimaran-io/trimaran/cluster/peer"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// How a node comes to its cluster.
//
// A node without a cluster id watches gossip. If it sees a node that has one, it
// asks to be admitted: the catalog registers it and its leader adds it to the
// catalog group. If it sees as many nodes without one as the expected size (its
// own included), the one with the lowest identity proposes a cluster of exactly
// these. A node grants one proposal in its life, on stable storage, and the
// proposer needs the grant of all, so no two clusters can form that share a
// node. The proposer alone bootstraps the catalog group; a stop at any point is
// resumed from node.json.

const formationTick = 200 * time.Millisecond

// maxCatalogVoters is the number of nodes that vote in the catalog group; the
// others follow it.
const maxCatalogVoters = 5

// findCluster returns when this node has a cluster id, or with an error that
// only the operator can mend.
func (n *Node) findCluster(ctx context.Context) error {
	tick := time.NewTicker(formationTick)
	defer tick.Stop()
	waiting := ""
	for {
		members := n.gossip.Members()
		state, err := n.formationStep(ctx, members)
		if err != nil {
			return err
		}
		if n.ClusterID() != "" {
			return nil
		}
		if state != waiting {
			waiting = state
			n.setWaiting(state)
			n.logger.Info("not yet in a cluster", "state", state)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.gossip.Changed():
		case <-tick.C:
		}
	}
}

// formationStep does what can be done now and says what is waited for. An error
// is final.
func (n *Node) formationStep(ctx context.Context, members []membership.Member) (string, error) {
	n.idMu.Lock()
	forming := n.id.Forming
	n.idMu.Unlock()

	for _, m := range members {
		if m.ClusterID == "" || m.Identity == n.identity {
			continue
		}
		if forming != nil && forming.ClusterID == m.ClusterID {
			return "", n.adopt(m.ClusterID)
		}
		if forming != nil && forming.Proposer != n.identity && m.Identity != forming.Proposer {
			// The proposer may have all grants already, this one among them. Only the
			// proposer itself, seen in another cluster, releases it.
			return fmt.Sprintf("agreed to form cluster %s with %s, and sees cluster %s: bring %s back, or empty the data directory to join", forming.ClusterID, forming.Proposer, m.ClusterID, forming.Proposer), nil
		}
		return n.join(ctx, m)
	}
	if forming != nil && forming.Proposer != n.identity {
		return fmt.Sprintf("waiting for %s to form cluster %s, as agreed", forming.Proposer, forming.ClusterID), nil
	}
	if forming == nil {
		if n.cfg.BootstrapExpect <= 0 {
			return "waiting to meet a node of a cluster (--join)", nil
		}
		if n.cfg.BootstrapExpect == 1 && len(members) == 1 && n.toldOfOthers() {
			// It may be a node of theirs whose disk is gone.
			return "waiting to meet another node (--join); without --join it forms a cluster of its own", nil
		}
		var candidates []membership.Member
		for _, m := range members {
			if m.Expect != n.cfg.BootstrapExpect && m.Identity != n.identity {
				if m.Expect > 0 {
					return fmt.Sprintf("node %s expects a cluster of %d, this one of %d: give all nodes the same --bootstrap-expect", m.NodeID, m.Expect, n.cfg.BootstrapExpect), nil
				}
				continue // joins later
			}
			candidates = append(candidates, m)
		}
		slices.SortFunc(candidates, func(a, b membership.Member) int { return strings.Compare(a.Identity, b.Identity) })
		for i := 1; i < len(candidates); i++ {
			if candidates[i].NodeID == candidates[i-1].NodeID {
				return fmt.Sprintf("two nodes are named %s: give each its own --node-id", candidates[i].NodeID), nil
			}
		}
		if len(candidates) < n.cfg.BootstrapExpect {
			return fmt.Sprintf("waiting for more nodes: %d of %d expected are here", len(candidates), n.cfg.BootstrapExpect), nil
		}
		candidates = candidates[:n.cfg.BootstrapExpect]
		if candidates[0].Identity != n.identity {
			return fmt.Sprintf("all %d expected nodes are here, %s forms the cluster", n.cfg.BootstrapExpect, candidates[0].NodeID), nil
		}
		uuid := newUUID()
		forming = &formation{ClusterID: fsm.TopicID(uuid).String(), Proposer: n.identity}
		for _, m := range candidates {
			forming.Nodes = append(forming.Nodes, fsm.Node{ID: fsm.NodeID(m.NodeID), Incarnation: m.Incarnation, Zone: m.Zone}) // each says its level itself
		}
		if err := n.saveIdentity(func(f *identityFile) { f.Forming = forming }); err != nil {
			return "", err
		}
	}
	proposal, err := json.Marshal(forming)
	if err != nil {
		return "", err
	}
	for _, node := range forming.Nodes {
		if node.Identity() == n.identity {
			continue
		}
		callCtx, cancel := context.WithTimeout(ctx, callTimeout)
		_, err := n.call(callCtx, node.Identity(), callForm, proposal)
		cancel()
		if err != nil {
			return fmt.Sprintf("waiting for %s to agree to the cluster: %v", node.ID, err), nil
		}
	}
	return "", n.adopt(forming.ClusterID)
}

// toldOfOthers reports whether --join names another address than this node's.
func (n *Node) toldOfOthers() bool {
	return slices.ContainsFunc(n.cfg.Join, func(addr string) bool {
		return addr != n.gossip.Addr() && addr != n.cfg.GossipAdvertise && addr != n.cfg.GossipListen
	})
}

// grant answers a proposal to form a cluster (callForm).
func (n *Node) grant(payload []byte) error {
	var proposal formation
	if err := decodeCall(payload, &proposal); err != nil {
		return err
	}
	if proposal.ClusterID == "" {
		return errMalformed
	}
	if !slices.ContainsFunc(proposal.Nodes, func(node fsm.Node) bool { return node.Identity() == n.identity }) {
		return fmt.Errorf("%w: this node is not part of the proposal", outcome.ErrClusterMismatch)
	}
	n.idMu.Lock()
	defer n.idMu.Unlock()
	switch {
	case n.id.ClusterID == proposal.ClusterID:
		return nil
	case n.id.ClusterID != "":
		return fmt.Errorf("%w: this node is in cluster %s", outcome.ErrClusterMismatch, n.id.ClusterID)
	case n.id.Forming != nil && n.id.Forming.ClusterID == proposal.ClusterID:
		return nil
	case n.id.Forming != nil:
		return fmt.Errorf("%w: this node has agreed to form cluster %s with %s", outcome.ErrClusterMismatch, n.id.Forming.ClusterID, n.id.Forming.Proposer)
	}
	next := *n.id
	next.Forming = &proposal
	if err := n.lost(n.dir.saveIdentity(&next)); err != nil {
		return err
	}
	n.id = &next
	return nil
}

// adopt makes this node a member of the cluster, for ever.
func (n *Node) adopt(clusterID string) error {
	if err := n.saveIdentity(func(f *identityFile) { f.ClusterID = clusterID }); err != nil {
		return err
	}
	n.logger.Info("in cluster", "cluster", clusterID)
	n.announce()
	return nil
}

// joinReply is the answer to callJoin.
type joinReply struct {
	ClusterID string `json:"cluster_id"`
}

// join asks a member of a cluster to admit this node.
func (n *Node) join(ctx context.Context, through membership.Member) (string, error) {
	request, err := json.Marshal(n.self())
	if err != nil {
		return "", err
	}
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, reply, err := n.link.CallAddr(callCtx, through.PeerAddr, callJoin, request)
	if err == nil {
		reply, err = decodeReply(reply)
	} else if errors.Is(err, peer.ErrNotSent) {
		err = fmt.Errorf("%w: %w", outcome.ErrNoLeader, err)
	}
	switch code := outcome.Code(err); {
	case err == nil:
	case code == outcome.ErrNodeConflict, code == outcome.ErrClusterMismatch, code == outcome.ErrLevel:
		return "", fmt.Errorf("cluster %s refuses this node: %w", through.ClusterID, err)
	default:
		return fmt.Sprintf("asking %s to be admitted to cluster %s: %v", through.NodeID, through.ClusterID, err), nil
	}
	var joined joinReply
	if err := json.Unmarshal(reply, &joined); err != nil || joined.ClusterID == "" {
		return "malformed answer of a member", nil
	}
	return "", n.adopt(joined.ClusterID)
}

// admit registers a new node in the catalog (callJoin). The catalog's leader
// then adds it to the catalog group.
func (n *Node) admit(ctx context.Context, from string, payload []byte) ([]byte, error) {
	var node fsm.Node
	if err := json.Unmarshal(payload, &node); err != nil || fsm.CheckNodeID(node.ID) != nil || node.Identity() != from {
		return nil, errMalformed
	}
	clusterID := n.ClusterID()
	if clusterID == "" {
		return nil, fmt.Errorf("%w: this node is not in a cluster itself", outcome.ErrNoLeader)
	}
	if _, err := n.catalog.apply(ctx, fsm.CatalogCommand{RegisterNode: &node}); err != nil {
		return nil, err
	}
	return json.Marshal(joinReply{clusterID})
}
