package token

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/trimaran-io/trimaran/security"
)

// Keys are those that the cluster signs with, and what it has taken back, as a node knows them at
// this moment. The catalog has them; nobody waits here.
type Keys interface {
	// Signer is the key that signs now. ok is false while there is none.
	Signer() (id string, key ed25519.PrivateKey, ok bool)
	// Verifier is the public half of a key that signed what may still be valid.
	Verifier(id string) (ed25519.PublicKey, bool)
	// Known reports whether Verifier has that key.
	Known(id string) bool
	// Revoked reports whether a token was taken back: by its id, or with all that the principal
	// issued at that time or earlier.
	Revoked(id string, principal security.Principal, issued time.Time) bool
}

// Lifetimes.
const (
	MaxLifetime    = 24 * time.Hour
	TicketLifetime = time.Minute
	// TicketRenewal is how often who holds a ticket should ask for another one.
	TicketRenewal = 20 * time.Second
	// Skew is by how much clocks of nodes may differ.
	Skew = 10 * time.Second
)

// MaxBytes bounds a token.
const MaxBytes = 16 << 10

// What a JWT is for (aud, RFC 7519, section 4.1.3), so that none passes for another.
const (
	forClients = "trimaran"
	forShims   = "trimaran session"
)

// Issuer is who signs in a cluster (iss).
func Issuer(clusterID string) string { return "trimaran:" + clusterID }

// Claims are what is signed.
type Claims struct {
	ID        string
	Principal security.Principal
	Key       string // id of the key that has signed them; Sign sets it
	Issued    time.Time
	Expires   time.Time
	// Scope is that of a token; of a ticket it is that of the session, which may have none.
	Scope security.Scope

	// The mechanism whose credential the session rests on, or the one that issued the token, and
	// that credential's fingerprint; "" for none.
	Kept, Print string

	// Of a ticket:
	Mechanism string    // that the session was logged in by
	Host      string    // that it comes from
	Session   time.Time // when the session ends; zero: not by itself
	Token     string    // id of the token that it was logged in by, "" for none
	TokenFrom time.Time // when that was issued
	TokenKey  string    // that has signed it
	TokenEnds time.Time // when the token ends that it was logged in by; zero: there was none
}

type wire struct {
	jwt.Claims
	Scope     security.Scope   `json:"scope,omitempty"`
	Mechanism string           `json:"mech,omitempty"`
	Host      string           `json:"host,omitempty"`
	Session   *jwt.NumericDate `json:"end,omitempty"`
	Token     string           `json:"tok,omitempty"`
	TokenFrom *jwt.NumericDate `json:"toki,omitempty"`
	TokenKey  string           `json:"tokk,omitempty"`
	TokenEnds *jwt.NumericDate `json:"toke,omitempty"`
	Kept      string           `json:"kept,omitempty"`
	Print     string           `json:"print,omitempty"`
}

// Errors of tokens. They go to the log.
var (
	ErrNoKey   = errors.New("the cluster has no key to sign with")
	ErrRevoked = errors.New("the token was revoked")
	errToken   = errors.New("not a token of this cluster")
)

// NewID makes the id of a token.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// IsID says whether s may be the id of a token.
func IsID(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 16 && strings.ToLower(s) == s
}

// Sign makes a token of claims, Ticket a ticket. The claims must have an id, and must expire.
func Sign(keys Keys, clusterID string, c Claims) (string, error) {
	return sign(keys, clusterID, forClients, c)
}

// Ticket is Sign for tickets.
func Ticket(keys Keys, clusterID string, c Claims) (string, error) {
	return sign(keys, clusterID, forShims, c)
}

func sign(keys Keys, clusterID, purpose string, c Claims) (string, error) {
	id, key, ok := keys.Signer()
	if !ok {
		return "", ErrNoKey
	}
	options := new(jose.SignerOptions).WithType("JWT").WithHeader("kid", id)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: key}, options)
	if err != nil {
		return "", err
	}
	w := wire{
		Claims: jwt.Claims{
			Issuer: Issuer(clusterID), Subject: c.Principal.String(), Audience: jwt.Audience{purpose}, ID: c.ID,
			IssuedAt: jwt.NewNumericDate(c.Issued), Expiry: jwt.NewNumericDate(c.Expires),
		},
		Scope: c.Scope, Mechanism: c.Mechanism, Host: c.Host, Token: c.Token, TokenKey: c.TokenKey, Kept: c.Kept, Print: c.Print,
		Session: date(c.Session), TokenFrom: date(c.TokenFrom), TokenEnds: date(c.TokenEnds),
	}
	return jwt.Signed(signer).Claims(w).Serialize()
}

