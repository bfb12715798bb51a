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
	super     bool // it may do everything
}

// principal is who the client is; super says that it may do everything, whoever it is.
func (c *connection) principal() (p security.Principal, super bool) {
	if identify := c.server.cfg.identify; identify != nil {
		return identify(c.client)
	}
	return security.Anonymous, false
}

// host is the client's address in the form that ACLs have.
func (c *connection) host() string { return acl.NormalHost(c.remoteHost()) }

// errNoRights: an API that has no row.
var errNoRights = errors.New("nobody has said who may call this API")

// admitCaller finds out who calls, and whether the request as a whole is for them. false: it is
// answered.
func (r *request) admitCaller() bool {
	a := r.conn.server.access
	if a == nil {
		return true
	}
	p, super := r.conn.principal()
	r.caller = caller{principal: p.String(), host: r.conn.host()}
	r.caller.super = super || a.superUsers[r.caller.principal]
	row, ok := apiRights[kmsg.Key(r.header.Key)]
	switch {
	case r.caller.super || row.free:
		return true
	case !ok:
		r.hangUp(errNoRights)
		return false
	case !r.catalogKnown() && !r.awaitCatalog():
		// This node does not know the ACLs yet, and clients take a denial for final.
		r.hangUp(errCatalogUnknown)
		return false
	case row.cluster != 0 && !r.may(row.cluster, acl.Cluster, acl.ClusterName):
		r.refuse()
		return false
	}
	return true
}

// decide says whether the caller may do that, and why.
func (r *request) decide(op acl.Operation, of acl.ResourceType, name string) (allowed bool, why acl.Decision) {
	a := r.conn.server.access
	if a == nil || r.caller.super {
		return true, acl.Allowed
	}
	why = r.conn.server.catalog.Topics().Security().ACLs().Decide(r.caller.principal, r.caller.host, op, of, name)
	return why == acl.Allowed || why == acl.NoACL && a.everyone, why
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
		r.conn.server.audit.denied(r, op, of, name, why.String())
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
	return op == 0 || r.conn.server.access == nil || r.mayInstead() || r.may(op, acl.Topic, name)
}

// seesTopic is mayTopic for a topic that the caller has not named.
func (r *request) seesTopic(name string) bool {
	op := r.needs().topic
	return op == 0 || r.conn.server.access == nil || r.mayInstead() || r.sees(op, acl.Topic, name)
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
	a := r.conn.server.access
	if a == nil || r.caller.super || r.mayInstead() {
		return true
	}
	// Of a name that nobody thought of, as Kafka asks: everybody may where no ACL is.
	if r.sees(acl.Write, acl.Topic, "hardcode") ||
		r.conn.server.catalog.Topics().Security().ACLs().AnyAllowed(r.caller.principal, r.caller.host, acl.Write, acl.Topic) {
		return true
	}
	r.conn.server.audit.denied(r, r.needs().instead, acl.Cluster, acl.ClusterName, "no ACL allows it, nor to write to any topic")
	return false
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
