package gateway

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/gateway/audit"
	"github.com/trimaran-io/trimaran/gateway/login"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/acl"
	"github.com/trimaran-io/trimaran/security/token"
)

// Token, version 0: Trimaran's own, for `trimaran token` and for shims, and like Status not listed
// by ApiVersions.
//
// The request has header version 1 and the JSON of TokenRequest. The response is as that of Status,
// with the JSON of TokenAnswer, whose error is empty if it was done. Who has logged in by a token
// is issued none. What is about all tokens of the cluster needs a right to the cluster.

// TokenKey is the API key of Token.
const TokenKey = StatusKey + 3

// maxTokenRequest is room for security.MaxGrants grants with long names.
const maxTokenRequest = 60 << 10

// What a Token request may ask for.
const (
	TokenKind  = "token"  // one to be used by others, within a scope
	TicketKind = "ticket" // with which a shim goes on at another gateway

	RevokeKind     = "revoke"      // take tokens back
	ListKind       = "list"        // what was taken back
	ListKeysKind   = "list-keys"   // the keys that tokens are signed with, without what is secret
	RotateKeysKind = "rotate-keys" // sign with another key
)

// TokenRequest asks for a token, or for a ticket, or to do something about them.
type TokenRequest struct {
	Kind string `json:"kind"`
	// Of a token: what it may be used for, and for how long.
	Scope      security.Scope `json:"scope,omitempty"`
	LifetimeMs int64          `json:"lifetime_ms,omitempty"`
	// What to revoke: tokens by their ids, or all that a principal has issued until now.
	IDs       []string `json:"ids,omitempty"`
	Principal string   `json:"principal,omitempty"`
	// AtOnce removes all older keys, and with them every token that is about. Without it they stay
	// until nobody can have a token that they signed.
	AtOnce bool `json:"at_once,omitempty"`
}

// TokenAnswer has it. Times are in milliseconds since 1970.
type TokenAnswer struct {
	Token     string         `json:"token,omitempty"`
	ID        string         `json:"id,omitempty"` // it is revoked by this; a ticket has none
	ExpiresMs int64          `json:"expires_ms,omitempty"`
	Revoked   []RevokedToken `json:"revoked,omitempty"`
	Keys      []TokenKeyInfo `json:"keys,omitempty"` // the oldest first
	Error     string         `json:"error,omitempty"`
}

// RevokedToken is a token that was taken back, or all of a principal's that were issued up to a
// time.
type RevokedToken struct {
	ID        string `json:"id,omitempty"`
	Principal string `json:"principal,omitempty"`
	BeforeMs  int64  `json:"before_ms,omitempty"`
	UntilMs   int64  `json:"until_ms"` // when that is forgotten: nobody has such a token any more
}

// TokenKeyInfo is a key that tokens are signed with. The newest signs.
type TokenKeyInfo struct {
	ID        string `json:"id"`
	CreatedMs int64  `json:"created_ms"`
	Signs     bool   `json:"signs"`
}

// serveTokenRequest answers. An error ends the connection.
func (r *request) serveTokenRequest(body []byte) error {
	r.name = "Token"
	var asked TokenRequest
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if r.header.Version != 0 || len(body) > maxTokenRequest || d.Decode(&asked) != nil || d.More() {
		err := fmt.Errorf("%w: Token version %d with %d bytes", kafkaproto.ErrNotServed, r.header.Version, len(body))
		r.hangUp(err)
		return err
	}
	r.background(func() {
		switch asked.Kind {
		case RevokeKind, RotateKeysKind, ListKind, ListKeysKind:
			r.manageTokens(asked)
		default:
			r.answerJSON(TokenKey, r.conn.token(asked), nil)
		}
	})
	return nil
}

