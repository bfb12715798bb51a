package jwt

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/trimaran-io/trimaran/security"
)

// Bounds.
const (
	MaxBytes = 16 << 10 // of a token
	MaxKeys  = 64       // of a set
	leastRSA = 2048     // bits
)

// algorithms are those that are taken. None of them is symmetric: a public key is no secret.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.EdDSA,
}

// Errors of tokens. They go to the log; the client is told the same of all.
var (
	ErrKey    = errors.New("the token's key is not known")
	errToken  = errors.New("the token cannot be read")
	errClaims = errors.New("the token's claims")
)

// Verifier judges tokens. Issuer, Audience and Keys are required.
type Verifier struct {
	Issuer, Audience string
	// Claim is the one that has the user's name; "" means sub.
	Claim string
	// Skew is by how much clocks may differ.
	Skew time.Duration
	// MaxLifetime bounds the time from iat to exp.
	MaxLifetime time.Duration
	// Keys are those that are known by an id at this moment; id "" means all.
	Keys func(id string) []jose.JSONWebKey
}

// Verified is what a token says that is taken.
type Verified struct {
	User    string
	Expires time.Time
}

// Verify judges a token at that time. The error is ErrKey where another set of keys may change it.
func (v *Verifier) Verify(text string, now time.Time) (Verified, error) {
	if len(text) > MaxBytes {
		return Verified{}, fmt.Errorf("%w: %d bytes, at most %d", errToken, len(text), MaxBytes)
	}
	parsed, err := jwt.ParseSigned(text, algorithms)
	if err != nil || len(parsed.Headers) != 1 {
		return Verified{}, fmt.Errorf("%w: not signed as it must be", errToken)
	}
	head := parsed.Headers[0]
	var standard jwt.Claims
	more := map[string]any{}
	found := false
	for _, key := range v.Keys(head.KeyID) {
		if usable(key, jose.SignatureAlgorithm(head.Algorithm)) && parsed.Claims(key.Key, &standard, &more) == nil {
			found = true
			break
		}
	}
	if !found {
		return Verified{}, ErrKey
	}
	if standard.Expiry == nil || standard.IssuedAt == nil {
		return Verified{}, fmt.Errorf("%w: exp and iat are required", errClaims)
	}
	expected := jwt.Expected{Issuer: v.Issuer, AnyAudience: jwt.Audience{v.Audience}, Time: now}
	if err := standard.ValidateWithLeeway(expected, v.Skew); err != nil {
		return Verified{}, fmt.Errorf("%w: %w", errClaims, err)
	}
	expires := standard.Expiry.Time()
	if life := expires.Sub(standard.IssuedAt.Time()); life <= 0 || life > v.MaxLifetime {
		return Verified{}, fmt.Errorf("%w: it lasts %v, at most %v", errClaims, life, v.MaxLifetime)
	}
	claim := v.Claim
	if claim == "" {
		claim = "sub"
	}
	user, _ := more[claim].(string)
	if user == "" || len(user) > security.MaxName {
		return Verified{}, fmt.Errorf("%w: no name in %s", errClaims, claim)
	}
	return Verified{User: user, Expires: expires}, nil
}

// usable reports whether a key may verify what is signed with that algorithm.
func usable(key jose.JSONWebKey, algorithm jose.SignatureAlgorithm) bool {
	if key.Use != "" && key.Use != "sig" || key.Algorithm != "" && key.Algorithm != string(algorithm) {
		return false
	}
	switch public := key.Key.(type) {
	case *rsa.PublicKey:
		rsaAlgorithm := algorithm[0] == 'R' || algorithm[0] == 'P'
		return rsaAlgorithm && public.N.BitLen() >= leastRSA
	case *ecdsa.PublicKey:
		size := public.Curve.Params().BitSize
		return algorithm == jose.ES256 && size == 256 || algorithm == jose.ES384 && size == 384
	case ed25519.PublicKey:
		return algorithm == jose.EdDSA
	}
	return false
}

// ParseKeys reads a set of keys (JWKS, RFC 7517, section 5). Keys of kinds that are not known are
// passed over, as the standard has it; secret halves and symmetric keys are refused.
func ParseKeys(text []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("not a set of keys (JWKS): %w", err)
	}
	if len(set.Keys) > MaxKeys {
		return nil, fmt.Errorf("a set of %d keys, at most %d", len(set.Keys), MaxKeys)
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(raw) != nil {
			continue
		}
		if !key.IsPublic() {
			return nil, errors.New("the set of keys has one that is not public")
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no key in the set that is known here")
	}
	return keys, nil
}
