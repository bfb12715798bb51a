package calls

import "github.com/trimaran-io/trimaran/fsm"

// Formation is the proposal to form a cluster of exactly these nodes.
type Formation struct {
	ClusterID string     `json:"cluster_id"`
	Proposer  string     `json:"proposer"` // identity
	Nodes     []fsm.Node `json:"nodes"`    // sorted by identity
}

var formCall = Call[Formation, Nothing]{request: strictJSON[Formation](), answer: nothing()}
