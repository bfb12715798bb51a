package acl

import "testing"

// What Kafka's own tests of its authorizer expect (StandardAuthorizerTest, AuthorizerTest,
// BaseAuthorizerTest), retold: bindings, and questions with their answers.

type question struct {
	principal, host string
	op              Operation
	on              ResourceType
	name            string
	want            Decision
}

const host1, host2 = "192.168.1.1", "192.168.1.2"

func topicOf(name, principal, host string, op Operation, p Permission) Binding {
	return Binding{Topic, Literal, name, principal, host, op, p}
}

func prefixOf(name, principal string, op Operation, p Permission) Binding {
	return Binding{Topic, Prefixed, name, principal, "*", op, p}
}

var kafkasTests = map[string]struct {
	bindings  []Binding
	questions []question
}{
	"testAuthorizeWithEmptyResourceName": {
		[]Binding{{Group, Literal, "*", "User:*", "*", Read, Allow}},
		[]question{{"User:alice", host1, Read, Group, "", Allowed}, {"User:alice", host1, Write, Group, "", NotAllowed}, {"User:alice", host1, Read, Topic, "", NoACL}},
	},
	"testTopicAcl": {
		[]Binding{
			topicOf("foo", "User:alice", host1, Read, Allow), topicOf("foo", "User:alice", host2, Read, Allow),
			topicOf("foo", "User:alice", host1, Read, Deny), topicOf("foo", "User:alice", host1, Write, Allow),
			topicOf("foo", "User:alice", "*", Describe, Allow), topicOf("foo", "User:rob", "*", Read, Allow), topicOf("foo", "User:batman", "*", Write, Allow),
		},
		[]question{
			{"User:alice", host2, Read, Topic, "foo", Allowed}, {"User:alice", host1, Read, Topic, "foo", Denied},
			{"User:alice", host1, Write, Topic, "foo", Allowed}, {"User:alice", host2, Write, Topic, "foo", NotAllowed},
			{"User:alice", host1, Describe, Topic, "foo", Allowed}, {"User:alice", host2, Describe, Topic, "foo", Allowed},
			{"User:alice", host1, Alter, Topic, "foo", NotAllowed}, {"User:alice", host2, Alter, Topic, "foo", NotAllowed},
			{"User:rob", host1, Describe, Topic, "foo", Allowed}, {"User:batman", host1, Describe, Topic, "foo", Allowed},
			{"User:rob", host1, Read, Topic, "foo", Allowed}, {"User:batman", host1, Write, Topic, "foo", Allowed},
		},
	},
	"testDenyTakesPrecedence": {
		[]Binding{topicOf("foo", "User:*", "*", All, Allow), topicOf("foo", "User:alice", host1, All, Deny)},
		[]question{{"User:alice", host1, Read, Topic, "foo", Denied}, {"User:alice", host2, Read, Topic, "foo", Allowed}},
	},
	"testAllowAllAccess": {
		[]Binding{topicOf("foo", "User:*", "*", All, Allow)},
		[]question{{"User:random", "192.0.4.4", Read, Topic, "foo", Allowed}},
	},
	"testWildCardAcls": {
		[]Binding{topicOf("*", "User:alice", host1, Read, Allow), topicOf("foo", "User:alice", host1, Write, Allow), topicOf("*", "User:alice", host1, Write, Deny)},
		[]question{{"User:alice", host1, Read, Topic, "foo", Allowed}, {"User:alice", host1, Write, Topic, "foo", Denied}},
	},
	"testNoAclFound": {nil, []question{{"User:alice", host1, Read, Topic, "foo", NoACL}}},
	"testAccessAllowedIfAllowAclExistsOnPrefixedResource": {
		[]Binding{prefixOf("foo", "User:*", Read, Allow)},
		[]question{{"User:alice", host1, Read, Topic, "foo-1", Allowed}, {"User:alice", host1, Read, Topic, "foo", Allowed}, {"User:alice", host1, Read, Topic, "fo", NoACL}},
	},
	"testAuthorizeWithPrefixedResource": {
		[]Binding{
			topicOf("a_other", "User:*", "*", Read, Deny), prefixOf("a_other", "User:*", Read, Deny), topicOf("foo-1-zzz", "User:*", "*", Read, Deny),
			prefixOf("foo-1-zzz", "User:*", Read, Deny), prefixOf("foo-1", "User:*", Read, Allow), topicOf("zz_other", "User:*", "*", Read, Deny), prefixOf("zz_other", "User:*", Read, Deny),
		},
		[]question{{"User:alice", host1, Read, Topic, "foo-1", Allowed}, {"User:alice", host1, Read, Topic, "foo-1-zzz1", Denied}},
	},
	"testTopicAclWithOperationAll": {
		[]Binding{topicOf("foo", "User:*", "*", All, Allow), prefixOf("bar", "User:alice", All, Allow), topicOf("baz", "User:bob", "*", All, Allow)},
		[]question{
			{"User:alice", host1, Write, Topic, "foo", Allowed}, {"User:alice", host1, DescribeConfigs, Topic, "bar", Allowed}, {"User:alice", host1, Describe, Topic, "baz", NotAllowed},
			{"User:bob", host1, Write, Topic, "foo", Allowed}, {"User:bob", host1, Read, Topic, "bar", NotAllowed}, {"User:bob", host1, Describe, Topic, "baz", Allowed},
			{"User:malory", host1, Describe, Topic, "foo", Allowed}, {"User:malory", host1, Write, Topic, "bar", NotAllowed}, {"User:malory", host1, Read, Topic, "baz", NotAllowed},
		},
	},
	"testAuthorizationWithManyAcls": {
		[]Binding{
			topicOf("green2", "User:*", "*", Read, Allow), prefixOf("green", "User:bob", Read, Allow), topicOf("betamax4", "User:bob", "*", Read, Allow),
			topicOf("betamax", "User:bob", "*", Read, Allow), prefixOf("beta", "User:*", Read, Allow), prefixOf("alpha", "User:*", Read, Allow),
			prefixOf("alp", "User:bob", Read, Deny), {Group, Literal, "*", "User:bob", "*", Write, Allow}, {Group, Literal, "wheel", "User:*", "*", Write, Deny},
		},
		[]question{
			{"User:bob", host1, Read, Topic, "green1", Allowed}, {"User:bob", host1, Write, Group, "wheel", Denied}, {"User:bob", host1, Read, Topic, "alpha", Denied},
			{"User:bob", host1, Write, Group, "arbitrary", Allowed}, {"User:bob", host1, Read, Topic, "ala", NoACL},
		},
	},
	"testFindResultPrincipalMatching": {
		[]Binding{prefixOf("foo_", "User:bob", Read, Allow), {Group, Literal, "bar", "User:*", "*", Read, Deny}},
		[]question{{"User:bob", host1, Read, Topic, "foo_bar", Allowed}, {"User:alice", host1, Read, Topic, "foo_bar", NotAllowed}, {"User:alice", host1, Read, Group, "bar", Denied}},
	},
}

