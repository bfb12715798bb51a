package fsm

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/trimaran-io/trimaran/outcome"
	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/acl"
)

// This file is what the catalog knows of who may log in and what they may do. It changes only with
// the commands below, which need level 4, and lies behind one pointer in the view.

const (
	// MaxUsers bounds the users that have credentials.
	MaxUsers = 10_000
	// MaxUserName bounds a user's name, in bytes.
	MaxUserName = acl.MaxName
	// MinIterations and MaxIterations bound the iterations of a credential, as in Kafka
	// (ScramMechanism, ScramControlManager).
	MinIterations = 4096
	MaxIterations = 16384

	maxSalt       = 256 // bytes
	maxSecret     = 64
	maxTokenKeys  = 16
	maxRevoked    = 10_000
	maxRevokedLen = 512 // bytes of a token's id or of a principal
)

// Credential is what is kept of a user's password for one mechanism.
type Credential struct {
	User       string `json:"user"`
	Mechanism  string `json:"mechanism"`
	Salt       []byte `json:"salt"`
	StoredKey  []byte `json:"stored_key"`
	ServerKey  []byte `json:"server_key"`
	Iterations int    `json:"iterations"`
}

// String hides what is secret, wherever a command or a list of users is printed.
func (c Credential) String() string { return "credential of " + c.User + " for " + c.Mechanism }

// GoString is String.
func (c Credential) GoString() string { return c.String() }

// CredentialName names a credential.
type CredentialName struct {
	User      string `json:"user"`
	Mechanism string `json:"mechanism"`
}

func (c Credential) name() CredentialName { return CredentialName{c.User, c.Mechanism} }

func compareCredentials(a, b Credential) int { return compareCredentialNames(a, b.name()) }

func compareCredentialNames(a Credential, b CredentialName) int {
	return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.Mechanism, b.Mechanism))
}

// AlterCredentials gives users passwords and takes them away. One that is both set and deleted is
// deleted; to delete what is not there changes nothing. Level 4.
type AlterCredentials struct {
	Set    []Credential     `json:"set,omitempty"`
	Delete []CredentialName `json:"delete,omitempty"`
	// Secret is kept if the catalog has none yet: chance that the proposer has drawn, from which
	// salts of users that do not exist are made.
	Secret []byte `json:"secret,omitempty"`
	// First: nothing is changed where there is, or ever was, a user.
	First bool `json:"first,omitempty"`
}

// AlterACLs adds access control lists and removes them, each exactly. Adding what is there and
// removing what is not changes nothing; one that is in both is removed. Level 4.
type AlterACLs struct {
	Add    []acl.Binding `json:"add,omitempty"`
	Remove []acl.Binding `json:"remove,omitempty"`
}

// TokenKey is a key that tokens are signed with.
type TokenKey struct {
	ID      string `json:"id"`
	Seed    []byte `json:"seed"`    // of Ed25519, 32 bytes
	Created int64  `json:"created"` // ms since epoch
}

// String hides the key.
func (k TokenKey) String() string { return "token key " + k.ID }

// GoString is String.
func (k TokenKey) GoString() string { return k.String() }

// Revocation takes back a token by its id, or all of a principal's that were issued before a time.
type Revocation struct {
	Token     string `json:"token,omitempty"`
	Principal string `json:"principal,omitempty"`
	Before    int64  `json:"before,omitempty"` // ms since epoch; with Principal
	// Until is when nobody has such a token any more, in ms since epoch.
	Until int64 `json:"until"`
}

// AlterTokens changes the keys of tokens, the newest of which signs, and what is revoked. Level 4.
type AlterTokens struct {
	AddKeys    []TokenKey   `json:"add_keys,omitempty"`
	RemoveKeys []string     `json:"remove_keys,omitempty"`
	Revoke     []Revocation `json:"revoke,omitempty"`
	// Now is the proposer's time, in ms since epoch: what ended before is forgotten.
	Now int64 `json:"now"`
}

// Security is who may log in and what they may do, at one moment. It never changes. The zero value
// is that of a cluster in which nothing was said about it.
type Security struct {
	version     Index
	secret      []byte
	credentials []Credential // by user and mechanism
	acls        *acl.Set
	keys        []TokenKey // oldest first
	revoked     []Revocation
}

var noSecurity = &Security{}

// Security gives who may log in and what they may do: another pointer whenever that changes, and
// only then.
func (t *Topics) Security() *Security { return cmp.Or(t.security, noSecurity) }

// Version is the index of the command that made it, 0 before the first.
func (s *Security) Version() Index { return s.version }

// ACLs gives the access control lists.
func (s *Security) ACLs() *acl.Set { return s.acls }

// Secret is what salts of users that do not exist are made from; nil before the first user.
func (s *Security) Secret() []byte { return s.secret }

// HadUsers says whether there is, or ever was, a user.
func (s *Security) HadUsers() bool { return len(s.secret) > 0 }

// Scram implements security.Credentials.
func (s *Security) Scram(user, mechanism string) (security.ScramCredential, bool) {
	i, ok := slices.BinarySearchFunc(s.credentials, CredentialName{user, mechanism}, compareCredentialNames)
	if !ok {
		return security.ScramCredential{}, false
	}
	c := &s.credentials[i]
	return security.ScramCredential{Salt: c.Salt, StoredKey: c.StoredKey, ServerKey: c.ServerKey, Iterations: c.Iterations}, true
}

