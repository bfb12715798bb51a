package acl

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// naive decides as the rules are told: over all bindings, without an order.
func naive(list []Binding, principal, host string, op Operation, t ResourceType, name string) Decision {
	found, allowed := false, false
	for _, b := range list {
		here := b.Pattern == Prefixed && strings.HasPrefix(name, b.Name) || b.Pattern == Literal && (b.Name == name || b.Name == "*")
		if b.Type != t || !here {
			continue
		}
		found = true
		if b.Principal != principal && b.Principal != "User:*" || b.Host != host && b.Host != "*" {
			continue
		}
		same := b.Operation == op || b.Operation == All
		if b.Permission == Deny && same {
			return Denied
		}
		implied := op == Describe && slices.Contains([]Operation{Read, Write, Delete, Alter}, b.Operation) || op == DescribeConfigs && b.Operation == AlterConfigs
		if b.Permission == Allow && (same || implied) {
			allowed = true
		}
	}
	switch {
	case allowed:
		return Allowed
	case found:
		return NotAllowed
	}
	return NoACL
}

var (
	someNames      = []string{"*", "a", "ab", "abc", "abcd", "abd", "b", "ba", "é", "éa"}
	somePrincipals = []string{"User:*", "User:x", "User:y", "Role:x"}
	someHosts      = []string{"*", "192.0.2.1", "::1", "10.0.0.1", "10.0.0.2", "10.0.0.3"}
	someOperations = []Operation{All, Read, Write, Delete, Alter, Describe, DescribeConfigs, AlterConfigs, Create}
)

func drawBinding(t *rapid.T) Binding {
	return Binding{
		Type: rapid.SampledFrom([]ResourceType{Topic, Topic, Group}).Draw(t, "type"), Pattern: rapid.SampledFrom([]PatternType{Literal, Prefixed}).Draw(t, "pattern"),
		Name: rapid.SampledFrom(someNames).Draw(t, "name"), Principal: rapid.SampledFrom(somePrincipals).Draw(t, "principal"), Host: rapid.SampledFrom(someHosts).Draw(t, "host"),
		Operation: rapid.SampledFrom(someOperations).Draw(t, "operation"), Permission: rapid.SampledFrom([]Permission{Allow, Allow, Deny}).Draw(t, "permission"),
	}
}

// A set decides as a look at all of its bindings does, whichever way it came about: after any
// sequence of changes it is what those that are left make anew (CVE-2024-27309).
func TestASetDecidesAsItsBindingsSay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var set *Set
		is := map[Binding]bool{}
		for range rapid.IntRange(1, 6).Draw(t, "changes") {
			add := rapid.SliceOfN(rapid.Custom(drawBinding), 0, 12).Draw(t, "add")
			var remove []Binding
			for b := range is {
				remove = append(remove, b)
			}
			slices.SortFunc(remove, compare)
			remove = append(remove, add...)
			if len(remove) > 0 {
				remove = rapid.SliceOfN(rapid.SampledFrom(remove), 0, 6).Draw(t, "remove")
			}
			before := set
			set = set.Change(add, remove)
			was := len(is)
			for _, b := range add {
				is[b] = true
			}
			for _, b := range remove {
				delete(is, b)
			}
			if before != nil && before.Len() != was {
				t.Fatal("a set changed after it was given")
			}
		}
		list := set.All()
		if len(list) != len(is) || !slices.IsSortedFunc(list, compare) {
			t.Fatalf("%d bindings, want %d", len(list), len(is))
		}
		for _, name := range append([]string{"", "abcde", "ac", "zzz", "éab"}, someNames...) {
			for _, principal := range []string{"User:x", "User:y", "Role:x", "User:z"} {
				for _, host := range []string{"192.0.2.1", "10.0.0.3", "192.0.2.2"} {
					for _, op := range someOperations[1:] {
						got, want := set.Decide(principal, host, op, Topic, name), naive(list, principal, host, op, Topic, name)
						if got != want {
							t.Fatalf("%s at %s, %s of topic %q: %d, want %d\n%v", principal, host, op, name, got, want, list)
						}
					}
				}
			}
		}
	})
}

