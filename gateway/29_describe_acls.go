package gateway

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/security/acl"
)

// DescribeAcls, CreateAcls and DeleteAcls, versions 0 to 3 (KIP-140, KIP-290).
//
// Kept: entries fail one by one, with INVALID_REQUEST where one cannot be; what is there is created
// again without an error; DeleteAcls says what its filters selected. Up to version 0 patterns are
// literal. While nothing is authorized everything is SECURITY_DISABLED, as at a broker without an
// authorizer: tools and web interfaces ask, take that for "there are none", and an API that is not
// there for an error (Kafdrop, AKHQ).
//
// Differs: a host is an address or "*", since a name would match nobody, and addresses are shown as
// RFC 5952 writes them. A request has at most acl.MaxRequest entries, or is INVALID_REQUEST, and a
// cluster acl.MaxBindings, beyond which all of a request's are POLICY_VIOLATION. All of a request's
// entries that can be are created in one step.

const noAuthorizer = "nothing is authorized here: whoever reaches a node may do everything ('trimaran serve --authorize')"

func handleDescribeACLs(r *request) {
	req := r.body.(*kmsg.DescribeACLsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeACLsResponse)
	refuse := func(e *kerr.Error, why string) {
		resp.ErrorCode, resp.ErrorMessage = r.note(e.Code), &why
		r.answer(resp)
	}
	if r.conn.server.access == nil {
		refuse(kerr.SecurityDisabled, noAuthorizer)
		return
	}
	filter := filterOf(req.ResourceType, req.ResourceName, req.ResourcePatternType, req.Principal, req.Host, req.Operation, req.PermissionType)
	if err := filter.Check(); err != nil {
		refuse(kerr.InvalidRequest, message(err))
		return
	}
	found := r.conn.server.catalog.Topics().Security().ACLs().Select(filter)
	for i, b := range found {
		if i == 0 || b.Type != found[i-1].Type || b.Name != found[i-1].Name || b.Pattern != found[i-1].Pattern {
			out := kmsg.NewDescribeACLsResponseResource()
			out.ResourceType, out.ResourceName, out.ResourcePatternType = kmsg.ACLResourceType(b.Type), b.Name, kmsg.ACLResourcePatternType(b.Pattern)
			resp.Resources = append(resp.Resources, out)
		}
		one := kmsg.NewDescribeACLsResponseResourceACL()
		one.Principal, one.Host, one.Operation, one.PermissionType = b.Principal, b.Host, kmsg.ACLOperation(b.Operation), kmsg.ACLPermissionType(b.Permission)
		last := &resp.Resources[len(resp.Resources)-1]
		last.ACLs = append(last.ACLs, one)
	}
	r.answerSized(resp, 64+96*len(found))
}

func filterOf(kind kmsg.ACLResourceType, name *string, pattern kmsg.ACLResourcePatternType, principal, host *string, op kmsg.ACLOperation, permission kmsg.ACLPermissionType) acl.Filter {
	if host != nil {
		normal := acl.NormalHost(*host)
		host = &normal
	}
	return acl.Filter{
		Type: acl.ResourceType(kind), Pattern: acl.PatternType(pattern), Name: name, Principal: principal, Host: host,
		Operation: acl.Operation(op), Permission: acl.Permission(permission),
	}
}

func handleCreateACLs(r *request) {
	req := r.body.(*kmsg.CreateACLsRequest)
	if r.conn.server.access == nil {
		r.answerCreateACLs(req, func(int) (int16, *string) { return r.note(kerr.SecurityDisabled.Code), kmsg.StringPtr(noAuthorizer) })
		return
	}
	r.background(func() {
		errs := make([]error, len(req.Creations))
		var add []acl.Binding
		for i, c := range req.Creations {
			b := acl.Binding{
				Type: acl.ResourceType(c.ResourceType), Pattern: acl.PatternType(c.ResourcePatternType), Name: c.ResourceName,
				Principal: c.Principal, Host: acl.NormalHost(c.Host), Operation: acl.Operation(c.Operation), Permission: acl.Permission(c.PermissionType),
			}
			if errs[i] = b.Check(); errs[i] == nil {
				add = append(add, b)
			}
		}
		err := tooManyACLs(len(req.Creations))
		if err == nil && len(add) > 0 {
			_, err = r.alterACLs(add, nil)
		}
		r.answerCreateACLs(req, func(i int) (int16, *string) {
			if errs[i] == nil {
				errs[i] = err
			}
			return r.told(errs[i])
		})
	})
}