func TestKafkasOwnTests(t *testing.T) {
	for name, test := range kafkasTests {
		set := NewSet(test.bindings)
		for _, q := range test.questions {
			if got := set.Decide(q.principal, q.host, q.op, q.on, q.name); got != q.want {
				t.Errorf("%s: %s at %s, %s of %s %q: %d, want %d", name, q.principal, q.host, q.op, q.on, q.name, got, q.want)
			}
		}
	}
}

// testAclInheritance: what each operation implies, and that a DENY implies nothing.
func TestKafkasImplications(t *testing.T) {
	implied := map[Operation][]Operation{Read: {Describe}, Write: {Describe}, Delete: {Describe}, Alter: {Describe}, AlterConfigs: {DescribeConfigs}}
	cluster := func(op Operation, p Permission) Binding {
		return Binding{Cluster, Literal, ClusterName, "User:alice", "*", op, p}
	}
	for given := All; given <= TwoPhaseCommit; given++ {
		allow, deny := NewSet([]Binding{cluster(given, Allow)}), NewSet([]Binding{cluster(given, Deny), cluster(All, Allow)})
		for op := Read; op <= TwoPhaseCommit; op++ {
			wantAllow, wantDeny := NotAllowed, Allowed
			if given == op || given == All {
				wantAllow, wantDeny = Allowed, Denied
			}
			for _, i := range implied[given] {
				if i == op {
					wantAllow = Allowed
				}
			}
			if got := allow.Decide("User:alice", host1, op, Cluster, ClusterName); got != wantAllow {
				t.Errorf("ALLOW %s, asked for %s: %d, want %d", given, op, got, wantAllow)
			}
			if got := deny.Decide("User:alice", host1, op, Cluster, ClusterName); got != wantDeny {
				t.Errorf("DENY %s and ALLOW all, asked for %s: %d, want %d", given, op, got, wantDeny)
			}
		}
	}
}

