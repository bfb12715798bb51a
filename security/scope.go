package security

import (
	"errors"
	"fmt"
	"strings"
)

// The resources and accesses of a Grant.
const (
	TopicResource = "topic"
	GroupResource = "group"
	ReadAccess    = "read"
	WriteAccess   = "write"
)

// Bounds of a Scope.
const (
	MaxGrants = 100
	MaxName   = 249 // bytes of a topic's, a group's, a user's name
)

// Grant is one thing that a token may be used for.
type Grant struct {
	Resource string `json:"resource"` // "topic" or "group"
	Name     string `json:"name"`     // or what names begin with
	Prefix   bool   `json:"prefix,omitempty"`
	Access   string `json:"access,omitempty"` // "read" or "write" for a topic, "" for a group
}

// Scope is what a token may be used for at most: what its principal may, and one of these allows.
type Scope []Grant

// Check refuses a scope that means nothing.
func (s Scope) Check() error {
	if len(s) == 0 || len(s) > MaxGrants {
		return fmt.Errorf("a scope has 1 to %d grants, this one %d", MaxGrants, len(s))
	}
	for _, g := range s {
		group := g.Resource == GroupResource && g.Access == ""
		topic := g.Resource == TopicResource && (g.Access == ReadAccess || g.Access == WriteAccess)
		if !group && !topic {
			return errors.New("a grant is for a topic, to read or to write, or for a group")
		}
		// What begins with nothing is everything.
		if len(g.Name) > MaxName || g.Name == "" && !g.Prefix {
			return fmt.Errorf("a grant's name has 1 to %d bytes", MaxName)
		}
	}
	return nil
}

// Reads, Writes and Describes report whether a token may be used for that of a topic; who may read
// or write may describe.
func (s Scope) Reads(topic string) bool  { return s.grants(TopicResource, topic, ReadAccess) }
func (s Scope) Writes(topic string) bool { return s.grants(TopicResource, topic, WriteAccess) }
func (s Scope) Describes(topic string) bool {
	return s.Reads(topic) || s.Writes(topic)
}

// WritesAny reports whether there is some topic that it may be written to with.
func (s Scope) WritesAny() bool {
	for _, g := range s {
		if g.Resource == TopicResource && g.Access == WriteAccess {
			return true
		}
	}
	return false
}

// Group reports whether a token may be used to be in that group, and to commit its offsets.
func (s Scope) Group(name string) bool { return s.grants(GroupResource, name, "") }

func (s Scope) grants(resource, name, access string) bool {
	for _, g := range s {
		fits := g.Name == name || g.Prefix && strings.HasPrefix(name, g.Name)
		if g.Resource == resource && g.Access == access && fits {
			return true
		}
	}
	return false
}

// Identity is who asks, as it is known of a connection.
type Identity struct {
	Principal Principal
	// Host is the address that it comes from, without a port; behind a shim that is trusted, that
	// of the shim's client.
	Host string
	// Scope is what its token may be used for; nil: whatever the principal may.
	Scope Scope
	// Local: it came over the node's own Unix socket, so it may everything.
	Local bool
}
