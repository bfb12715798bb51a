package acl

import (
	"slices"
	"strings"
)

// Decision is what a set says of a question.
type Decision int8

// The decisions.
const (
	// NoACL: no binding is for the resource, whoever it is about.
	NoACL Decision = iota
	// NotAllowed: bindings are for the resource, and none of them allows it.
	NotAllowed
	// Denied: a binding denies it.
	Denied
	// Allowed: a binding allows it, and none denies it.
	Allowed
)

// String says why, for people.
func (d Decision) String() string {
	switch d {
	case Allowed:
		return "an ACL allows it"
	case Denied:
		return "an ACL denies it"
	}
	return "no ACL allows it"
}

// Decide says whether a principal at a host may do that to the resource of that name. A DENY counts
// before any ALLOW, whichever pattern is closer.
func (s *Set) Decide(principal, host string, op Operation, t ResourceType, name string) Decision {
	if s == nil || t <= 0 || int(t) >= len(s.all) {
		return NoACL
	}
	allowed := false
	for _, who := range [...]string{principal, Everybody} {
		rules := s.of[who]
		if rules == nil {
			continue
		}
		also, denied := rules[t].ask(host, op, name)
		if denied {
			return Denied
		}
		allowed = allowed || also
	}
	switch {
	case allowed:
		return Allowed
	case s.all[t].has(name):
		return NotAllowed
	}
	return NoACL
}

// ask gives what the patterns for a name say.
func (p *patterns) ask(host string, op Operation, name string) (allowed, denied bool) {
	allowed, denied = p.literal[name].ask(host, op)
	if name != Wildcard && !denied {
		a, d := p.literal[Wildcard].ask(host, op)
		allowed, denied = allowed || a, d
	}
	for i := p.longest(name); i >= 0 && !denied; i = p.prefixed[i].parent {
		a, d := p.prefixed[i].rules.ask(host, op)
		allowed, denied = allowed || a, d
	}
	return allowed, denied
}

// has says whether there is a pattern for the name.
func (p *patterns) has(name string) bool {
	_, named := p.literal[name]
	_, any := p.literal[Wildcard]
	return named || any || p.longest(name) >= 0
}

// fewRules are so few that looking at all of them is faster than to search.
const fewRules = 4

// ask gives what rules say at a host: those of that host, and those of any.
func (r rules) ask(host string, op Operation) (allowed, denied bool) {
	if len(r) > fewRules {
		at, ok := slices.BinarySearchFunc(r, host, func(r rule, host string) int { return strings.Compare(r.host, host) })
		if ok {
			allowed, denied = r[at].allowed.has(op), r[at].denied.has(op)
		}
		host, r = Wildcard, r[:1] // which stands before any address
	}
	for i := range r {
		if r[i].host == Wildcard || r[i].host == host {
			allowed, denied = allowed || r[i].allowed.has(op), denied || r[i].denied.has(op)
		}
	}
	return allowed, denied
}

// longest gives the place of the longest prefixed pattern that the name begins with, -1 if there
// is none. The others are its parents.
func (p *patterns) longest(name string) int {
	at, found := slices.BinarySearchFunc(p.prefixed, name, func(p prefix, name string) int { return strings.Compare(p.name, name) })
	if !found {
		at--
	}
	// The last pattern that is not behind the name begins with everything that the name begins
	// with, as far as that is a pattern: it stands between that and the name.
	for at >= 0 && !strings.HasPrefix(name, p.prefixed[at].name) {
		at = p.prefixed[at].parent
	}
	return at
}

// AnyAllowed says whether a principal at a host may do that to some resource of the type that
// could be: an ALLOW counts unless a DENY of "*", of a prefix of its name or of the very same
// covers it (KIP-679, Authorizer.authorizeByResourceType).
func (s *Set) AnyAllowed(principal, host string, op Operation, t ResourceType) bool {
	if s == nil || t <= 0 || int(t) >= len(s.all) {
		return false
	}
	var all []*patterns
	for _, who := range [...]string{principal, Everybody} {
		if rules := s.of[who]; rules != nil {
			all = append(all, &rules[t])
		}
	}
	// denied says whether a rule denies all that a pattern is for.
	denied := func(name string, literal bool) bool {
		for _, p := range all {
			if literal {
				if _, denied := p.literal[name].ask(host, op); denied {
					return true
				}
			}
			for i := p.longest(name); i >= 0; i = p.prefixed[i].parent {
				if _, denied := p.prefixed[i].rules.ask(host, op); denied {
					return true
				}
			}
		}
		return false
	}
	any := false
	for _, p := range all {
		allowed, denied := p.literal[Wildcard].ask(host, op)
		if denied {
			return false
		}
		any = any || allowed
	}
	for _, p := range all {
		for name, r := range p.literal {
			if allowed, _ := r.ask(host, op); allowed && !any {
				any = !denied(name, true)
			}
		}
		for i := range p.prefixed {
			if allowed, _ := p.prefixed[i].rules.ask(host, op); allowed && !any {
				any = !denied(p.prefixed[i].name, false)
			}
		}
	}
	return any
}