// Some resource may be had exactly if there is one of a name that nobody thought of, or one of
// those that bindings name.
func TestAnyAllowedFindsWhatDecideAllows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := NewSet(rapid.SliceOfN(rapid.Custom(drawBinding), 0, 15).Draw(t, "bindings"))
		const principal, host = "User:x", "192.0.2.1"
		want := false
		for _, b := range set.All() {
			if b.Type != Topic {
				continue
			}
			// A literal "*" and a prefix allow names that no other binding has.
			for _, name := range []string{b.Name, b.Name + "\xff", "\xff"} {
				want = want || set.Decide(principal, host, Write, Topic, name) == Allowed
			}
		}
		if got := set.AnyAllowed(principal, host, Write, Topic); got != want {
			t.Fatalf("%v, want %v\n%v", got, want, set.All())
		}
	})
}

// What a filter selects is what it says, and a filter of one binding's fields selects that one.
func TestFilters(t *testing.T) {
	text := func(s string) *string { return &s }
	list := []Binding{
		{Topic, Literal, "foo", "User:a", "*", Read, Allow},
		{Topic, Prefixed, "fo", "User:a", "192.0.2.1", Write, Deny},
		{Topic, Literal, "*", "User:b", "*", All, Allow},
		{Group, Literal, "foo", "User:a", "*", Read, Allow},
	}
	for name, test := range map[string]struct {
		filter Filter
		want   []int
	}{
		"all":               {Filter{Type: AnyType, Pattern: AnyPattern, Operation: AnyOperation, Permission: AnyPermission}, []int{0, 1, 2, 3}},
		"a type":            {Filter{Type: Group, Pattern: AnyPattern, Operation: AnyOperation, Permission: AnyPermission}, []int{3}},
		"a name as it is":   {Filter{Type: Topic, Pattern: AnyPattern, Name: text("foo"), Operation: AnyOperation, Permission: AnyPermission}, []int{0}},
		"what is obeyed":    {Filter{Type: Topic, Pattern: Match, Name: text("foo"), Operation: AnyOperation, Permission: AnyPermission}, []int{0, 1, 2}},
		"of a shorter name": {Filter{Type: Topic, Pattern: Match, Name: text("f"), Operation: AnyOperation, Permission: AnyPermission}, []int{2}},
		"literals":          {Filter{Type: AnyType, Pattern: Literal, Name: text("foo"), Operation: AnyOperation, Permission: AnyPermission}, []int{0, 3}},
		"the wildcard":      {Filter{Type: AnyType, Pattern: Literal, Name: text("*"), Operation: AnyOperation, Permission: AnyPermission}, []int{2}},
		"prefixes":          {Filter{Type: AnyType, Pattern: Prefixed, Operation: AnyOperation, Permission: AnyPermission}, []int{1}},
		"match, any name":   {Filter{Type: Topic, Pattern: Match, Operation: AnyOperation, Permission: AnyPermission}, []int{0, 1, 2}},
		"a principal":       {Filter{Type: AnyType, Pattern: AnyPattern, Principal: text("User:b"), Operation: AnyOperation, Permission: AnyPermission}, []int{2}},
		"a host":            {Filter{Type: AnyType, Pattern: AnyPattern, Host: text("192.0.2.1"), Operation: AnyOperation, Permission: AnyPermission}, []int{1}},
		"an operation":      {Filter{Type: AnyType, Pattern: AnyPattern, Operation: Read, Permission: AnyPermission}, []int{0, 3}},
		"a permission":      {Filter{Type: AnyType, Pattern: AnyPattern, Operation: AnyOperation, Permission: Deny}, []int{1}},
	} {
		var want []Binding
		for _, i := range test.want {
			want = append(want, list[i])
		}
		slices.SortFunc(want, compare)
		if got := NewSet(list).Select(test.filter); !slices.Equal(got, want) || test.filter.Check() != nil {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// Whatever a client sends as names: nothing panics, what may be stored comes back the same, and
// the filter of its fields finds it.
func FuzzNames(f *testing.F) {
	f.Add("topic", "User:alice", "*", int8(2), int8(3), int8(3), int8(3))
	f.Add("kafka-cluster", "User:*", "::ffff:192.0.2.1", int8(4), int8(3), int8(5), int8(2))
	f.Add("", ":", "0:0:0:0:0:0:0:1", int8(9), int8(4), int8(-1), int8(0))
	f.Add("\xff", "User:\x00", "fe80::1%eth0", int8(2), int8(2), int8(1), int8(1))
	f.Fuzz(func(t *testing.T, name, principal, host string, kind, pattern, op, permission int8) {
		b := Binding{ResourceType(kind), PatternType(pattern), name, principal, NormalHost(host), Operation(op), Permission(permission)}
		filter := Filter{b.Type, b.Pattern, &name, &principal, &b.Host, b.Operation, b.Permission}
		_ = filter.Check()
		if b.Check() != nil {
			if !filter.Matches(b) && pattern != int8(Match) {
				t.Fatal("a filter does not select its own fields")
			}
			return
		}
		set := NewSet([]Binding{b, b})
		if set.Len() != 1 || !set.Has(b) || len(set.Select(filter)) != 1 || filter.Check() != nil {
			t.Fatalf("%v is not found", b)
		}
		want := Allowed
		if b.Permission == Deny {
			want = Denied
		}
		asked := b.Operation
		if asked == All {
			asked = Read
		}
		at := b.Host
		if at == Wildcard {
			at = "192.0.2.1"
		}
		if got := set.Decide(b.Principal, at, asked, b.Type, b.Name); got != want {
			t.Fatalf("%v: %v", b, got)
		}
		if set.Change(nil, []Binding{b}) != nil || set.Change([]Binding{b}, nil) != set {
			t.Fatal("a change that is none, or one that is not made")
		}
	})
}

// many gives 10,000 bindings as a large cluster has them: a few per user and topic, some prefixes,
// some that hold for all.
func many() *Set {
	var list []Binding
	for i := range MaxBindings - 20 {
		b := Binding{Topic, Literal, fmt.Sprintf("team-%d.topic-%d", i%100, i/3), fmt.Sprintf("User:user-%d", i%500), "*", Read + Operation(i%3), Allow}
		if i%4 == 0 {
			b.Pattern, b.Name = Prefixed, fmt.Sprintf("team-%d.", i%997)
		}
		list = append(list, b)
	}
	for i := range 20 {
		list = append(list, Binding{Topic, Prefixed, "internal-"[:1+i%8], "User:*", "*", Write, Deny}, Binding{Topic, Literal, "*", fmt.Sprintf("User:admin-%d", i), "*", All, Allow})
	}
	return NewSet(list[:MaxBindings])
}

// worst gives bindings whose names are each other's beginnings, as many of a principal as can be.
func worst() (*Set, string) {
	var list []Binding
	for i := range MaxBindings {
		list = append(list, Binding{Topic, Prefixed, strings.Repeat("x", 1+i%MaxName), fmt.Sprintf("User:user-%d", i/MaxName), "*", Read, Allow})
	}
	return NewSet(list), strings.Repeat("x", MaxName)
}

func BenchmarkDecide(b *testing.B) {
	set := many()
	for name, question := range map[string][2]string{
		"literal":  {"User:user-7", "team-7.topic-169"},
		"prefixed": {"User:user-8", "team-8.anything"},
		"wildcard": {"User:admin-3", "no-such-topic"},
		"nobody":   {"User:nobody", "team-7.topic-169"},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				set.Decide(question[0], "192.0.2.17", Read, Topic, question[1])
			}
		})
	}
	chain, longest := worst()
	b.Run("worst", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			chain.Decide("User:user-8", "192.0.2.17", Read, Topic, longest)
		}
	})
}

func BenchmarkNewSet(b *testing.B) {
	list := many().All()
	for b.Loop() {
		NewSet(list)
	}
}
