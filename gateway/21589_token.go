package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/trimaran-io/trimaran/gateway/audit"
	"github.com/trimaran-io/trimaran/gateway/login"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/security"
)

// Token, version 0: Trimaran's own, for `trimaran token` and for shims, and like Status not listed
// by ApiVersions.
//
// The request has header version 1 and the JSON of TokenRequest. The response is as that of Status,
// with the JSON of TokenAnswer, whose error is empty if there is a token. Who has logged in by a
// token is issued none.

// TokenKey is the API key of Token.
const TokenKey = StatusKey + 3

// maxTokenRequest is room for security.MaxGrants grants with long names.
const maxTokenRequest = 60 << 10

// What a Token request may ask for.
const (
	TokenKind  = "token"  // to be used by others, within a scope
	TicketKind = "ticket" // with which a shim goes on at another gateway
)

// TokenRequest asks for a token, or for a ticket.
type TokenRequest struct {
	Kind string `json:"kind"`
	// Of a token: what it may be used for, and for how long.
	Scope      security.Scope `json:"scope,omitempty"`
	LifetimeMs int64          `json:"lifetime_ms,omitempty"`
}

// TokenAnswer has it.
type TokenAnswer struct {
	Token string `json:"token,omitempty"`
	ID    string `json:"id,omitempty"` // by which it is revoked; a ticket has none that is told
	// ExpiresMs is in milliseconds since 1970.
	ExpiresMs int64  `json:"expires_ms,omitempty"`
	Error     string `json:"error,omitempty"`
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
	r.background(func() { r.answerJSON(TokenKey, r.conn.token(asked), nil) })
	return nil
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
		err = errors.New("there are tokens and tickets")
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
