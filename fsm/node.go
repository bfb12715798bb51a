package fsm

import (
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/trimaran-io/trimaran/outcome"
)

// Node is a registered member of the cluster. Its addresses are not here:
// gossip tells them, and they may change.
type Node struct {
	ID NodeID `json:"id"`
	// Incarnation is minted with the data directory, 8 lowercase hexadecimal
	// digits. A node that comes back with an empty directory has another one, so
	// Raft never takes it for the voter it was (invariant 7 of the log).
	Incarnation string `json:"incarnation"`
	// Zone is where the node stands: a rack, an availability zone. Replicas are
	// spread over zones. "" if the operator named none.
	Zone string `json:"zone,omitempty"`
	// FeatureLevel is what the node's program knows, see the constant; 0 is 1.
	FeatureLevel int `json:"level,omitempty"`
	// State and Successor are what the operator wants (SetNodeState). A node does not change them
	// by registering.
	State     NodeState `json:"state,omitempty"`
	Successor NodeID    `json:"successor,omitempty"`
}

// Identity gives the node's name in Raft, "<id>.<incarnation>".
func (n Node) Identity() string { return string(n.ID) + "." + n.Incarnation }

const (
	maxNodeID      = 63 // a DNS label
	incarnationLen = 8
	maxZone        = 255
)

// CheckNodeID reports whether id is 1 to 63 characters of a-z, 0-9 and '-'.
// The error is ErrInvalidConfig.
func CheckNodeID(id NodeID) error {
	if id == "" || len(id) > maxNodeID {
		return fmt.Errorf("%w: node id of %d characters, want 1 to %d of a-z, 0-9 and '-'", outcome.ErrInvalidConfig, len(id), maxNodeID)
	}
	for i := range len(id) {
		if c := id[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-') {
			return fmt.Errorf("%w: node id %q, want a-z, 0-9 and '-' only", outcome.ErrInvalidConfig, id)
		}
	}
	return nil
}

// check reports whether the node can be registered.
func (n Node) check() error {
	if err := CheckNodeID(n.ID); err != nil {
		return err
	}
	if len(n.Incarnation) != incarnationLen {
		return fmt.Errorf("%w: node %s: incarnation of %d characters, want %d hexadecimal digits", outcome.ErrInvalidConfig, n.ID, len(n.Incarnation), incarnationLen)
	}
	for i := range len(n.Incarnation) {
		if c := n.Incarnation[i]; !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') {
			return fmt.Errorf("%w: node %s: incarnation %q, want lowercase hexadecimal digits", outcome.ErrInvalidConfig, n.ID, n.Incarnation)
		}
	}
	if n.FeatureLevel < 0 {
		return fmt.Errorf("%w: node %s: level %d", outcome.ErrInvalidConfig, n.ID, n.FeatureLevel)
	}
	if len(n.Zone) > maxZone || !utf8.ValidString(n.Zone) {
		return fmt.Errorf("%w: node %s: zone of %d bytes, want at most %d of UTF-8", outcome.ErrInvalidConfig, n.ID, len(n.Zone), maxZone)
	}
	for _, r := range n.Zone {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("%w: node %s: zone %q holds an unprintable character", outcome.ErrInvalidConfig, n.ID, n.Zone)
		}
	}
	return nil
}
