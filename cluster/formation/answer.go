package formation

import (
	"context"
	"fmt"

	"github.com/trimaran-io/trimaran/cluster/identity"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

var errMalformed = fmt.Errorf("%w: malformed call of another node", outcome.ErrUnknown)

// Grant answers a proposal to form a cluster. The node has agreed, on stable storage, when the
// error is nil. Errors are outcome.ErrClusterMismatch, and those of the disk; that of a sync is a
// vfs.NotSynced.
func (f *Formation) Grant(p *identity.Proposal) error {
	if p.ClusterID == "" {
		return errMalformed
	}
	return f.cfg.Identity.Grant(p)
}

// Admit answers a node that asks to be admitted to this node's cluster, and gives that: register
// puts it into the catalog. from is the identity of who asks. Errors are outcome.ErrNoLeader where
// this node is in no cluster itself, and those of register.
func (f *Formation) Admit(ctx context.Context, from string, node fsm.Node, register func(context.Context, fsm.Node) error) (clusterID string, err error) {
	if fsm.CheckNodeID(node.ID) != nil || node.Identity() != from {
		return "", errMalformed
	}
	if clusterID = f.cfg.Identity.ClusterID(); clusterID == "" {
		return "", fmt.Errorf("%w: this node is not in a cluster itself", outcome.ErrNoLeader)
	}
	if err := register(ctx, node); err != nil {
		return "", err
	}
	return clusterID, nil
}