func tooManyACLs(n int) error {
	if n > acl.MaxRequest {
		return fmt.Errorf("%w: %d entries, want at most %d", errInvalidRequest, n, acl.MaxRequest)
	}
	return nil
}

// alterACLs has the ACLs changed, within the time that other changes have.
func (r *request) alterACLs(add []acl.Binding, remove []acl.Filter) (removed [][]acl.Binding, err error) {
	// What is not over in time may set removed yet.
	var found [][]acl.Binding
	errs := r.admin(alterTimeoutMillis, 1, func(ctx context.Context, _ int) (err error) {
		found, err = r.conn.server.changes.AlterACLs(ctx, add, remove)
		return err
	})
	if errs[0] != nil {
		return nil, errs[0]
	}
	return found, nil
}

// told is what an answer has of an error: its code and its text.
func (r *request) told(err error) (int16, *string) {
	if err == nil {
		return 0, nil
	}
	return r.fail(err), kmsg.StringPtr(message(err))
}

// answerCreateACLs answers with what result says of each entry.
func (r *request) answerCreateACLs(req *kmsg.CreateACLsRequest, result func(i int) (int16, *string)) {
	resp := req.ResponseKind().(*kmsg.CreateACLsResponse)
	resp.Results = make([]kmsg.CreateACLsResponseResult, len(req.Creations))
	for i := range resp.Results {
		resp.Results[i].ErrorCode, resp.Results[i].ErrorMessage = result(i)
	}
	r.answer(resp)
}

func handleDeleteACLs(r *request) {
	req := r.body.(*kmsg.DeleteACLsRequest)
	if r.conn.server.access == nil {
		r.answerDeleteACLs(req, func(int, *kmsg.DeleteACLsResponseResult) (int16, *string) {
			return r.note(kerr.SecurityDisabled.Code), kmsg.StringPtr(noAuthorizer)
		})
		return
	}
	r.background(func() {
		errs := make([]error, len(req.Filters))
		var filters []acl.Filter
		var of []int // the place of each filter in the request
		for i, f := range req.Filters {
			filter := filterOf(f.ResourceType, f.ResourceName, f.ResourcePatternType, f.Principal, f.Host, f.Operation, f.PermissionType)
			if errs[i] = filter.Check(); errs[i] == nil {
				filters, of = append(filters, filter), append(of, i)
			}
		}
		err := tooManyACLs(len(req.Filters))
		removed := make([][]acl.Binding, len(req.Filters))
		if err == nil && len(filters) > 0 {
			var found [][]acl.Binding
			found, err = r.alterACLs(nil, filters)
			for i := range found {
				removed[of[i]] = found[i]
			}
		}
		r.answerDeleteACLs(req, func(i int, out *kmsg.DeleteACLsResponseResult) (int16, *string) {
			if errs[i] == nil {
				errs[i] = err
			}
			for _, b := range removed[i] {
				one := kmsg.NewDeleteACLsResponseResultMatchingACL()
				one.ResourceType, one.ResourceName, one.ResourcePatternType = kmsg.ACLResourceType(b.Type), b.Name, kmsg.ACLResourcePatternType(b.Pattern)
				one.Principal, one.Host, one.Operation, one.PermissionType = b.Principal, b.Host, kmsg.ACLOperation(b.Operation), kmsg.ACLPermissionType(b.Permission)
				out.MatchingACLs = append(out.MatchingACLs, one)
			}
			return r.told(errs[i])
		})
	})
}

// answerDeleteACLs answers with what result says of each filter.
func (r *request) answerDeleteACLs(req *kmsg.DeleteACLsRequest, result func(i int, out *kmsg.DeleteACLsResponseResult) (int16, *string)) {
	resp := req.ResponseKind().(*kmsg.DeleteACLsResponse)
	resp.Results = make([]kmsg.DeleteACLsResponseResult, len(req.Filters))
	for i := range resp.Results {
		out := &resp.Results[i]
		out.ErrorCode, out.ErrorMessage = result(i, out)
	}
	r.answer(resp)
}
