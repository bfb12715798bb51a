package calls

import "github.com/trimaran-io/trimaran/fsm"

// JoinReply says which cluster a node belongs to from now on.
type JoinReply struct {
	ClusterID string `json:"cluster_id"`
}

// joinCall asks a node of a cluster to admit the one that asks. What of a node is not known here
// decides nothing.
var joinCall = Call[fsm.Node, JoinReply]{request: looseJSON[fsm.Node](ErrMalformed), answer: looseJSON[JoinReply](ErrMalformedAnswer)}
