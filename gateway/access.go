package gateway

import (
	"errors"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/acl"
)

// Who may do what: a request is asked for its caller's right before anything is done for it. What
// it needs is in apiRights, what is allowed in the catalog's ACLs as this node knows them at that
// moment. Nothing is remembered: to ask costs less than to look up what was said before.

// Access is how clients' rights are judged.
type Access struct {
	// Authorize: what no ACL allows is denied, but to super users. Otherwise everybody may do
	// everything.
	Authorize bool
	// SuperUsers may do everything.
	SuperUsers []security.Principal
	// AllowEveryoneIfNoACL allows what is done to a resource that no ACL is for, as Kafka's
	// allow.everyone.if.no.acl.found does.
	AllowEveryoneIfNoACL bool
}

// access is Access at work. nil: everybody may do everything.
type access struct {
	superUsers map[string]bool // as ACLs write principals
	everyone   bool
}

func (a Access) compile() *access {
	if !a.Authorize {
		return nil
	}
	c := &access{superUsers: map[string]bool{}, everyone: a.AllowEveryoneIfNoACL}
	for _, p := range a.SuperUsers {
		c.superUsers[p.String()] = true
	}
	return c
}

// ParseSuperUsers reads principals that are set apart by semicolons, as in Kafka's super.users.
// Names may have commas.
func ParseSuperUsers(s string) (list []security.Principal, err error) {
	for one := range strings.SplitSeq(s, ";") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		p, err := security.ParsePrincipal(one)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

// caller is who a request comes from.
type caller struct {
	principal string // as ACLs write it
	host      string
	super     bool           // no ACL is asked
	scope     security.Scope // of its token; nil: it has none that bounds it
}

// everything says that the caller may do everything.
func (c *caller) everything() bool { return c.super && c.scope == nil }

func (s *Server) callerOf(id security.Identity) caller {
	c := caller{super: s.access == nil, scope: id.Scope}
	if c.everything() {
		return c
	}
	c.principal, c.host = id.Principal.String(), acl.NormalHost(id.Host)
	c.super = c.super || id.Local || s.access.superUsers[c.principal]
	return c
}

// observes says who is shown metrics that name topics.
func (s *Server) observes(id security.Identity) bool {
	r := &request{conn: &connection{server: s}, caller: s.callerOf(id)}
	return r.sees(acl.Describe, acl.Cluster, acl.ClusterName)
}

// errNoRights: an API that has no row.
var errNoRights = errors.New("nobody has said who may call this API")

// admitCaller finds out who calls, and whether the request as a whole is for them. false: it is
// answered.
func (r *request) admitCaller() bool {
	if r.caller = r.conn.server.callerOf(r.conn.identity()); r.caller.everything() {
		return true
	}
	row, ok := apiRights[kmsg.Key(r.header.Key)]
	switch {
	case row.free:
		return true
	case !ok:
		r.hangUp(errNoRights)
		return false
	case !r.caller.super && !r.catalogKnown() && !r.awaitCatalog():
		// This node does not know the ACLs yet, and clients take a denial for final.
		r.hangUp(errCatalogUnknown)
		return false
	case row.cluster != 0 && !r.may(row.cluster, acl.Cluster, acl.ClusterName):
		r.refuse()
		return false
	}
	return true
}

// outsideScope is why a token is not enough.
const outsideScope = "outside the token's scope"

// covers says whether a token of that scope may be used for that; its principal must have the
// right, too. Whatever is not named here is for no token.
func covers(s security.Scope, op acl.Operation, of acl.ResourceType, name string) bool {
	switch {
	case of == acl.Topic && op == acl.Read:
		return s.Reads(name)
	case of == acl.Topic && op == acl.Write:
		return s.Writes(name)
	case of == acl.Topic && op == acl.Describe:
		return s.Describes(name)
	case of == acl.Group && (op == acl.Read || op == acl.Describe):
		return s.Group(name)
	}
	return false
}

// decide says whether the caller may do that, and why not.
func (r *request) decide(op acl.Operation, of acl.ResourceType, name string) (allowed bool, why string) {
	if r.caller.scope != nil && !covers(r.caller.scope, op, of, name) {
		return false, outsideScope
	}
	return r.decidePrincipal(op, of, name)
}

// decidePrincipal is decide without regard to a token's scope.
func (r *request) decidePrincipal(op acl.Operation, of acl.ResourceType, name string) (allowed bool, why string) {
	if r.caller.super {
		return true, ""
	}
	d := r.conn.server.catalog.Topics().Security().ACLs().Decide(r.caller.principal, r.caller.host, op, of, name)
	return d == acl.Allowed || d == acl.NoACL && r.conn.server.access.everyone, d.String()
}

// sees says whether the caller may do that, where it has not asked for it by name: a denial is
// nothing that anybody has to hear of.
func (r *request) sees(op acl.Operation, of acl.ResourceType, name string) bool {
	allowed, _ := r.decide(op, of, name)
	return allowed
}

// may says whether the caller may do what it asks for. A denial is logged and counted.
func (r *request) may(op acl.Operation, of acl.ResourceType, name string) bool {
	allowed, why := r.decide(op, of, name)
	if !allowed {
		r.denied(op, of, name, why)
	}
	return allowed
}

// needs is the request's row.
func (r *request) needs() rights { return apiRights[kmsg.Key(r.header.Key)] }

// mayInstead says whether a right to the cluster is as good as one to each resource.
func (r *request) mayInstead() bool {
	op := r.needs().instead
	return op != 0 && r.sees(op, acl.Cluster, acl.ClusterName)
}

// mayTopic says whether the caller may do to a topic that it names what the request does.
func (r *request) mayTopic(name string) bool {
	op := r.needs().topic
	return op == 0 || r.caller.everything() || r.mayInstead() || r.may(op, acl.Topic, name)
}

// seesTopic is mayTopic for a topic that the caller has not named.
func (r *request) seesTopic(name string) bool {
	op := r.needs().topic
	return op == 0 || r.caller.everything() || r.mayInstead() || r.sees(op, acl.Topic, name)
}

// mayGroup says whether the caller may do to a group what the request does.
func (r *request) mayGroup(name string) bool {
	return r.may(r.needs().group, acl.Group, name)
}

// mayTransactionalID says whether the caller may do to a transactional id what the request does.
func (r *request) mayTransactionalID(id string) bool {
	return r.may(r.needs().transactionalID, acl.TransactionalID, id)
}

// mayConfigure says whether the caller may see or alter configurations of a resource. The error is
// what to answer if not.
func (r *request) mayConfigure(kind kmsg.ConfigResourceType, name string) error {
	op := r.needs().configs
	switch kind {
	case kmsg.ConfigResourceTypeTopic:
		if !r.may(op, acl.Topic, name) {
			return errTopicDenied
		}
	case kmsg.ConfigResourceTypeGroupConfig:
		if !r.may(op, acl.Group, name) {
			return errGroupDenied
		}
	default:
		if !r.may(op, acl.Cluster, acl.ClusterName) {
			return errClusterDenied
		}
	}
	return nil
}

// mayWriteSomewhere says whether the caller may have a producer id: by a right to the cluster, or
// since it may write to some topic (KIP-679).
func (r *request) mayWriteSomewhere() bool {
	if r.caller.everything() || r.mayInstead() {
		return true
	}
	why := "no ACL allows it, nor to write to any topic"
	if r.caller.scope != nil && !r.caller.scope.WritesAny() {
		why = outsideScope
	} else if r.writesSomewhere() {
		return true
	}
	r.denied(r.needs().instead, acl.Cluster, acl.ClusterName, why)
	return false
}

// writesSomewhere says whether the caller's principal may write to some topic.
func (r *request) writesSomewhere() bool {
	// Of a name that nobody thought of, as Kafka asks: everybody may where no ACL is.
	if allowed, _ := r.decidePrincipal(acl.Write, acl.Topic, "hardcode"); allowed {
		return true
	}
	return r.conn.server.catalog.Topics().Security().ACLs().AnyAllowed(r.caller.principal, r.caller.host, acl.Write, acl.Topic)
}

// mostShown bounds text of a client's in a line of the log, in bytes.
const mostShown = 256

// shownToLog is text of a client's for the log, which quotes it.
func shownToLog(s string) string {
	if len(s) > mostShown {
		return strings.ToValidUTF8(s[:mostShown], "") + "…"
	}
	return s
}
