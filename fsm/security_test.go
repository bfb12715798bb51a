package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/trimaran-io/trimaran/outcome"
	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/acl"
)

// credential has keys that are found wherever they are printed.
func credential(user, mechanism string) Credential {
	size := 32
	if mechanism == security.ScramSHA512 {
		size = 64
	}
	return Credential{
		User: user, Mechanism: mechanism, Salt: []byte("salt"), Iterations: 8192,
		StoredKey: bytes.Repeat([]byte("K"), size), ServerKey: bytes.Repeat([]byte("S"), size),
	}
}

func binding(name string) acl.Binding {
	return acl.Binding{Type: acl.Topic, Pattern: acl.Literal, Name: name, Principal: "User:a", Host: "*", Operation: acl.Read, Permission: acl.Allow}
}

func tokenKey(id string) TokenKey {
	return TokenKey{ID: id, Seed: bytes.Repeat([]byte("T"), 32), Created: 5}
}

func sampleCredentials() CatalogCommand {
	return CatalogCommand{AlterCredentials: &AlterCredentials{
		Set:    []Credential{credential("a", security.ScramSHA256), credential("a", security.ScramSHA512), credential("b", security.ScramSHA256)},
		Delete: []CredentialName{{"b", security.ScramSHA512}}, Secret: []byte("secret"),
	}}
}

func sampleACLs() CatalogCommand {
	prefixed := binding("y")
	prefixed.Pattern, prefixed.Permission, prefixed.Host = acl.Prefixed, acl.Deny, "192.0.2.1"
	return CatalogCommand{AlterACLs: &AlterACLs{Add: []acl.Binding{prefixed, binding("x")}, Remove: []acl.Binding{binding("z")}}}
}

func sampleTokens() CatalogCommand {
	return CatalogCommand{AlterTokens: &AlterTokens{
		AddKeys: []TokenKey{tokenKey("k1"), tokenKey("k2")}, RemoveKeys: []string{"k0"},
		Revoke: []Revocation{{Token: "t", Until: 100}, {Principal: "User:a", Before: 7, Until: 50}}, Now: 10,
	}}
}

