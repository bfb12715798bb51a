package fsm

import (
	"fmt"
	"slices"

	"github.com/trimaran-io/trimaran/security/acl"
)

// securityFile is Security in a catalog's snapshot. There is none in the snapshot of a catalog that
// never had any.
type securityFile struct {
	Version     Index         `json:"version"`
	Secret      []byte        `json:"secret,omitempty"`
	Credentials []Credential  `json:"credentials,omitempty"`
	ACLs        []acl.Binding `json:"acls,omitempty"`
	TokenKeys   []TokenKey    `json:"token_keys,omitempty"`
	Revoked     []Revocation  `json:"revoked,omitempty"`
}

func (s *Security) file() *securityFile {
	if s == nil {
		return nil
	}
	return &securityFile{Version: s.version, Secret: s.secret, Credentials: s.credentials, ACLs: s.acls.All(), TokenKeys: s.keys, Revoked: s.revoked}
}

// security rebuilds it and checks what its methods rely on. What is wrong is told without what is
// secret.
func (f *securityFile) security(applied Index) (*Security, error) {
	if f == nil {
		return nil, nil
	}
	if f.Version > applied {
		return nil, fmt.Errorf("security changed at index %d, applied up to %d", f.Version, applied)
	}
	for i, c := range f.Credentials {
		if err := c.Check(); err != nil {
			return nil, err
		}
		if i > 0 && compareCredentials(f.Credentials[i-1], c) >= 0 {
			return nil, fmt.Errorf("credential of user %q is out of order", c.User)
		}
	}
	for _, b := range f.ACLs {
		if err := b.Check(); err != nil {
			return nil, err
		}
	}
	for _, k := range f.TokenKeys {
		if err := k.check(); err != nil {
			return nil, err
		}
	}
	for _, r := range f.Revoked {
		if err := r.check(); err != nil {
			return nil, err
		}
	}
	if n := countUsers(f.Credentials); n > MaxUsers || len(f.ACLs) > acl.MaxBindings || len(f.TokenKeys) > maxTokenKeys || len(f.Revoked) > maxRevoked || len(f.Secret) > maxSecret {
		return nil, fmt.Errorf("%d users, %d ACLs, %d token keys, %d revocations: more than can be", n, len(f.ACLs), len(f.TokenKeys), len(f.Revoked))
	}
	s := &Security{version: f.Version, secret: f.Secret, credentials: slices.Clip(f.Credentials), keys: slices.Clip(f.TokenKeys), revoked: slices.Clip(f.Revoked)}
	if len(f.ACLs) > 0 {
		s.acls = acl.NewSet(f.ACLs)
	}
	return s, nil
}
