package calls

import "github.com/trimaran-io/trimaran/security/acl"

// AlterACLsRequest has the catalog's leader add ACLs, and remove those that filters select: it
// says in its reply which these were, filter by filter.
type AlterACLsRequest struct {
	Add    []acl.Binding `json:"add,omitempty"`
	Remove []acl.Filter  `json:"remove,omitempty"`
}

var alterACLsCall = Call[AlterACLsRequest, CatalogReply]{request: strictJSON[AlterACLsRequest](), answer: catalogReply()}
