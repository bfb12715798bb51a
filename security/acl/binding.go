package acl

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"
)

const (
	// MaxName bounds names of resources, principals and hosts, in bytes.
	MaxName = 249
	// MaxBindings bounds a cluster's ACLs, MaxRequest those of one request.
	MaxBindings = 10_000
	MaxRequest  = 1_000
)

// ErrInvalid is in every error about a binding or a filter that cannot be.
var ErrInvalid = errors.New("invalid ACL")

// Binding is one access control entry and the pattern of the resources that it is for, as Kafka's
// AclBinding. It is a value: two that are equal are one.
type Binding struct {
	Type       ResourceType `json:"type"`
	Pattern    PatternType  `json:"pattern"`
	Name       string       `json:"name"`
	Principal  string       `json:"principal"` // "User:alice"
	Host       string       `json:"host"`      // an address as netip.Addr writes it, or "*"
	Operation  Operation    `json:"operation"`
	Permission Permission   `json:"permission"`
}

// String says it in words, for people.
func (b Binding) String() string {
	from := ""
	if b.Host != Wildcard {
		from = " from " + b.Host
	}
	return fmt.Sprintf("%s %s%s to %s %s %s %q", b.Permission, b.Principal, from, b.Operation, b.Pattern, b.Type, b.Name)
}

func compare(a, b Binding) int {
	return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Pattern, b.Pattern), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Principal, b.Principal),
		cmp.Compare(a.Host, b.Host), cmp.Compare(a.Operation, b.Operation), cmp.Compare(a.Permission, b.Permission))
}

// Known says whether all of the binding's words are known to this program. The error wraps
// ErrInvalid. What a newer program stored may have others.
func (b Binding) Known() error {
	switch {
	case b.Type < Topic || b.Type > User:
		return fmt.Errorf("%w: resource type %d", ErrInvalid, b.Type)
	case b.Pattern != Literal && b.Pattern != Prefixed:
		return fmt.Errorf("%w: pattern type %d, want literal or prefixed", ErrInvalid, b.Pattern)
	case b.Operation < All || b.Operation > TwoPhaseCommit:
		return fmt.Errorf("%w: operation %d", ErrInvalid, b.Operation)
	case b.Permission != Allow && b.Permission != Deny:
		return fmt.Errorf("%w: permission %d, want allow or deny", ErrInvalid, b.Permission)
	}
	return nil
}

// Check says whether the binding may be stored. The error wraps ErrInvalid. The rules are those of
// Kafka's AclControlManager.validateNewAcl and AclApis, and bounds. Beyond these a host has to be
// an address: a name would match nobody, which is no matter in an ALLOW and would be in a DENY.
func (b Binding) Check() error {
	if err := b.Known(); err != nil {
		return err
	}
	if b.Name == "" {
		return fmt.Errorf("%w: the resource has no name", ErrInvalid)
	}
	if b.Type == Cluster && b.Name != ClusterName {
		return fmt.Errorf("%w: the only name of a cluster is %s", ErrInvalid, ClusterName)
	}
	kind, who, _ := strings.Cut(b.Principal, ":")
	if kind == "" || who == "" {
		return fmt.Errorf("%w: a principal is written Type:name, such as User:alice", ErrInvalid)
	}
	for _, s := range []string{b.Name, b.Principal, b.Host} {
		if err := checkText(s); err != nil {
			return err
		}
	}
	if NormalHost(b.Host) != b.Host || b.Host != Wildcard && !isAddress(b.Host) {
		return fmt.Errorf("%w: a host is an IP address or *", ErrInvalid)
	}
	return nil
}

func checkText(s string) error {
	if len(s) > MaxName || !utf8.ValidString(s) {
		return fmt.Errorf("%w: a name has %d bytes, want at most %d of UTF-8", ErrInvalid, len(s), MaxName)
	}
	return nil
}

// isAddress: one with a zone is none, since zones are not compared.
func isAddress(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Zone() == ""
}

// NormalHost gives an address the form in which hosts are compared, so that ::ffff:192.0.2.1 is
// 192.0.2.1 and Java's 0:0:0:0:0:0:0:1 is ::1. What is no address stays what it is.
func NormalHost(s string) string {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap().String()
	}
	return s
}

// Filter selects bindings, as Kafka's AclBindingFilter: nil and the words for any leave a field
// out.
type Filter struct {
	Type       ResourceType `json:"type"`
	Pattern    PatternType  `json:"pattern"`
	Name       *string      `json:"name,omitempty"`
	Principal  *string      `json:"principal,omitempty"`
	Host       *string      `json:"host,omitempty"`
	Operation  Operation    `json:"operation"`
	Permission Permission   `json:"permission"`
}

// Check says whether the filter means something. The error wraps ErrInvalid.
func (f Filter) Check() error {
	switch {
	case f.Type < AnyType || f.Type > User:
		return fmt.Errorf("%w: resource type %d", ErrInvalid, f.Type)
	case f.Pattern < AnyPattern || f.Pattern > Prefixed:
		return fmt.Errorf("%w: pattern type %d", ErrInvalid, f.Pattern)
	case f.Operation < AnyOperation || f.Operation > TwoPhaseCommit:
		return fmt.Errorf("%w: operation %d", ErrInvalid, f.Operation)
	case f.Permission < AnyPermission || f.Permission > Allow:
		return fmt.Errorf("%w: permission %d", ErrInvalid, f.Permission)
	}
	for _, s := range []*string{f.Name, f.Principal, f.Host} {
		if s != nil {
			if err := checkText(*s); err != nil {
				return err
			}
		}
	}
	return nil
}

// Matches says whether the filter selects the binding (ResourcePatternFilter.matches and
// AccessControlEntryFilter.matches).
func (f Filter) Matches(b Binding) bool {
	return (f.Type == AnyType || f.Type == b.Type) && f.matchesPattern(b) &&
		(f.Principal == nil || *f.Principal == b.Principal) &&
		(f.Host == nil || *f.Host == b.Host) &&
		(f.Operation == AnyOperation || f.Operation == b.Operation) &&
		(f.Permission == AnyPermission || f.Permission == b.Permission)
}

func (f Filter) matchesPattern(b Binding) bool {
	switch {
	case f.Pattern != AnyPattern && f.Pattern != Match && f.Pattern != b.Pattern:
		return false
	case f.Name == nil:
		return true
	case f.Pattern != Match:
		return *f.Name == b.Name
	case b.Pattern == Prefixed:
		return strings.HasPrefix(*f.Name, b.Name)
	}
	return *f.Name == b.Name || b.Name == Wildcard
}