// Credentials gives all users' credentials, by user and mechanism. They must not be changed.
func (s *Security) Credentials() []Credential { return slices.Clip(s.credentials) }

// CredentialsOf gives those of one user. They must not be changed.
func (s *Security) CredentialsOf(user string) []Credential {
	from, _ := slices.BinarySearchFunc(s.credentials, CredentialName{User: user}, compareCredentialNames)
	to := from
	for to < len(s.credentials) && s.credentials[to].User == user {
		to++
	}
	return s.credentials[from:to:to]
}

// TokenKeys gives the keys of tokens, the oldest first. They must not be changed.
func (s *Security) TokenKeys() []TokenKey { return slices.Clip(s.keys) }

// Revoked gives what is revoked. It must not be changed.
func (s *Security) Revoked() []Revocation { return slices.Clip(s.revoked) }

// checkMechanism says whether this program knows a mechanism. The error is ErrInvalidConfig.
func checkMechanism(mechanism string) error {
	if mechanism != security.ScramSHA256 && mechanism != security.ScramSHA512 {
		return fmt.Errorf("%w: unknown mechanism of a credential", outcome.ErrInvalidConfig)
	}
	return nil
}

// Check says whether the credential may be kept. The error is ErrInvalidConfig and has nothing of
// the credential but its user.
func (c Credential) Check() error {
	if err := checkMechanism(c.Mechanism); err != nil {
		return err
	}
	size := 32
	if c.Mechanism == security.ScramSHA512 {
		size = 64
	}
	switch {
	case c.User == "" || len(c.User) > MaxUserName:
		return fmt.Errorf("%w: a user's name of %d bytes, want 1 to %d", outcome.ErrInvalidConfig, len(c.User), MaxUserName)
	case c.Iterations < MinIterations || c.Iterations > MaxIterations:
		return fmt.Errorf("%w: user %q: %d iterations, want %d to %d", outcome.ErrInvalidConfig, c.User, c.Iterations, MinIterations, MaxIterations)
	case len(c.Salt) == 0 || len(c.Salt) > maxSalt:
		return fmt.Errorf("%w: user %q: a salt of %d bytes, want 1 to %d", outcome.ErrInvalidConfig, c.User, len(c.Salt), maxSalt)
	case len(c.StoredKey) != size || len(c.ServerKey) != size:
		return fmt.Errorf("%w: user %q: keys of another size than %d bytes", outcome.ErrInvalidConfig, c.User, size)
	}
	return nil
}

// changedSecurity gives a view with a copy of its Security, to change; what that holds must be
// replaced, not changed.
func (c *Catalog) changedSecurity(index Index) (*Topics, *Security) {
	view, next := *c.view, *c.view.Security()
	next.version = index
	view.security = &next
	return &view, &next
}

func (c *Catalog) alterCredentials(index Index, a *AlterCredentials) (*Topics, error) {
	for _, set := range a.Set {
		if err := set.Check(); err != nil {
			return nil, err
		}
	}
	if len(a.Secret) > maxSecret {
		return nil, fmt.Errorf("%w: a secret of %d bytes, want at most %d", outcome.ErrInvalidConfig, len(a.Secret), maxSecret)
	}
	if a.First && c.view.Security().HadUsers() {
		return c.view, nil
	}
	view, next := c.changedSecurity(index)
	old := next.credentials
	next.credentials = slices.Clone(old)
	for _, set := range a.Set {
		if i, ok := slices.BinarySearchFunc(next.credentials, set.name(), compareCredentialNames); ok {
			next.credentials[i] = set
		} else {
			next.credentials = slices.Insert(next.credentials, i, set)
		}
	}
	for _, name := range a.Delete {
		if i, ok := slices.BinarySearchFunc(next.credentials, name, compareCredentialNames); ok {
			next.credentials = slices.Delete(next.credentials, i, i+1)
		}
	}
	if n := countUsers(next.credentials); n > MaxUsers {
		return nil, outcome.With(outcome.ErrPolicy, fmt.Errorf("there would be %d users, and %d is the most", n, MaxUsers))
	}
	same := slices.EqualFunc(old, next.credentials, sameCredential)
	if len(next.secret) == 0 && len(a.Secret) > 0 {
		next.secret, same = a.Secret, false
	}
	if same {
		return c.view, nil
	}
	return view, nil
}

func sameCredential(a, b Credential) bool {
	return a.name() == b.name() && a.Iterations == b.Iterations && string(a.Salt) == string(b.Salt) &&
		string(a.StoredKey) == string(b.StoredKey) && string(a.ServerKey) == string(b.ServerKey)
}

// countUsers counts the users of sorted credentials.
func countUsers(list []Credential) (n int) {
	for i := range list {
		if i == 0 || list[i].User != list[i-1].User {
			n++
		}
	}
	return n
}

func (c *Catalog) alterACLs(index Index, a *AlterACLs) (*Topics, error) {
	for _, b := range a.Add {
		if err := b.Check(); err != nil {
			return nil, outcome.With(outcome.ErrInvalidConfig, err)
		}
	}
	view, next := c.changedSecurity(index)
	set := next.acls.Change(a.Add, a.Remove)
	if set == next.acls {
		return c.view, nil
	}
	if set.Len() > acl.MaxBindings {
		return nil, outcome.With(outcome.ErrPolicy, fmt.Errorf("there would be %d ACLs, and %d is the most", set.Len(), acl.MaxBindings))
	}
	next.acls = set
	return view, nil
}