// testAuthorizeByResourceType…: bindings are added one after the other, and after each is asked
// whether some resource may be had.
func TestKafkasAuthorizeByResourceType(t *testing.T) {
	const user = "User:user1"
	group := func(pattern PatternType, name string, op Operation, p Permission) Binding {
		return Binding{Group, pattern, name, user, host1, op, p}
	}
	type step struct {
		add  Binding
		host string
		op   Operation
		want bool
	}
	for name, steps := range map[string][]step{
		"DenyTakesPrecedence": {
			{group(Literal, "sb1", Write, Allow), host1, Write, true}, {group(Literal, "sb1", Write, Deny), host1, Write, false},
		},
		"PrefixedResourceDenyDominate": {
			{group(Prefixed, "abcde", Read, Allow), host1, Read, true}, {group(Prefixed, "abcd", Read, Deny), host1, Read, false},
			{group(Prefixed, "abc", Read, Allow), host1, Read, true}, {group(Prefixed, "a", Read, Deny), host1, Read, false}, {group(Prefixed, "ab", Read, Allow), host1, Read, false},
		},
		"WildcardResourceDenyDominate": {
			{group(Prefixed, "hello", Write, Allow), host1, Write, true}, {group(Literal, "*", Write, Deny), host1, Write, false},
			{group(Literal, "*", Write, Allow), host1, Write, false}, {group(Literal, "aloha", Write, Allow), host1, Write, false},
		},
		"WithAllOperationAce": {
			{group(Literal, "sb1", Write, Deny), host1, Read, false}, {group(Literal, "sb1", All, Allow), host1, Read, true}, {group(Literal, "sb1", All, Deny), host1, Read, false},
		},
		"WithAllHostAce": {
			{group(Literal, "sb1", Read, Allow), host1, Read, true}, {Binding{Group, Literal, "sb1", user, "*", Read, Deny}, host1, Read, false},
			{group(Literal, "sb2", Read, Deny), host1, Read, false}, {group(Literal, "sb2", Read, Deny), host2, Read, false},
			{Binding{Group, Literal, "sb2", user, "*", Read, Allow}, host2, Read, true}, {Binding{Group, Literal, "sb2", user, "*", Read, Deny}, host2, Read, false},
		},
		"WithAllPrincipalAce": {
			{group(Literal, "sb1", Read, Allow), host1, Read, true}, {Binding{Group, Literal, "sb1", "User:*", host1, Read, Deny}, host1, Read, false},
			{Binding{Group, Literal, "sb2", "User:*", host1, Read, Allow}, host1, Read, true}, {Binding{Group, Literal, "sb2", "User:*", host1, Read, Deny}, host1, Read, false},
		},
		"IsolationUnrelatedDenyWontDominateAllow": {
			{Binding{Group, Literal, "sb1", "User:user2", host1, Read, Deny}, host1, Read, false}, {Binding{Topic, Prefixed, "s", user, host1, Read, Deny}, host1, Read, false},
			{Binding{Group, Literal, "sb1", user, host2, Read, Allow}, host1, Read, false}, {group(Literal, "sb2", Write, Deny), host2, Read, true},
		},
	} {
		var set *Set
		for i, s := range steps {
			set = set.Change([]Binding{s.add}, nil)
			if got := set.AnyAllowed(user, s.host, s.op, Group); got != s.want {
				t.Errorf("%s, step %d, %v: %v", name, i+1, s.add, got)
			}
		}
	}
}