// manageTokens does what is about all tokens of the cluster.
func (r *request) manageTokens(asked TokenRequest) {
	op := acl.Alter
	if asked.Kind == ListKind || asked.Kind == ListKeysKind {
		op = acl.Describe
	}
	if !r.caller.everything() && !r.may(op, acl.Cluster, acl.ClusterName) {
		r.answerJSON(TokenKey, nil, errClusterDenied)
		return
	}
	now := time.Now()
	alter, err := alterTokens(asked, r.conn.server.catalog.Topics().Security().TokenKeys(), now)
	if err == nil && op == acl.Alter {
		err = r.admin(alterTimeoutMillis, 1, func(ctx context.Context, _ int) error {
			return r.conn.server.changes.AlterTokens(ctx, alter)
		})[0]
	}
	var answer TokenAnswer
	known := r.conn.server.catalog.Topics().Security()
	switch {
	case err != nil:
		answer.Error = message(err)
	case asked.Kind == RevokeKind:
		answer.Revoked = revokedTokens(alter.Revoke, now)
	case asked.Kind == ListKind:
		answer.Revoked = revokedTokens(known.Revoked(), now)
	default:
		for i, k := range known.TokenKeys() {
			answer.Keys = append(answer.Keys, TokenKeyInfo{ID: k.ID, CreatedMs: k.Created, Signs: i == len(known.TokenKeys())-1})
		}
	}
	if err == nil && op == acl.Alter {
		id := r.conn.identity()
		r.conn.server.cfg.Audit.Note("tokens altered", audit.Event{
			Who: id.Principal.String(), From: id.Host, What: "Token", Why: asked.Kind,
			More: []any{"ids", shownToLog(strings.Join(asked.IDs, " ")), "principal", shownToLog(asked.Principal), "at_once", asked.AtOnce},
		})
	}
	r.answerJSON(TokenKey, answer, nil)
}

// mostIDs bounds the tokens that one request revokes.
const mostIDs = 1000

// alterTokens gives the change to the catalog that is asked for.
func alterTokens(asked TokenRequest, keys []fsm.TokenKey, now time.Time) (alter fsm.AlterTokens, err error) {
	alter.Now = now.UnixMilli()
	// Clocks of nodes differ, and a second is the unit of what is in tokens.
	until := now.Add(token.MaxLifetime + 2*token.Skew).UnixMilli()
	switch asked.Kind {
	case RevokeKind:
		if (len(asked.IDs) == 0) == (asked.Principal == "") || len(asked.IDs) > mostIDs {
			return alter, fmt.Errorf("%w: want 1 to %d ids of tokens, or a principal", errInvalidRequest, mostIDs)
		}
		if asked.Principal != "" {
			p, err := security.ParsePrincipal(asked.Principal)
			if err != nil {
				return alter, fmt.Errorf("%w: %w", errInvalidRequest, err)
			}
			before := now.Add(token.Skew).UnixMilli() // issued where a clock is ahead
			alter.Revoke = []fsm.Revocation{{Principal: p.String(), Before: before, Until: until}}
		}
		for _, id := range asked.IDs {
			if !token.IsID(id) {
				return alter, fmt.Errorf("%w: ids of tokens have 32 digits of hexadecimal numbers", errInvalidRequest)
			}
			alter.Revoke = append(alter.Revoke, fsm.Revocation{Token: id, Until: until})
		}
	case RotateKeysKind:
		seed := make([]byte, ed25519.SeedSize)
		_, _ = rand.Read(seed) // never fails (crypto/rand)
		alter.AddKeys = []fsm.TokenKey{{ID: token.NewID(), Seed: seed, Created: now.UnixMilli()}}
		for i, k := range keys {
			// It has signed until the next one came.
			if asked.AtOnce || i+1 < len(keys) && now.Sub(time.UnixMilli(keys[i+1].Created)) > token.MaxLifetime+2*token.Skew {
				alter.RemoveKeys = append(alter.RemoveKeys, k.ID)
			}
		}
	}
	return alter, nil
}

func revokedTokens(list []fsm.Revocation, now time.Time) []RevokedToken {
	out := []RevokedToken{}
	for _, r := range list {
		if r.Until >= now.UnixMilli() {
			out = append(out, RevokedToken{ID: r.Token, Principal: r.Principal, BeforeMs: r.Before, UntilMs: r.Until})
		}
	}
	return out
}

func (c *connection) token(asked TokenRequest) (answer TokenAnswer) {
	var expires time.Time
	var err error
	switch asked.Kind {
	case TicketKind:
		answer.Token, expires, err = c.server.login.Ticket(c.login)
	case TokenKind:
		lifetime := time.Duration(min(asked.LifetimeMs, 1<<40)) * time.Millisecond
		answer.Token, answer.ID, expires, err = c.server.login.Token(c.login, asked.Scope, lifetime)
	default:
		err = errors.New("unknown kind of request about tokens")
	}
	if err != nil {
		id := c.identity()
		if !errors.Is(err, login.ErrScope) {
			c.server.cfg.Audit.Denied(audit.Event{Who: id.Principal.String(), From: id.Host, What: "Token", Why: err.Error()})
		}
		return TokenAnswer{Error: err.Error()}
	}
	answer.ExpiresMs = expires.UnixMilli()
	return answer
}
