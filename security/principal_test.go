package security

import "testing"

func TestParsePrincipal(t *testing.T) {
	for in, want := range map[string]Principal{
		"User:alice":          User("alice"),
		"User:CN=a,O=b:c":     User("CN=a,O=b:c"),
		"ServiceAccount:sa-1": {Type: "ServiceAccount", Name: "sa-1"},
	} {
		got, err := ParsePrincipal(in)
		if err != nil || got != want || got.String() != in {
			t.Errorf("%q is %+v (%v), want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "alice", ":alice", "User:"} {
		if got, err := ParsePrincipal(in); err == nil {
			t.Errorf("%q is taken as %+v", in, got)
		}
	}
}
