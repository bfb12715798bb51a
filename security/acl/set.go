package acl

import (
	"slices"
	"strings"
)

// Set is a number of bindings, in order, each once. It never changes; nil is the empty one.
type Set struct {
	list []Binding // sorted by compare
	// all are the patterns that have bindings, whoever these are about: without rules.
	all byType
	// of are the rules of each principal, and of Everybody.
	of map[string]*byType
}

// byType has the patterns of each resource type. One of another type is never asked for.
type byType [User + 1]patterns

// patterns are those of one resource type, with what they say to one principal.
type patterns struct {
	literal map[string]rules // by name, "*" too
	// prefixed are sorted by their names.
	prefixed []prefix
}

// prefix is a prefixed pattern.
type prefix struct {
	name string
	// parent is the place of the longest pattern that name begins with and that is shorter, -1 if
	// there is none.
	parent int
	rules  rules
}

// rules are what a pattern says to a principal, by the hosts that it may be at, sorted.
type rules []rule

type rule struct {
	host            string
	allowed, denied operations
}

// operations is a set of operations: bit n is operation n.
type operations uint16

func (o operations) has(op Operation) bool { return op > 0 && op < 16 && o&(1<<op) != 0 }

// covered gives the operations that a binding is about. An ALLOW implies others, a DENY does not
// (AclOperation, StandardAuthorizerData.findResult).
func covered(op Operation, permission Permission) operations {
	if op == All {
		return ^operations(0)
	}
	bits := operations(1) << op
	if permission == Allow {
		switch op {
		case Read, Write, Delete, Alter:
			bits |= 1 << Describe
		case AlterConfigs:
			bits |= 1 << DescribeConfigs
		}
	}
	return bits
}

// NewSet makes a set of bindings in any order. It makes no difference whether one stands there
// twice.
func NewSet(list []Binding) *Set {
	s := &Set{list: slices.Clone(list)}
	slices.SortFunc(s.list, compare)
	s.list = slices.Clip(slices.Compact(s.list))
	s.of = map[string]*byType{}
	rest := s.list
	for len(rest) > 0 {
		first := rest[0]
		n := 1
		for n < len(rest) && rest[n].Type == first.Type && rest[n].Pattern == first.Pattern && rest[n].Name == first.Name {
			n++
		}
		if first.Type > 0 && int(first.Type) < len(s.all) {
			s.all[first.Type].add(first.Pattern, first.Name, nil)
			s.compile(rest[:n])
		}
		rest = rest[n:]
	}
	return s
}

// compile gives each principal its rules out of the sorted bindings of one pattern.
func (s *Set) compile(list []Binding) {
	for len(list) > 0 {
		first := list[0]
		var own rules
		n := 0
		for ; n < len(list) && list[n].Principal == first.Principal; n++ {
			b := list[n]
			if len(own) == 0 || own[len(own)-1].host != b.Host {
				own = append(own, rule{host: b.Host})
			}
			if at := &own[len(own)-1]; b.Permission == Allow {
				at.allowed |= covered(b.Operation, Allow)
			} else {
				at.denied |= covered(b.Operation, Deny)
			}
		}
		if s.of[first.Principal] == nil {
			s.of[first.Principal] = &byType{}
		}
		s.of[first.Principal][first.Type].add(first.Pattern, first.Name, slices.Clip(own))
		list = list[n:]
	}
}

// add puts a pattern behind the others.
func (p *patterns) add(pattern PatternType, name string, r rules) {
	if pattern == Literal {
		if p.literal == nil {
			p.literal = map[string]rules{}
		}
		p.literal[name] = r
		return
	}
	// Names come in order: what this one begins with is the last one or something that that begins
	// with.
	parent := len(p.prefixed) - 1
	for parent >= 0 && !strings.HasPrefix(name, p.prefixed[parent].name) {
		parent = p.prefixed[parent].parent
	}
	p.prefixed = append(p.prefixed, prefix{name, parent, r})
}

// All gives the bindings in order. They must not be changed.
func (s *Set) All() []Binding {
	if s == nil {
		return nil
	}
	return s.list
}

// Len is the number of bindings.
func (s *Set) Len() int { return len(s.All()) }

// Has says whether the binding is in the set.
func (s *Set) Has(b Binding) bool {
	_, ok := slices.BinarySearchFunc(s.All(), b, compare)
	return ok
}

// Select gives the bindings that a filter selects, in order.
func (s *Set) Select(f Filter) (found []Binding) {
	for _, b := range s.All() {
		if f.Matches(b) {
			found = append(found, b)
		}
	}
	return found
}

// Change gives the set with some bindings more and some fewer; one that is in both is out. It is s
// itself where nothing changes.
func (s *Set) Change(add, remove []Binding) *Set {
	gone := make(map[Binding]bool, len(remove))
	for _, b := range remove {
		gone[b] = true
	}
	changed := false
	next := make([]Binding, 0, s.Len()+len(add))
	for _, b := range s.All() {
		if gone[b] {
			changed = true
		} else {
			next = append(next, b)
		}
	}
	for _, b := range add {
		if !gone[b] && !s.Has(b) {
			changed = true
			next = append(next, b)
		}
	}
	switch {
	case !changed:
		return s
	case len(next) == 0:
		return nil
	}
	return NewSet(next)
}
