package token

import (
	"crypto/ed25519"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/security"
)

// ring is a Keys of a test.
type ring struct {
	id      string
	keys    map[string]ed25519.PrivateKey
	revoked map[string]bool
	before  time.Time
}

func newRing(ids ...string) *ring {
	r := &ring{keys: map[string]ed25519.PrivateKey{}, revoked: map[string]bool{}}
	for i, id := range ids {
		seed := make([]byte, ed25519.SeedSize)
		seed[0] = byte(i + 1)
		r.id, r.keys[id] = id, ed25519.NewKeyFromSeed(seed)
	}
	return r
}

func (r *ring) Signer() (string, ed25519.PrivateKey, bool) {
	key, ok := r.keys[r.id]
	return r.id, key, ok
}

func (r *ring) Verifier(id string) (ed25519.PublicKey, bool) {
	key, ok := r.keys[id]
	if !ok {
		return nil, false
	}
	return key.Public().(ed25519.PublicKey), true
}

func (r *ring) Known(id string) bool {
	_, ok := r.keys[id]
	return ok
}

func (r *ring) Revoked(id string, _ security.Principal, issued time.Time) bool {
	return r.revoked[id] || !issued.After(r.before)
}

var (
	now   = time.Unix(1_800_000_000, 0)
	scope = security.Scope{{Resource: security.TopicResource, Name: "t", Access: security.ReadAccess}}
)

func claims() Claims {
	return Claims{ID: "1", Principal: security.User("alice"), Issued: now, Expires: now.Add(time.Hour), Scope: scope}
}

func TestTokens(t *testing.T) {
	keys := newRing("k1", "k2")
	text, err := Sign(keys, "c", claims())
	if err != nil {
		t.Fatal(err)
	}
	if !Ours("c", text) || Ours("d", text) || Ours("c", "") {
		t.Error("a token does not say whose it is")
	}
	got, err := Read(keys, "c", text, now)
	if err != nil || got.Principal != security.User("alice") || !got.Scope.Reads("t") || !got.Expires.Equal(now.Add(time.Hour)) {
		t.Fatalf("%+v, %v", got, err)
	}
	keys.id = "k1" // an older key still verifies, until it is dropped
	if _, err := Read(keys, "c", text, now); err != nil {
		t.Error(err)
	}
	for name, try := range map[string]func() error{
		"another cluster":         func() error { _, err := Read(keys, "d", text, now); return err },
		"a ticket":                func() error { _, err := ReadTicket(keys, "c", text, now); return err },
		"expired":                 func() error { _, err := Read(keys, "c", text, now.Add(time.Hour+time.Minute)); return err },
		"of the future":           func() error { _, err := Read(keys, "c", text, now.Add(-time.Minute)); return err },
		"without its key":         func() error { _, err := Read(newRing("k1"), "c", text, now); return err },
		"another key of the name": func() error { _, err := Read(newRing("k2"), "c", text, now); return err },
		"too long":                func() error { _, err := Read(keys, "c", text+strings.Repeat("A", MaxBytes), now); return err },
		"revoked": func() error {
			r := newRing("k1", "k2")
			r.revoked["1"] = true
			_, err := Read(r, "c", text, now)
			return err
		},
		"all revoked": func() error {
			r := newRing("k1", "k2")
			r.before = now
			_, err := Read(r, "c", text, now)
			return err
		},
		"alg none": func() error {
			parts := strings.Split(text, ".")
			head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"k2"}`))
			_, err := Read(keys, "c", head+"."+parts[1]+".", now)
			return err
		},
		"changed": func() error {
			parts := strings.Split(text, ".")
			body, _ := base64.RawURLEncoding.DecodeString(parts[1])
			parts[1] = base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(body), "alice", "admin", 1)))
			_, err := Read(keys, "c", strings.Join(parts, "."), now)
			return err
		},
	} {
		if try() == nil {
			t.Errorf("%s is taken", name)
		}
	}
	for name, change := range map[string]func(*Claims){
		"without a scope": func(c *Claims) { c.Scope = nil },
		"of two days":     func(c *Claims) { c.Expires = now.Add(2 * MaxLifetime) },
		"without an id":   func(c *Claims) { c.ID = "" },
		"of nobody":       func(c *Claims) { c.Principal = security.Principal{} },
	} {
		c := claims()
		change(&c)
		text, err := Sign(keys, "c", c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Read(keys, "c", text, now); err == nil {
			t.Errorf("a token %s is taken", name)
		}
	}
	if _, err := Sign(newRing(), "c", claims()); err != ErrNoKey {
		t.Errorf("%v", err)
	}
}

func TestTickets(t *testing.T) {
	keys := newRing("k1")
	c := claims()
	c.Expires, c.Scope, c.Mechanism, c.Host, c.Session = now.Add(TicketLifetime), nil, "PLAIN", "10.0.0.1", now.Add(time.Hour)
	c.Token, c.TokenKey, c.TokenFrom = "t1", "k0", now.Add(-time.Hour)
	keys.keys["k0"] = keys.keys["k1"]
	text, err := Ticket(keys, "c", c)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadTicket(keys, "c", text, now)
	if err != nil || got.Mechanism != "PLAIN" || got.Host != "10.0.0.1" || !got.Session.Equal(c.Session) || got.Scope != nil {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := Read(keys, "c", text, now); err == nil {
		t.Error("a ticket passes for a token")
	}
	if _, err := ReadTicket(keys, "c", text, now.Add(2*TicketLifetime)); err == nil {
		t.Error("a ticket outlives its minute")
	}
	delete(keys.keys, "k0")
	if _, err := ReadTicket(keys, "c", text, now); err != ErrRevoked {
		t.Errorf("the ticket of a session whose token's key is gone: %v", err)
	}
	keys.keys["k0"], keys.revoked["t1"] = keys.keys["k1"], true
	if _, err := ReadTicket(keys, "c", text, now); err != ErrRevoked {
		t.Errorf("the ticket of a session whose token is revoked: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	keys := newRing("k1")
	text, _ := Sign(keys, "c", claims())
	f.Add(text)
	f.Add("e30.e30.")
	f.Fuzz(func(t *testing.T, in string) {
		if _, err := Read(keys, "c", in, now); err == nil && in != text {
			// Base64 has more than one form of the same bytes; the claims are the signed ones.
			if c, _ := Read(keys, "c", in, now); c.ID != "1" {
				t.Fatalf("%q is taken", in)
			}
		}
		Ours("c", in)
	})
}
