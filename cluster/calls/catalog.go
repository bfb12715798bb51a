package calls

import (
	"fmt"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
	"github.com/trimaran-io/trimaran/security/acl"
)

// CatalogReply says at which index a change is in the catalog, or how far the catalog is.
type CatalogReply struct {
	Index fsm.Index `json:"index"`
	// FirstProducerID is set by an allocation of producer ids.
	FirstProducerID int64 `json:"first_producer_id,omitempty"`
	// RemovedACLs is set by AlterACLs: what each filter selected.
	RemovedACLs [][]acl.Binding `json:"removed_acls,omitempty"`
}

// catalogReply is the answer to all calls that the catalog's leader is asked.
func catalogReply() form[CatalogReply] {
	return looseJSON[CatalogReply](fmt.Errorf("%w: malformed answer of the catalog's leader", outcome.ErrUnknown))
}