// Read takes a token of the cluster, ReadTicket a ticket: signed, for this purpose, of now and not
// revoked.
func Read(keys Keys, clusterID, text string, now time.Time) (Claims, error) {
	c, err := read(keys, clusterID, forClients, MaxLifetime, text, now)
	if err == nil && c.Scope.Check() != nil {
		err = fmt.Errorf("%w: its scope", errToken)
	}
	return c, err
}

// ReadTicket is Read for tickets.
func ReadTicket(keys Keys, clusterID, text string, now time.Time) (Claims, error) {
	return read(keys, clusterID, forShims, TicketLifetime, text, now)
}

func read(keys Keys, clusterID, purpose string, longest time.Duration, text string, now time.Time) (Claims, error) {
	if len(text) > MaxBytes {
		return Claims{}, fmt.Errorf("%w: %d bytes", errToken, len(text))
	}
	parsed, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil || len(parsed.Headers) != 1 {
		return Claims{}, fmt.Errorf("%w: it cannot be read", errToken)
	}
	key, ok := keys.Verifier(parsed.Headers[0].KeyID)
	if !ok {
		return Claims{}, fmt.Errorf("%w: an unknown key", errToken)
	}
	var w wire
	if err := parsed.Claims(key, &w); err != nil {
		return Claims{}, fmt.Errorf("%w: its signature", errToken)
	}
	if w.Expiry == nil || w.IssuedAt == nil || w.ID == "" {
		return Claims{}, fmt.Errorf("%w: without exp, iat or jti", errToken)
	}
	expected := jwt.Expected{Issuer: Issuer(clusterID), AnyAudience: jwt.Audience{purpose}, Time: now}
	if err := w.ValidateWithLeeway(expected, Skew); err != nil {
		return Claims{}, fmt.Errorf("%w: %w", errToken, err)
	}
	if w.Expiry.Time().Sub(w.IssuedAt.Time()) > longest {
		return Claims{}, fmt.Errorf("%w: it lasts too long", errToken)
	}
	principal, err := security.ParsePrincipal(w.Subject)
	if err != nil {
		return Claims{}, fmt.Errorf("%w: %w", errToken, err)
	}
	c := Claims{
		ID: w.ID, Principal: principal, Key: parsed.Headers[0].KeyID, Issued: w.IssuedAt.Time(), Expires: w.Expiry.Time(), Scope: w.Scope,
		Mechanism: w.Mechanism, Host: w.Host, Token: w.Token, TokenKey: w.TokenKey, Kept: w.Kept, Print: w.Print,
		Session: timeOf(w.Session), TokenFrom: timeOf(w.TokenFrom), TokenEnds: timeOf(w.TokenEnds),
	}
	id, signer, issued := c.ID, c.Key, c.Issued
	if purpose == forShims {
		// What is revoked are tokens: a ticket is as good as that of its session, if it has one.
		id, signer, issued = c.Token, c.TokenKey, c.TokenFrom
	}
	if id != "" && (keys.Revoked(id, c.Principal, issued) || !keys.Known(signer)) {
		return Claims{}, ErrRevoked
	}
	return c, nil
}

func date(t time.Time) *jwt.NumericDate {
	if t.IsZero() {
		return nil
	}
	return jwt.NewNumericDate(t)
}

func timeOf(d *jwt.NumericDate) time.Time {
	if d == nil {
		return time.Time{}
	}
	return d.Time()
}

// Ours reports whether a JWT says that this cluster has signed it, which it still has to prove.
func Ours(clusterID, text string) bool {
	if len(text) > MaxBytes || strings.Count(text, ".") != 2 {
		return false
	}
	parsed, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return false
	}
	var c jwt.Claims
	return parsed.UnsafeClaimsWithoutVerification(&c) == nil && c.Issuer == Issuer(clusterID)
}