// atLevel gives a catalog of a cluster at that level.
func atLevel(t testing.TB, level int) *Catalog {
	t.Helper()
	c := NewCatalog()
	for i, command := range []CatalogCommand{
		{FormCluster: &FormCluster{"c", []Node{{ID: "n1", Incarnation: "aaaaaaaa", FeatureLevel: FeatureLevel}}}},
		{RaiseFeatureLevel: &RaiseFeatureLevel{level}},
	} {
		if r := c.Apply(Index(1+i), command.Encode()); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	return c
}

func securedCatalog(t testing.TB) *Catalog {
	t.Helper()
	c := atLevel(t, 4)
	for i, command := range []CatalogCommand{sampleCredentials(), sampleACLs(), sampleTokens()} {
		if r := c.Apply(Index(10+i), command.Encode()); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	return c
}

func drawCredentials(t *rapid.T) *AlterCredentials {
	name := rapid.Custom(func(t *rapid.T) CredentialName {
		return CredentialName{rapid.SampledFrom([]string{"a", "b", "c", ""}).Draw(t, "user"), rapid.SampledFrom([]string{security.ScramSHA256, security.ScramSHA512, "PLAIN"}).Draw(t, "mechanism")}
	})
	a := &AlterCredentials{Delete: rapid.SliceOfN(name, 0, 2).Draw(t, "delete"), Secret: rapid.SliceOfN(rapid.Byte(), 0, 1).Draw(t, "secret")}
	for _, n := range rapid.SliceOfN(name, 0, 2).Draw(t, "set") {
		c := credential(n.User, n.Mechanism)
		c.Iterations = rapid.SampledFrom([]int{4095, 4096, 16384, 16385}).Draw(t, "iterations")
		a.Set = append(a.Set, c)
	}
	return a
}

func drawACLs(t *rapid.T) *AlterACLs {
	one := rapid.Custom(func(t *rapid.T) acl.Binding {
		b := binding(rapid.SampledFrom([]string{"x", "y", "*"}).Draw(t, "name"))
		b.Pattern = acl.PatternType(rapid.IntRange(2, 4).Draw(t, "pattern"))
		b.Operation = acl.Operation(rapid.IntRange(1, 4).Draw(t, "operation"))
		return b
	})
	return &AlterACLs{Add: rapid.SliceOfN(one, 0, 3).Draw(t, "add"), Remove: rapid.SliceOfN(one, 0, 2).Draw(t, "remove")}
}

func drawTokens(t *rapid.T) *AlterTokens {
	id := rapid.SampledFrom([]string{"k1", "k2", ""})
	a := &AlterTokens{RemoveKeys: rapid.SliceOfN(id, 0, 1).Draw(t, "remove"), Now: int64(rapid.IntRange(0, 3).Draw(t, "now"))}
	for _, id := range rapid.SliceOfN(id, 0, 2).Draw(t, "add") {
		a.AddKeys = append(a.AddKeys, tokenKey(id))
	}
	for range rapid.IntRange(0, 2).Draw(t, "revoked") {
		a.Revoke = append(a.Revoke, Revocation{
			Token: rapid.SampledFrom([]string{"", "t"}).Draw(t, "token"), Principal: rapid.SampledFrom([]string{"", "User:a"}).Draw(t, "principal"), Until: int64(rapid.IntRange(0, 3).Draw(t, "until")),
		})
	}
	return a
}

// The bytes of commands and of a snapshot: logs are full of them, and a cluster runs two versions
// while it is upgraded.
func TestBytesOfSecurity(t *testing.T) {
	k32, s32 := strings.Repeat("S0tL", 10)+"S0s=", strings.Repeat("U1NT", 10)+"U1M="
	k64, s64 := strings.Repeat("S0tL", 21)+"Sw==", strings.Repeat("U1NT", 21)+"Uw=="
	credentials := `[{"user":"a","mechanism":"SCRAM-SHA-256","salt":"c2FsdA==","stored_key":"` + k32 + `","server_key":"` + s32 + `","iterations":8192},` +
		`{"user":"a","mechanism":"SCRAM-SHA-512","salt":"c2FsdA==","stored_key":"` + k64 + `","server_key":"` + s64 + `","iterations":8192},` +
		`{"user":"b","mechanism":"SCRAM-SHA-256","salt":"c2FsdA==","stored_key":"` + k32 + `","server_key":"` + s32 + `","iterations":8192}]`
	const x = `{"type":2,"pattern":3,"name":"x","principal":"User:a","host":"*","operation":3,"permission":3}`
	const y = `{"type":2,"pattern":4,"name":"y","principal":"User:a","host":"192.0.2.1","operation":3,"permission":2}`
	keys := `[{"id":"k1","seed":"VFRUVFRUVFRUVFRUVFRUVFRUVFRUVFRUVFRUVFRUVFQ=","created":5},{"id":"k2","seed":"VFRUVFRUVFRUVFRUVFRUVFRUVFRUVFRUVFRUVFRUVFQ=","created":5}]`
	const revoked = `[{"token":"t","until":100},{"principal":"User:a","before":7,"until":50}]`
	for want, command := range map[string]CatalogCommand{
		`{"version":1,"alter_credentials":{"set":` + credentials + `,"delete":[{"user":"b","mechanism":"SCRAM-SHA-512"}],"secret":"c2VjcmV0"}}`: sampleCredentials(),
		`{"version":1,"alter_acls":{"add":[` + y + `,` + x + `],"remove":[` + strings.Replace(x, `"x"`, `"z"`, 1) + `]}}`:                       sampleACLs(),
		`{"version":1,"alter_tokens":{"add_keys":` + keys + `,"remove_keys":["k0"],"revoke":` + revoked + `,"now":10}}`:                         sampleTokens(),
	} {
		if got := string(command.Encode()); got != want {
			t.Errorf("the command is\n%s\nand was\n%s", got, want)
		}
	}
	want := `,"security":{"version":12,"secret":"c2VjcmV0","credentials":` + credentials + `,"acls":[` + x + `,` + y + `],"token_keys":` + keys + `,"revoked":` + revoked + `}}`
	if got := contents(securedCatalog(t)); !strings.Contains(got, want) {
		t.Errorf("the snapshot is\n%s\nand had\n%s", got, want)
	}
	if got := contents(atLevel(t, 4)); strings.Contains(got, "security") {
		t.Errorf("a catalog without any has it in its snapshot:\n%s", got)
	}
}

func TestSecurityChangesWithItsCommandsOnly(t *testing.T) {
	c := securedCatalog(t)
	was := c.View().Security()
	index := Index(20)
	for _, command := range []CatalogCommand{
		sampleCredentials(), sampleACLs(), sampleTokens(), // they are done
		{AlterACLs: &AlterACLs{Remove: []acl.Binding{binding("nothing")}}}, {AlterCredentials: &AlterCredentials{Delete: []CredentialName{{"nobody", security.ScramSHA256}}, Secret: []byte("other")}},
		{CreateTopic: &CreateTopic{Topic{Name: "t", ID: TopicID{15: 1}, ReplicationFactor: 1, Partitions: []Partition{{Replicas: []NodeID{"n1"}, Bootstrap: []NodeID{"n1"}}}}}},
	} {
		if r := c.Apply(index, command.Encode()); r.Err != nil || c.View().Security() != was {
			t.Fatalf("%s: %v, changed: %v", command.Encode()[:40], r.Err, c.View().Security() != was)
		}
		index++
	}
	changes := []CatalogCommand{
		{AlterACLs: &AlterACLs{Add: []acl.Binding{binding("new")}}}, {AlterACLs: &AlterACLs{Remove: []acl.Binding{binding("x")}}},
		{AlterCredentials: &AlterCredentials{Delete: []CredentialName{{"a", security.ScramSHA256}}}}, {AlterTokens: &AlterTokens{Now: 60}}, {AlterTokens: &AlterTokens{RemoveKeys: []string{"k1"}}},
	}
	for _, command := range changes {
		before := c.View().Security()
		if r := c.Apply(index, command.Encode()); r.Err != nil || c.View().Security() == before || c.View().Security().Version() != index {
			t.Fatalf("%s: %v, version %d", command.Encode(), r.Err, c.View().Security().Version())
		}
		index++
	}
	s := c.View().Security()
	if _, ok := s.Scram("a", security.ScramSHA256); ok || len(s.CredentialsOf("a")) != 1 || len(s.CredentialsOf("nobody")) != 0 || len(s.Credentials()) != 2 {
		t.Errorf("credentials %v", s.Credentials())
	}
	if got, ok := s.Scram("a", security.ScramSHA512); !ok || got.Iterations != 8192 || len(got.StoredKey) != 64 {
		t.Error("a credential is not found")
	}
	if !s.ACLs().Has(binding("new")) || s.ACLs().Has(binding("x")) || s.ACLs().Len() != 2 {
		t.Errorf("ACLs %v", s.ACLs().All())
	}
	if len(s.TokenKeys()) != 1 || s.TokenKeys()[0].ID != "k2" || len(s.Revoked()) != 1 || string(s.Secret()) != "secret" {
		t.Errorf("keys %v, revoked %v", s.TokenKeys(), s.Revoked())
	}
	if _, ok := was.Scram("a", security.ScramSHA256); !ok || !was.ACLs().Has(binding("x")) || len(was.TokenKeys()) != 2 {
		t.Error("what was handed out has changed")
	}
}

func TestSecurityIsBoundedAndChecked(t *testing.T) {
	long := strings.Repeat("x", MaxUserName+1)
	bad := func(change func(*Credential)) CatalogCommand {
		c := credential("a", security.ScramSHA256)
		change(&c)
		return CatalogCommand{AlterCredentials: &AlterCredentials{Set: []Credential{c}}}
	}
	var crowd, users AlterCredentials
	for i := range MaxUsers + 1 {
		crowd.Set = append(crowd.Set, credential(fmt.Sprint("user-", i), security.ScramSHA256))
	}
	for _, c := range crowd.Set[:MaxUsers] {
		other := c
		other.Mechanism, other.StoredKey, other.ServerKey = security.ScramSHA512, make([]byte, 64), make([]byte, 64)
		users.Set = append(users.Set, c, other)
	}
	var many AlterACLs
	for i := range acl.MaxBindings + 1 {
		many.Add = append(many.Add, binding(fmt.Sprint("t", i)))
	}
	wrong := binding("x")
	wrong.Host = "example.org"
	for name, test := range map[string]struct {
		command CatalogCommand
		want    error
	}{
		"users with two each":  {CatalogCommand{AlterCredentials: &users}, nil},
		"one user more":        {CatalogCommand{AlterCredentials: &crowd}, outcome.ErrPolicy},
		"no name":              {bad(func(c *Credential) { c.User = "" }), outcome.ErrInvalidConfig},
		"a long name":          {bad(func(c *Credential) { c.User = long }), outcome.ErrInvalidConfig},
		"no salt":              {bad(func(c *Credential) { c.Salt = nil }), outcome.ErrInvalidConfig},
		"few iterations":       {bad(func(c *Credential) { c.Iterations = 4095 }), outcome.ErrInvalidConfig},
		"many iterations":      {bad(func(c *Credential) { c.Iterations = 16385 }), outcome.ErrInvalidConfig},
		"a short key":          {bad(func(c *Credential) { c.StoredKey = c.StoredKey[1:] }), outcome.ErrInvalidConfig},
		"a mechanism of later": {bad(func(c *Credential) { c.Mechanism = "SCRAM-SHA-1024" }), ErrNewer},
		"one ACL more":         {CatalogCommand{AlterACLs: &many}, outcome.ErrPolicy},
		"an ACL that cannot be": {
			CatalogCommand{AlterACLs: &AlterACLs{Add: []acl.Binding{wrong}}}, outcome.ErrInvalidConfig},
		"an operation of later": {
			CatalogCommand{AlterACLs: &AlterACLs{Add: []acl.Binding{{Type: acl.Topic, Pattern: acl.Literal, Name: "x", Principal: "User:a", Host: "*", Operation: 16, Permission: acl.Allow}}}}, ErrNewer},
		"a short seed": {CatalogCommand{AlterTokens: &AlterTokens{AddKeys: []TokenKey{{ID: "k", Seed: []byte("T")}}}}, outcome.ErrInvalidConfig},
		"a revocation of nothing": {
			CatalogCommand{AlterTokens: &AlterTokens{Revoke: []Revocation{{Until: 1}}}}, outcome.ErrInvalidConfig},
		"too many revocations": {
			CatalogCommand{AlterTokens: &AlterTokens{Revoke: manyRevocations(maxRevoked + 1)}}, outcome.ErrPolicy},
	} {
		c := atLevel(t, 4)
		before := contents(c)
		err := c.Apply(10, test.command.Encode()).Err
		if !errors.Is(err, test.want) || (err != nil && contents(c) != before) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), "KKKK") {
			t.Errorf("%s: the error tells a key: %v", name, err)
		}
	}
	for _, command := range []CatalogCommand{sampleCredentials(), sampleACLs(), sampleTokens()} {
		if err := atLevel(t, 3).Apply(10, command.Encode()).Err; !errors.Is(err, outcome.ErrFeatureLevel) {
			t.Errorf("at level 2: %v", err)
		}
	}
}

