package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

var now = time.Unix(1_800_000_000, 0)

// provider is an identity provider of a test.
type provider struct {
	rsa, small *rsa.PrivateKey
	ec         *ecdsa.PrivateKey
	ed         ed25519.PrivateKey
}

var newProvider = sync.OnceValue(func() provider {
	var p provider
	p.rsa, _ = rsa.GenerateKey(rand.Reader, 2048)
	p.small, _ = rsa.GenerateKey(rand.Reader, 1024)
	p.ec, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, p.ed, _ = ed25519.GenerateKey(rand.Reader)
	return p
})

func (p provider) keys(id string) (all []jose.JSONWebKey) {
	for name, key := range map[string]crypto.Signer{"rsa": p.rsa, "ec": p.ec, "ed": p.ed, "small": p.small} {
		if (id == name || id == "") && !(key == crypto.Signer(p.small) && p.small == nil) {
			all = append(all, jose.JSONWebKey{KeyID: name, Key: key.Public()})
		}
	}
	return all
}

// sign makes a token as it is: what the library would refuse to make, too.
func sign(t testing.TB, key any, head, claims map[string]any) string {
	t.Helper()
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := part(head) + "." + part(claims)
	digest := sha256.Sum256([]byte(text))
	var signature []byte
	var err error
	switch key := key.(type) {
	case *rsa.PrivateKey:
		signature, err = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
	case *ecdsa.PrivateKey:
		r, s, e := ecdsa.Sign(rand.Reader, key, digest[:])
		signature, err = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...), e
	case ed25519.PrivateKey:
		signature = ed25519.Sign(key, []byte(text))
	case []byte:
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(text))
		signature = mac.Sum(nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func good() map[string]any {
	return map[string]any{
		"iss": "https://id.example", "aud": "kafka", "sub": "alice", "name": "Alice",
		"iat": now.Unix() - 10, "exp": now.Unix() + 300,
	}
}

func with(changes map[string]any) map[string]any {
	c := good()
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func TestVerify(t *testing.T) {
	p := newProvider()
	v := &Verifier{Issuer: "https://id.example", Audience: "kafka", Skew: 30 * time.Second, MaxLifetime: 24 * time.Hour, Keys: p.keys}
	head := func(alg, kid string) map[string]any { return map[string]any{"alg": alg, "kid": kid} }
	public, _ := x509.MarshalPKIXPublicKey(&p.rsa.PublicKey)
	asPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	own, _ := rsa.GenerateKey(rand.Reader, 2048)
	embedded, _ := json.Marshal(jose.JSONWebKey{Key: own.Public()})
	for name, text := range map[string]string{
		"RS256":             sign(t, p.rsa, head("RS256", "rsa"), good()),
		"ES256":             sign(t, p.ec, head("ES256", "ec"), good()),
		"EdDSA":             sign(t, p.ed, head("EdDSA", "ed"), good()),
		"without kid":       sign(t, p.rsa, map[string]any{"alg": "RS256"}, good()),
		"several audiences": sign(t, p.rsa, head("RS256", "rsa"), with(map[string]any{"aud": []string{"a", "kafka"}})),
		"just expired":      sign(t, p.rsa, head("RS256", "rsa"), with(map[string]any{"exp": now.Unix() - 20, "iat": now.Unix() - 100})),
		"jku is not read":   sign(t, p.rsa, map[string]any{"alg": "RS256", "kid": "rsa", "jku": "http://evil.example"}, good()),
	} {
		got, err := v.Verify(text, now)
		if err != nil || got.User != "alice" {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for name, text := range map[string]string{
		"none":                 sign(t, nil, head("none", "rsa"), good()),
		"None":                 sign(t, nil, head("None", "rsa"), good()),
		"HS256 over PEM":       sign(t, asPEM, head("HS256", "rsa"), good()),
		"HS256 over DER":       sign(t, public, head("HS256", "rsa"), good()),
		"another key":          sign(t, own, head("RS256", "rsa"), good()),
		"unknown key":          sign(t, own, head("RS256", "own"), good()),
		"embedded key":         sign(t, own, map[string]any{"alg": "RS256", "kid": "rsa", "jwk": json.RawMessage(embedded)}, good()),
		"embedded, no kid":     sign(t, own, map[string]any{"alg": "RS256", "jwk": json.RawMessage(embedded)}, good()),
		"crit":                 sign(t, p.rsa, map[string]any{"alg": "RS256", "kid": "rsa", "crit": []string{"x"}, "x": 1}, good()),
		"alg of another key":   sign(t, p.ec, head("RS256", "ec"), good()),
		"small key":            sign(t, p.small, head("RS256", "small"), good()),
		"foreign audience":     sign(t, p.rsa, head("RS256", "rsa"), with(map[string]any{"aud": "other"})),
		"no audience":          sign(t, p.rsa, head("RS256", "rsa"), with(map[string]any{"aud": nil})),
		"foreign issuer":       sign(t, p.rsa, head("RS256", "rsa"), with(map[string]any{"iss": "https://evil.example"})),
		"no issuer":            sign(t, p.rsa, head("RS256", "rsa"), with(map[string]any{"iss": nil})),
		"expired":              sign(t, p.rsa, head("RS256", "rsa"), with(map[string]any{"exp": now.Unix() - 60, "iat": now.Unix() - 100})),
		"no exp":               sign(t, p.rsa, head("RS256", "rsa"), with(map[string]any{"exp": nil})),
		"no iat":               sign(t, p.rsa, head("RS256", "rsa"), with(map[string]any{"iat": nil})),
		"not yet":              sign(t, p.rsa, head("RS256", "rsa"), with(map[string]any{"nbf": now.Unix() + 60})),
		"issued in the future": sign(t, p.rsa, head("RS256", "rsa"), with(map[string]any{"iat": now.Unix() + 60})),
		"too long":             sign(t, p.rsa, head("RS256", "rsa"), with(map[string]any{"exp": now.Unix() + 30*3600})),
		"exp a text":           sign(t, p.rsa, head("RS256", "rsa"), with(map[string]any{"exp": "tomorrow"})),
		"no user":              sign(t, p.rsa, head("RS256", "rsa"), with(map[string]any{"sub": nil})),
		"user a number":        sign(t, p.rsa, head("RS256", "rsa"), with(map[string]any{"sub": 1})),
		"user too long":        sign(t, p.rsa, head("RS256", "rsa"), with(map[string]any{"sub": strings.Repeat("a", 250)})),
		"oversized":            sign(t, p.rsa, head("RS256", "rsa"), with(map[string]any{"x": strings.Repeat("a", MaxBytes)})),
		"dots":                 strings.Repeat(".", MaxBytes), "empty": "", "text": "alice",
	} {
		if got, err := v.Verify(text, now); err == nil {
			t.Errorf("%s: taken as %+v", name, got)
		}
	}
	if _, err := v.Verify(sign(t, own, head("RS256", "own"), good()), now); !errors.Is(err, ErrKey) {
		t.Errorf("an unknown key: %v", err)
	}
	v.Claim = "name"
	if got, err := v.Verify(sign(t, p.rsa, head("RS256", "rsa"), good()), now); err != nil || got.User != "Alice" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestParseKeys(t *testing.T) {
	p := newProvider()
	set := func(keys ...jose.JSONWebKey) []byte {
		b, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if keys, err := ParseKeys(set(p.keys("")...)); err != nil || len(keys) != 4 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	odd := strings.Replace(string(set(p.keys("ed")...)), `{"keys":[`, `{"keys":[{"kty":"new","kid":"n"},`, 1)
	if keys, err := ParseKeys([]byte(odd)); err != nil || len(keys) != 1 {
		t.Errorf("beside a kind that is not known: %d keys, %v", len(keys), err)
	}
	for name, text := range map[string][]byte{
		"nothing": nil, "a text": []byte(`"x"`), "none": set(), "secret": set(jose.JSONWebKey{Key: p.ed}),
		"symmetric": set(jose.JSONWebKey{Key: []byte("secret")}), "many": set(make([]jose.JSONWebKey, 0)...),
		"65": []byte(`{"keys":[` + strings.Repeat(`{},`, MaxKeys) + `{}]}`),
	} {
		if keys, err := ParseKeys(text); err == nil {
			t.Errorf("%s: %v", name, keys)
		}
	}
}

func FuzzVerify(f *testing.F) {
	p := newProvider()
	v := &Verifier{Issuer: "https://id.example", Audience: "kafka", MaxLifetime: time.Hour, Keys: p.keys}
	f.Add(sign(f, p.ed, map[string]any{"alg": "EdDSA", "kid": "other"}, good()))
	f.Add(sign(f, nil, map[string]any{"alg": "none"}, good()))
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := v.Verify(text, now); err == nil {
			t.Fatalf("%q is taken as %+v", text, got)
		}
		_, _ = ParseKeys([]byte(text))
	})
}
