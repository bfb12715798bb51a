package formation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/trimaran-io/trimaran/cluster/identity"
	"github.com/trimaran-io/trimaran/fsm"
)

var errMalformed = fmt.Errorf("%w: malformed call of another node", fsm.ErrUnknown)

// Grant answers a proposal to form a cluster, in JSON. The node has agreed, on stable storage, when the
// error is nil. Errors are fsm.ErrClusterMismatch, fsm.ErrNewer where it says more than is known here,
// and those of the disk; that of a sync is a vfs.NotSynced.
func (f *Formation) Grant(proposal []byte) error {
	p := new(identity.Proposal)
	// What is agreed to may rest on a field that is not known here, so there must be none.
	if err := fsm.DecodeStrictly(proposal, p); errors.Is(err, fsm.ErrNewer) {
		return err
	} else if err != nil || p.ClusterID == "" {
		return errMalformed
	}
	return f.cfg.Identity.Grant(p)
}

// joinReply is the answer to a node that asks to be admitted.
type joinReply struct {
	ClusterID string `json:"cluster_id"`
}

// Admit answers a node that asks to be admitted to this node's cluster: register puts it into the
// catalog. from is the identity of who asks.
func (f *Formation) Admit(ctx context.Context, from string, payload []byte, register func(context.Context, fsm.Node) error) ([]byte, error) {
	var node fsm.Node
	if err := json.Unmarshal(payload, &node); err != nil || fsm.CheckNodeID(node.ID) != nil || node.Identity() != from {
		return nil, errMalformed
	}
	clusterID := f.cfg.Identity.ClusterID()
	if clusterID == "" {
		return nil, fmt.Errorf("%w: this node is not in a cluster itself", fsm.ErrNoLeader)
	}
	if err := register(ctx, node); err != nil {
		return nil, err
	}
	return json.Marshal(joinReply{clusterID})
}