// The first users are those of a cluster that never had one, and nobody else.
func TestFirstUsers(t *testing.T) {
	c, index := atLevel(t, 4), Index(10)
	apply := func(a AlterCredentials) {
		t.Helper()
		if r := c.Apply(index, (&CatalogCommand{AlterCredentials: &a}).Encode()); r.Err != nil {
			t.Fatal(r.Err)
		}
		index++
	}
	first := func(salt string) AlterCredentials {
		made := credential("a", security.ScramSHA256)
		made.Salt = []byte(salt)
		return AlterCredentials{Set: []Credential{made}, Secret: []byte("secret"), First: true}
	}
	apply(first("one"))
	apply(first("two"))
	if got, _ := c.View().Security().Scram("a", security.ScramSHA256); string(got.Salt) != "one" {
		t.Errorf("salt %q", got.Salt)
	}
	apply(AlterCredentials{Delete: []CredentialName{{"a", security.ScramSHA256}}})
	apply(first("three"))
	if _, there := c.View().Security().Scram("a", security.ScramSHA256); there || !c.View().Security().HadUsers() {
		t.Error("a user that was deleted is back")
	}
}

func manyRevocations(n int) (list []Revocation) {
	for i := range n {
		list = append(list, Revocation{Token: fmt.Sprint("t", i), Until: 1})
	}
	return list
}

// Whoever prints a command or a list of users prints no key.
func TestSecretsAreNotPrinted(t *testing.T) {
	s := securedCatalog(t).View().Security()
	for _, what := range []any{*sampleCredentials().AlterCredentials, *sampleTokens().AlterTokens, s.Credentials(), s.TokenKeys(), credential("a", security.ScramSHA256), tokenKey("k")} {
		for _, form := range []string{"%v", "%+v", "%#v", "%s"} {
			text := fmt.Sprintf(form, what)
			for _, secret := range []string{"KKK", "75 75 75", "0x4b, 0x4b", "TTT", "84 84 84", "0x54, 0x54"} {
				if strings.Contains(text, secret) {
					t.Errorf("%s of %T: %s", form, what, text)
				}
			}
		}
	}
}
