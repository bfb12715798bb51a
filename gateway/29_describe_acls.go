package gateway

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeAcls, CreateAcls and DeleteAcls, versions 0 to 3 (KIP-140, KIP-290).
//
// Kept: as a broker without an authorizer, everything is SECURITY_DISABLED. Tools and
// web interfaces ask, take that for "there are none", and an API that is not there for
// an error (Kafdrop, AKHQ).

const noAuthorizer = "there are no access control lists: whoever reaches a node may do everything"

func handleDescribeACLs(r *request) {
	resp := r.body.(*kmsg.DescribeACLsRequest).ResponseKind().(*kmsg.DescribeACLsResponse)
	resp.ErrorCode, resp.ErrorMessage = r.note(kerr.SecurityDisabled.Code), kmsg.StringPtr(noAuthorizer)
	r.answer(resp)
}

func handleCreateACLs(r *request) {
	req := r.body.(*kmsg.CreateACLsRequest)
	resp := req.ResponseKind().(*kmsg.CreateACLsResponse)
	resp.Results = make([]kmsg.CreateACLsResponseResult, len(req.Creations))
	for i := range resp.Results {
		resp.Results[i].ErrorCode, resp.Results[i].ErrorMessage = r.note(kerr.SecurityDisabled.Code), kmsg.StringPtr(noAuthorizer)
	}
	r.answer(resp)
}

func handleDeleteACLs(r *request) {
	req := r.body.(*kmsg.DeleteACLsRequest)
	resp := req.ResponseKind().(*kmsg.DeleteACLsResponse)
	resp.Results = make([]kmsg.DeleteACLsResponseResult, len(req.Filters))
	for i := range resp.Results {
		resp.Results[i].ErrorCode, resp.Results[i].ErrorMessage = r.note(kerr.SecurityDisabled.Code), kmsg.StringPtr(noAuthorizer)
	}
	r.answer(resp)
}
