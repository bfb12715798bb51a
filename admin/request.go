package admin

import "github.com/trimaran-io/trimaran/fsm"

// Op is what an operator asks for.
type Op string

// The operations. Whether one can be done is for the cluster to say.
const (
	OpDrain             Op = "drain"
	OpActivate          Op = "activate" // ends drain and decommission
	OpDecommission      Op = "decommission"
	OpReplace           Op = "replace"
	OpReplicationFactor Op = "replication-factor"
)

// Request is what an operator asks for, and for which node or topic.
type Request struct {
	Op        Op         `json:"op"`
	Node      fsm.NodeID `json:"node,omitempty"`
	Successor fsm.NodeID `json:"successor,omitempty"` // of OpReplace; "": whichever nodes suit
	Topic     string     `json:"topic,omitempty"`     // of OpReplicationFactor
	Factor    int        `json:"factor,omitempty"`
}

// Answer says what became of a Request.
type Answer struct {
	Error string `json:"error,omitempty"` // "": it is in the catalog
	// Retriable says that the same request may be granted in a moment: the catalog has no leader
	// now. All requests may be made twice.
	Retriable bool `json:"retriable,omitempty"`
}
