package security

import (
	"errors"
	"strings"
)

// Principal is who a client is after it has logged in, by Kafka's words: a type, which is
// "User" for everybody here, and a name.
type Principal struct {
	Type, Name string
}

// Anonymous is who has neither logged in nor shown a certificate.
var Anonymous = User("ANONYMOUS")

// User is the principal of the type that Kafka's default authorizer knows.
func User(name string) Principal { return Principal{Type: "User", Name: name} }

// String is Kafka's form, "User:alice".
func (p Principal) String() string { return p.Type + ":" + p.Name }

// ParsePrincipal reads Kafka's form. The name may contain colons.
func ParsePrincipal(s string) (Principal, error) {
	kind, name, ok := strings.Cut(s, ":")
	if !ok || kind == "" || name == "" {
		return Principal{}, errors.New("a principal is written Type:name, such as User:alice")
	}
	return Principal{Type: kind, Name: name}, nil
}
