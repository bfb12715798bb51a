package formation

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/trimaran-io/trimaran/cluster/identity"
	"github.com/trimaran-io/trimaran/cluster/membership"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// step does what can be done now and says what is waited for. An error is final.
func (f *Formation) step(ctx context.Context, members []membership.Member) (waiting string, err error) {
	self := f.cfg.Identity.String()
	forming := f.cfg.Identity.Forming()
	for _, m := range members {
		if m.ClusterID == "" || m.Identity == self {
			continue
		}
		if forming != nil && forming.ClusterID == m.ClusterID {
			return "", f.adopt(m.ClusterID)
		}
		if forming != nil && forming.Proposer != self && m.Identity != forming.Proposer {
			// The proposer may have all grants already, this one among them. Only the proposer
			// itself, seen in another cluster, releases it.
			return fmt.Sprintf("agreed to form cluster %s with %s, and sees cluster %s: bring %s back, or empty the data directory to join", forming.ClusterID, forming.Proposer, m.ClusterID, forming.Proposer), nil
		}
		return f.join(ctx, m)
	}
	switch {
	case forming == nil:
		if forming, waiting = f.proposal(members); forming == nil {
			return waiting, nil
		}
		if err := f.cfg.Identity.Grant(forming); outcome.Code(err) == outcome.ErrClusterMismatch {
			return "another proposal came first", nil // granted since Forming was read
		} else if err != nil {
			return "", err
		}
	case forming.Proposer != self:
		return fmt.Sprintf("waiting for %s to form cluster %s, as agreed", forming.Proposer, forming.ClusterID), nil
	}
	return f.propose(ctx, forming)
}

// proposal gives the cluster that this node is to propose now; nil: none, and waiting says why.
func (f *Formation) proposal(members []membership.Member) (p *identity.Proposal, waiting string) {
	expect := f.cfg.Expect
	if expect <= 0 {
		return nil, "waiting to meet a node of a cluster (--join)"
	}
	if expect == 1 && len(members) == 1 && f.cfg.Told {
		// It may be a node of theirs whose disk is gone.
		return nil, "waiting to meet another node (--join); without --join it forms a cluster of its own"
	}
	self := f.cfg.Identity.String()
	var candidates []membership.Member
	for _, m := range members {
		if m.Expect != expect && m.Identity != self {
			if m.Expect > 0 {
				return nil, fmt.Sprintf("node %s expects a cluster of %d, this one of %d: give all nodes the same --bootstrap-expect", m.NodeID, m.Expect, expect)
			}
			continue // joins later
		}
		candidates = append(candidates, m)
	}
	slices.SortFunc(candidates, func(a, b membership.Member) int { return strings.Compare(a.Identity, b.Identity) })
	for i := 1; i < len(candidates); i++ {
		if candidates[i].NodeID == candidates[i-1].NodeID {
			return nil, fmt.Sprintf("two nodes are named %s: give each its own --node-id", candidates[i].NodeID)
		}
	}
	if len(candidates) < expect {
		return nil, fmt.Sprintf("waiting for more nodes: %d of %d expected are here", len(candidates), expect)
	}
	candidates = candidates[:expect]
	if candidates[0].Identity != self {
		return nil, fmt.Sprintf("all %d expected nodes are here, %s forms the cluster", expect, candidates[0].NodeID)
	}
	p = &identity.Proposal{ClusterID: fsm.TopicID(identity.NewUUID()).String(), Proposer: self}
	for _, m := range candidates {
		// Each says its level itself.
		p.Nodes = append(p.Nodes, fsm.Node{ID: fsm.NodeID(m.NodeID), Incarnation: m.Incarnation, Zone: m.Zone})
	}
	return p, ""
}

// propose asks all nodes of this node's proposal to agree, and adopts the cluster when they have.
func (f *Formation) propose(ctx context.Context, p *identity.Proposal) (waiting string, err error) {
	for _, node := range p.Nodes {
		if node.Identity() == f.cfg.Identity.String() {
			continue
		}
		callCtx, cancel := context.WithTimeout(ctx, callTimeout)
		err := f.cfg.Propose(callCtx, node.Identity(), p)
		cancel()
		if err != nil {
			return fmt.Sprintf("waiting for %s to agree to the cluster: %v", node.ID, err), nil
		}
	}
	return "", f.adopt(p.ClusterID)
}

// join asks a member of a cluster to admit this node.
func (f *Formation) join(ctx context.Context, through membership.Member) (waiting string, err error) {
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	clusterID, err := f.cfg.Join(callCtx, through.PeerAddr, f.cfg.Self)
	switch code := outcome.Code(err); {
	case err == nil && clusterID == "":
		return "malformed answer of a member", nil
	case err == nil:
		return "", f.adopt(clusterID)
	case code == outcome.ErrNodeConflict, code == outcome.ErrClusterMismatch, code == outcome.ErrFeatureLevel:
		return "", fmt.Errorf("cluster %s refuses this node: %w", through.ClusterID, err)
	default:
		return fmt.Sprintf("asking %s to be admitted to cluster %s: %v", through.NodeID, through.ClusterID, err), nil
	}
}
