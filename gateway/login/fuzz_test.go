package login

import (
	"context"
	"crypto/ed25519"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/scram"
)

// onlyAlice has one user, whose password nobody has, and no keys of tokens.
type onlyAlice struct{}

func (onlyAlice) Scram(user, mechanism string) (security.ScramCredential, bool) {
	return scram.Decoy(mechanism, []byte("a secret"), user), user == "alice"
}
func (onlyAlice) Signer() (string, ed25519.PrivateKey, bool)         { return "", nil, false }
func (onlyAlice) Verifier(string) (ed25519.PublicKey, bool)          { return nil, false }
func (onlyAlice) Known(string) bool                                  { return false }
func (onlyAlice) Revoked(string, security.Principal, time.Time) bool { return false }

// Whatever is said in a login, by frames with a header or without, in whichever order: nothing
// panics, nobody is in without the password, and the connection ends with the first failure.
func FuzzLogin(f *testing.F) {
	f.Add(uint8(0), false, []byte("n,,n=alice,r=abc"), []byte("c=biws,r=abc,p=AAAA"), []byte{})
	f.Add(uint8(1), true, []byte("n,a=alice,n=al=2Cice,r=abc"), []byte("c=biws,r=abc,p="), []byte("c="))
	f.Add(uint8(2), false, []byte("n,,\x01auth=Bearer a.b.c\x01\x01"), []byte{1}, []byte{1})
	f.Add(uint8(3), true, []byte("\x00alice\x00secret"), []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, mechanism uint8, raw bool, first, second, third []byte) {
		s, err := New(Config{Mechanisms: Mechanisms, Required: true, Credentials: onlyAlice{}, Tokens: onlyAlice{}, ClusterID: func() string { return "c" }})
		if err != nil {
			t.Fatal(err)
		}
		in := func() { t.Fatal("somebody is in") }
		c := s.Conn(Facts{Host: "192.0.2.1", Proven: in, End: func() {}, Cut: func() {}})
		defer c.Leave()
		// Who has gone is not made to wait for a failure; the others are 100 ms.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		version := int16(1)
		if raw {
			version = 0
		}
		if a := c.Handshake(version, Mechanisms[int(mechanism)%len(Mechanisms)]); a.End != nil || c.Raw() != raw {
			t.Fatalf("%+v", a)
		}
		for _, message := range [][]byte{first, second, third} {
			if a := c.Authenticate(ctx, message); a.End != nil {
				break
			}
		}
		if c.LoggedIn() || c.Admit(3) == nil {
			in()
		}
	})
}
