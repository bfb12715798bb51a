package catalog

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/acl"
)

func aclOf(name string, op acl.Operation) acl.Binding {
	return acl.Binding{Type: acl.Topic, Pattern: acl.Literal, Name: name, Principal: "User:a", Host: "*", Operation: op, Permission: acl.Allow}
}

// Users and ACLs are changed at any node, and known at all of them when that is answered; what a
// filter removes is found where the catalog is led.
func TestSecurityIsChangedAtAnyNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newCatalogs(t, 3, 3)
		a.up(3)
		// In the cluster's first second, when its level has not risen yet, they wait for that.
		known := func(what string, is func(*fsm.Security) bool) {
			t.Helper()
			for _, h := range a.nodes {
				if !is(h.c.View().Security()) {
					t.Errorf("%s does not know %s", h.c.self, what)
				}
			}
		}
		for i, h := range a.nodes {
			read, write := aclOf(fmt.Sprint("t", i), acl.Read), aclOf(fmt.Sprint("t", i), acl.Write)
			if _, err := h.c.AlterACLs(t.Context(), []acl.Binding{read, write, read}, nil); err != nil {
				t.Fatal(err)
			}
			known("new ACLs", func(s *fsm.Security) bool { return s.ACLs().Has(read) && s.ACLs().Has(write) })
			name := fmt.Sprint("t", i)
			byName := acl.Filter{Type: acl.Topic, Pattern: acl.Match, Name: &name, Operation: acl.AnyOperation, Permission: acl.AnyPermission}
			byWrite := acl.Filter{Type: acl.AnyType, Pattern: acl.AnyPattern, Operation: acl.Write, Permission: acl.AnyPermission}
			removed, err := h.c.AlterACLs(t.Context(), nil, []acl.Filter{byWrite, byName, byWrite})
			if err != nil || len(removed) != 3 || !slices.Equal(removed[0], []acl.Binding{write}) || len(removed[1]) != 2 || len(removed[2]) != 1 {
				t.Errorf("removed %v, %v", removed, err)
			}
			known("that ACLs are gone", func(s *fsm.Security) bool { return s.ACLs().Len() == 0 })
			if removed, err := h.c.AlterACLs(t.Context(), nil, []acl.Filter{byName}); err != nil || len(removed) != 1 || len(removed[0]) != 0 {
				t.Errorf("removed again: %v, %v", removed, err)
			}
			user := fsm.Credential{User: "u", Mechanism: security.ScramSHA256, Salt: []byte{byte(i)}, StoredKey: make([]byte, 32), ServerKey: make([]byte, 32), Iterations: 4096}
			if err := h.c.AlterCredentials(t.Context(), fsm.AlterCredentials{Set: []fsm.Credential{user}}); err != nil {
				t.Fatal(err)
			}
			known("a password", func(s *fsm.Security) bool {
				c, ok := s.Scram("u", security.ScramSHA256)
				return ok && bytes.Equal(c.Salt, user.Salt)
			})
			if err := h.c.AlterTokens(t.Context(), fsm.AlterTokens{Revoke: []fsm.Revocation{{Token: fmt.Sprint(i), Until: 1}}}); err != nil {
				t.Fatal(err)
			}
			known("a revocation", func(s *fsm.Security) bool { return len(s.Revoked()) == i+1 })
		}
		secret := a.nodes[0].c.View().Security().Secret()
		if len(secret) != secretBytes {
			t.Errorf("a secret of %d bytes", len(secret))
		}
		known("the one secret", func(s *fsm.Security) bool { return bytes.Equal(s.Secret(), secret) })
		if err := a.nodes[1].c.AlterCredentials(t.Context(), fsm.AlterCredentials{Set: []fsm.Credential{{User: "u"}}}); outcome.Code(err) != outcome.ErrInvalidConfig {
			t.Errorf("what is no credential: %v", err)
		}
		if _, err := a.nodes[1].c.AlterACLs(t.Context(), nil, []acl.Filter{{Type: 99}}); outcome.Code(err) != outcome.ErrInvalidConfig {
			t.Errorf("what is no filter: %v", err)
		}
	})
}
