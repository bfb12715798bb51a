package gateway

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/gateway/listen"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/acl"
)

const (
	alice = "User:alice"
	here  = "127.0.0.1" // where the tests' clients are
)

func allow(kind acl.ResourceType, name string, op acl.Operation) acl.Binding {
	return acl.Binding{Type: kind, Pattern: acl.Literal, Name: name, Principal: alice, Host: "*", Operation: op, Permission: acl.Allow}
}

// judged starts a server that judges rights, whose clients are alice.
func judged(t testing.TB, f *fakeCluster, change func(*Config)) *gatewayOf {
	t.Helper()
	var served atomic.Pointer[gatewayOf]
	g := serve(t, f, func(cfg *Config) {
		cfg.identify = func(c listen.Client) security.Identity { return (*served.Load().who.Load())(c) }
		cfg.Access = Access{Authorize: true, SuperUsers: []security.Principal{security.User("root")}}
		if change != nil {
			change(cfg)
		}
	})
	g.as(func(listen.Client) security.Identity {
		return security.Identity{Principal: security.User("alice"), Local: false}
	})
	served.Store(g)
	return g
}

// give makes these the only ACLs.
func (f *fakeCluster) give(t testing.TB, list ...acl.Binding) {
	t.Helper()
	all := acl.Filter{Type: acl.AnyType, Pattern: acl.AnyPattern, Operation: acl.AnyOperation, Permission: acl.AnyPermission}
	if _, err := f.AlterACLs(t.Context(), nil, []acl.Filter{all}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.AlterACLs(t.Context(), list, nil); err != nil {
		t.Fatal(err)
	}
}

// Every API that is served has a row, and no other; a row says something.
func TestEveryAPIHasARow(t *testing.T) {
	for key := range apis {
		row, ok := apiRights[key]
		if !ok {
			t.Errorf("%s (%d) has no row in apiRights: whoever may call it has to be said", apiName(key), key)
		}
		if !row.free && row.needs() == "nothing" || row.free && row.needs() != "nothing; "+row.also && row.needs() != "nothing" {
			t.Errorf("%s: %q", apiName(key), row.needs())
		}
		if !row.free && row.denied == "" {
			t.Errorf("%s: what is answered is not said", apiName(key))
		}
	}
	for key := range apiRights {
		if _, ok := apis[key]; !ok {
			t.Errorf("%s has a row and no handler", apiName(key))
		}
	}
	for _, api := range kafkaproto.Served {
		if _, ok := apiRights[api.Key]; !ok {
			t.Errorf("%s is served and has no row", api.Name)
		}
	}
}

// docs/security.md has the table; TRIMARAN_UPDATE=1 writes it.
func TestTheTableOfRightsIsInTheDocs(t *testing.T) {
	const file, begin, end = "../docs/security.md", "<!-- rights: begin -->\n", "<!-- rights: end -->\n"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok1 := strings.Cut(string(text), begin)
	has, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no %q … %q", file, begin, end)
	}
	var want bytes.Buffer
	if err := WriteRights(&want); err != nil {
		t.Fatal(err)
	}
	switch {
	case has == want.String():
	case os.Getenv("TRIMARAN_UPDATE") == "1":
		if err := os.WriteFile(file, []byte(head+begin+want.String()+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s has another table (TRIMARAN_UPDATE=1 writes it):\n%s\nthe code has\n%s", file, has, want.String())
	}
}

// Without a row an API is refused, to all but super users.
func TestAnAPIWithoutARowIsRefused(t *testing.T) {
	row := apiRights[kmsg.DescribeCluster]
	delete(apiRights, kmsg.DescribeCluster)
	defer func() { apiRights[kmsg.DescribeCluster] = row }()
	g := judged(t, newFake(t), nil)
	c := g.dial()
	c.send(encode(1, kmsg.NewPtrDescribeClusterRequest()))
	c.closed()
	g.as(func(listen.Client) security.Identity {
		return security.Identity{Principal: security.User("root"), Local: false}
	})
	c = g.dial()
	c.ask(kmsg.NewPtrDescribeClusterRequest())
}

// variants are ways to have a right, or not.
var variants = []struct {
	name    string
	allowed bool
	acls    func(right acl.Binding) []acl.Binding
	who     security.Principal
	super   bool
}{
	{name: "no right", acls: func(acl.Binding) []acl.Binding { return nil }},
	{name: "exact", allowed: true, acls: func(b acl.Binding) []acl.Binding { return []acl.Binding{b} }},
	{name: "prefixed", allowed: true, acls: func(b acl.Binding) []acl.Binding { return []acl.Binding{prefixed(b)} }},
	{name: "wildcard", allowed: true, acls: func(b acl.Binding) []acl.Binding { return []acl.Binding{wildcard(b)} }},
	{name: "all operations", allowed: true, acls: func(b acl.Binding) []acl.Binding { b.Operation = acl.All; return []acl.Binding{b} }},
	{name: "everybody", allowed: true, acls: func(b acl.Binding) []acl.Binding { b.Principal = acl.Everybody; return []acl.Binding{b} }},
	{name: "deny over allow", acls: func(b acl.Binding) []acl.Binding {
		deny := prefixed(b)
		deny.Permission, deny.Host = acl.Deny, here
		return []acl.Binding{b, wildcard(b), deny}
	}},
	{name: "another deny", allowed: true, acls: func(b acl.Binding) []acl.Binding {
		deny := prefixed(b)
		deny.Permission, deny.Principal = acl.Deny, "User:bob"
		return []acl.Binding{b, deny}
	}},
	{name: "this host", allowed: true, acls: func(b acl.Binding) []acl.Binding { b.Host = here; return []acl.Binding{b} }},
	{name: "other host", acls: func(b acl.Binding) []acl.Binding { b.Host = "192.0.2.1"; return []acl.Binding{b} }},
	{name: "another principal", acls: func(b acl.Binding) []acl.Binding { b.Principal = "User:bob"; return []acl.Binding{b} }},
	{name: "super user", allowed: true, acls: func(b acl.Binding) []acl.Binding { b.Permission = acl.Deny; return []acl.Binding{b} }, who: security.User("root")},
	{name: "super by the way it came", allowed: true, acls: func(acl.Binding) []acl.Binding { return nil }, super: true},
}

// prefixed gives the right to what begins as the name does. The cluster has one name only.
func prefixed(b acl.Binding) acl.Binding {
	b.Pattern = acl.Prefixed
	if b.Type != acl.Cluster {
		b.Name = b.Name[:3]
	}
	return b
}

func wildcard(b acl.Binding) acl.Binding {
	if b.Type != acl.Cluster {
		b.Name = acl.Wildcard
	}
	return b
}

// TestTheMatrixOfRights asks every API in every one of these ways, and expects what Kafka answers.
func TestTheMatrixOfRights(t *testing.T) {
	cases, asked := 0, map[kmsg.Key]bool{}
	for _, row := range matrix() {
		asked[row.api] = true
		for _, v := range variants {
			cases++
			name := apiName(row.api) + "/" + row.name + "/" + v.name
			f := newFake(t, "events-1:2", "public")
			g := judged(t, f, nil)
			who := v.who
			if who.Name == "" {
				who = security.User("alice")
			}
			g.as(func(listen.Client) security.Identity { return security.Identity{Principal: who, Local: v.super} })
			f.give(t, slices.Concat(row.given, v.acls(allow(row.kind, row.resource, row.op)))...)
			want, allowed := row.denied, v.allowed || row.some && v.name == "deny over allow"
			if allowed {
				want = row.allowed
			}
			if got := row.ask(&matrixCase{f: f, client: g.dial(), g: g}); got != want {
				t.Errorf("%s: code %d, want %d", name, got, want)
			}
			denials := strings.Count(g.logs.String(), "msg=denied")
			if (denials > 0) != (!allowed && !row.quiet) {
				t.Errorf("%s: %d lines about denials\n%s", name, denials, g.logs.String())
			}
		}
	}
	for key, row := range apiRights {
		if !asked[key] && !row.free {
			t.Errorf("%s is not in the matrix", apiName(key))
		}
	}
	if cases < 400 {
		t.Errorf("%d cases", cases)
	}
	t.Logf("%d cases, %d APIs", cases, len(asked))
}