func TestWhatMayBeStored(t *testing.T) {
	good := Binding{Topic, Literal, "foo", "User:alice", "*", Read, Allow}
	for name, test := range map[string]struct {
		change func(*Binding)
		ok     bool
	}{
		"as it is":              {func(*Binding) {}, true},
		"of any topic":          {func(b *Binding) { b.Name = "*" }, true},
		"an address":            {func(b *Binding) { b.Host = "2001:db8::1" }, true},
		"all of a group":        {func(b *Binding) { b.Type, b.Operation = Group, All }, true},
		"a user, which is kept": {func(b *Binding) { b.Type = User }, true},
		"the cluster":           {func(b *Binding) { b.Type, b.Name = Cluster, ClusterName }, true},
		"another cluster":       {func(b *Binding) { b.Type, b.Name = Cluster, "my-cluster" }, false},
		"any type":              {func(b *Binding) { b.Type = AnyType }, false},
		"type 0":                {func(b *Binding) { b.Type = 0 }, false},
		"a type of later":       {func(b *Binding) { b.Type = 8 }, false},
		"pattern any":           {func(b *Binding) { b.Pattern = AnyPattern }, false},
		"pattern match":         {func(b *Binding) { b.Pattern = Match }, false},
		"any operation":         {func(b *Binding) { b.Operation = AnyOperation }, false},
		"an operation of later": {func(b *Binding) { b.Operation = 16 }, false},
		"any permission":        {func(b *Binding) { b.Permission = AnyPermission }, false},
		"no name":               {func(b *Binding) { b.Name = "" }, false},
		"a long name":           {func(b *Binding) { b.Name = string(make([]byte, MaxName+1)) }, false},
		"a name of no text":     {func(b *Binding) { b.Name = "\xff" }, false},
		"a principal of no type": {
			func(b *Binding) { b.Principal = "alice" }, false},
		"a principal of no name": {func(b *Binding) { b.Principal = "User:" }, false},
		"a host's name":          {func(b *Binding) { b.Host = "example.org" }, false},
		"an address with a zone": {func(b *Binding) { b.Host = "fe80::1%eth0" }, false},
		"no host":                {func(b *Binding) { b.Host = "" }, false},
		"an address in another form": {
			func(b *Binding) { b.Host = "::ffff:192.0.2.1" }, false},
	} {
		b := good
		test.change(&b)
		if err := b.Check(); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWords(t *testing.T) {
	for op := AnyOperation; op <= TwoPhaseCommit; op++ {
		if got, ok := ParseOperation(op.String()); !ok || got != op {
			t.Errorf("%s is %d, want %d", op, got, op)
		}
	}
	for t2 := AnyType; t2 <= User; t2++ {
		if got, ok := ParseType(t2.String()); !ok || got != t2 {
			t.Errorf("%s is %d, want %d", t2, got, t2)
		}
	}
	if got, ok := ParseType("TRANSACTIONAL_ID"); !ok || got != TransactionalID {
		t.Error("Kafka's own words are not understood")
	}
	for _, s := range []string{"", "unknown", "reads"} {
		if _, ok := ParseOperation(s); ok {
			t.Errorf("%q is an operation", s)
		}
	}
	if Operation(0).String() != "unknown" || Operation(99).String() != "unknown" || Operation(-1).String() != "unknown" {
		t.Error("a number that is none has a word")
	}
}
