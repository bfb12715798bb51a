package login

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/trimaran-io/trimaran/gateway/audit"
	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/jwt"
	"github.com/trimaran-io/trimaran/security/scram"
	"github.com/trimaran-io/trimaran/security/token"
)

// Who is a client that has logged in, and what that rests on.
type Who struct {
	Principal security.Principal
	Scope     security.Scope // nil: all that the principal may
	Mechanism string         // "" for who came with a principal
	Local     bool
	// Expires is when the token ends that it logged in by, Until when the session does; zero:
	// never.
	Expires, Until time.Time

	// Of a password: the mechanism whose credential was looked at, and its fingerprint.
	Kept, Print string
	// Of a token of the cluster's: its id, and the key that has signed it.
	Token, TokenKey string
	TokenFrom       time.Time
}

// Reasons; they go to the audit log.
var (
	errAuthz     = errors.New("one user wants to act as another")
	errUser      = errors.New("unknown user")
	errPassword  = errors.New("wrong password")
	errLimited   = errors.New("too many failed logins; not checked")
	errBusy      = errors.New("too many logins at once; not checked")
	errNoTokens  = errors.New("no tokens are taken here")
	errChanged   = errors.New("the user was changed or deleted")
	errHost      = errors.New("a ticket of another address")
	errClear     = errors.New("a password or token in clear")
	errSameAgain = errors.New("another principal or mechanism than before")
	errTooSoon   = errors.New("logged in again within a second")
)

// checkPatience is how long a login waits for its turn to be checked.
const checkPatience = 10 * time.Second

// password judges a user's password. Who is not known takes as long.
func (s *Server) password(ctx context.Context, host, user, password string) (Who, error) {
	if !s.limit.allows(host, user) {
		return Who{}, errLimited
	}
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	if s.checks.Acquire(ctx, 1) != nil {
		return Who{}, errBusy
	}
	defer s.checks.Release(1)
	// Others may have failed meanwhile: of many that came at once no more are checked than of many
	// that came one by one.
	if !s.limit.allows(host, user) {
		return Who{}, errLimited
	}
	for _, mechanism := range []string{security.ScramSHA256, security.ScramSHA512} {
		credential, ok := s.cfg.Credentials.Scram(user, mechanism)
		if !ok {
			continue
		}
		if !s.check(mechanism, password, credential) {
			return Who{}, errPassword
		}
		return Who{Principal: security.User(user), Kept: mechanism, Print: s.fingerprint(credential)}, nil
	}
	s.check(security.ScramSHA256, password, scram.Decoy(security.ScramSHA256, s.secretNow(), user))
	return Who{}, errUser
}

// fingerprint tells whether a credential is the same as it was. It is in tickets and tokens, so
// nobody without the cluster's secret can try passwords out on it.
func (s *Server) fingerprint(c security.ScramCredential) string {
	mac := hmac.New(sha256.New, s.secretNow())
	mac.Write([]byte("trimaran session\x00"))
	mac.Write(c.StoredKey)
	return hex.EncodeToString(mac.Sum(nil)[:8])
}

// token judges a token, of the cluster's own or of the identity provider's.
func (s *Server) token(ctx context.Context, host, text string) (Who, error) {
	if !s.limit.allows(host, "") {
		return Who{}, errLimited
	}
	now := time.Now()
	if s.cfg.Tokens != nil && token.Ours(s.cfg.ClusterID(), text) {
		c, err := token.Read(s.cfg.Tokens, s.cfg.ClusterID(), text, now)
		if err != nil {
			return Who{Principal: c.Principal}, err
		}
		who := Who{
			Principal: c.Principal, Scope: c.Scope, Expires: c.Expires, Kept: c.Kept, Print: c.Print,
			Token: c.ID, TokenKey: c.Key, TokenFrom: c.Issued,
		}
		return who, s.stands(who)
	}
	if s.cfg.OAuth == nil {
		return Who{}, errNoTokens
	}
	v, err := s.cfg.OAuth.Verify(text, now)
	if errors.Is(err, jwt.ErrKey) && s.cfg.Keys.Refresh(ctx) {
		v, err = s.cfg.OAuth.Verify(text, now)
	}
	if err != nil {
		return Who{}, err
	}
	return Who{Principal: security.User(v.User), Expires: v.Expires}, nil
}

// stands says why a session may not go on, nil while it may.
func (s *Server) stands(w Who) error {
	if w.Kept != "" {
		c, ok := s.cfg.Credentials.Scram(w.Principal.Name, w.Kept)
		if !ok || s.fingerprint(c) != w.Print {
			return errChanged
		}
	}
	if keys := s.cfg.Tokens; w.Token != "" && (keys == nil || keys.Revoked(w.Token, w.Principal, w.TokenFrom) || !keys.Known(w.TokenKey)) {
		return token.ErrRevoked
	}
	return nil
}

// session sets when a session ends that begins now.
func (s *Server) session(w *Who) {
	w.Until = w.Expires
	if end := time.Now().Add(s.cfg.MaxSession); s.cfg.MaxSession > 0 && (w.Until.IsZero() || end.Before(w.Until)) {
		w.Until = end
	}
}

// Bearer judges the token of a WebSocket's handshake.
func (s *Server) Bearer(ctx context.Context, facts Facts, text string) (*Who, error) {
	return s.handshake(ctx, facts, OAuthBearer, "", func() (Who, error) { return s.token(ctx, facts.Host, text) })
}

// Basic judges user and password of a WebSocket's handshake, as PLAIN does.
func (s *Server) Basic(ctx context.Context, facts Facts, user, password string) (*Who, error) {
	return s.handshake(ctx, facts, Plain, user, func() (Who, error) {
		if user == "" || len(user) > security.MaxName || len(password) > maxPassword {
			return Who{}, errMessage
		}
		return s.password(ctx, facts.Host, user, password)
	})
}

func (s *Server) handshake(ctx context.Context, facts Facts, mechanism, user string, check func() (Who, error)) (*Who, error) {
	began := time.Now()
	if !s.known(ctx) {
		return nil, ErrNotKnown
	}
	var who Who
	err := errNotOffered
	switch offered := s.offered(facts); {
	case contains(offered, mechanism):
		who, err = check()
	case contains(s.cfg.Mechanisms, mechanism):
		err = errClear
	}
	if err != nil {
		s.failed(facts.Host, user, mechanism, err)
		wait(ctx, began)
		return nil, err
	}
	who.Mechanism = mechanism
	s.session(&who)
	s.succeeded(facts.Host, who)
	return &who, nil
}

// Ticket makes a ticket by which the session may go on at another node, and says when it ends.
func (s *Server) Ticket(c *Conn) (string, time.Time, error) {
	who := c.who.Load()
	if who == nil || who.Mechanism == "" || s.cfg.Tokens == nil {
		return "", time.Time{}, errNotIssued
	}
	now := time.Now()
	expires := now.Add(token.TicketLifetime)
	text, err := token.Ticket(s.cfg.Tokens, s.cfg.ClusterID(), token.Claims{
		ID: token.NewID(), Principal: who.Principal, Issued: now, Expires: expires, Scope: who.Scope,
		Mechanism: who.Mechanism, Host: c.facts.Host, Session: who.Until, Kept: who.Kept, Print: who.Print,
		Token: who.Token, TokenKey: who.TokenKey, TokenFrom: who.TokenFrom, TokenEnds: who.Expires,
	})
	return text, expires, err
}

// FromTicket lets a session go on that has logged in at another node.
func (s *Server) FromTicket(ctx context.Context, facts Facts, text string) (*Who, error) {
	began := time.Now()
	if !s.known(ctx) {
		return nil, ErrNotKnown
	}
	who, err := s.ticket(facts, text)
	if err != nil {
		s.failed(facts.Host, "", "ticket", err)
		wait(ctx, began)
		return nil, err
	}
	s.metrics.logins.WithLabelValues("ticket", "ok").Inc()
	return &who, nil
}

func (s *Server) ticket(facts Facts, text string) (Who, error) {
	if s.cfg.Tokens == nil {
		return Who{}, errNoTokens
	}
	if !s.limit.allows(facts.Host, "") {
		return Who{}, errLimited
	}
	now := time.Now()
	c, err := token.ReadTicket(s.cfg.Tokens, s.cfg.ClusterID(), text, now)
	if err != nil {
		return Who{}, err
	}
	who := Who{
		Principal: c.Principal, Scope: c.Scope, Mechanism: c.Mechanism, Expires: c.TokenEnds, Until: c.Session,
		Kept: c.Kept, Print: c.Print, Token: c.Token, TokenKey: c.TokenKey, TokenFrom: c.TokenFrom,
	}
	switch {
	case c.Host != facts.Host:
		return Who{}, errHost
	case !who.Until.IsZero() && now.After(who.Until):
		return Who{}, errExpired
	case !contains(s.cfg.Mechanisms, c.Mechanism):
		return Who{}, errNotOffered
	}
	return who, s.stands(who)
}

// Token makes a token of the session's principal for others to use, and says when it ends.
func (s *Server) Token(c *Conn, scope security.Scope, lifetime time.Duration) (text, id string, expires time.Time, err error) {
	who := c.who.Load()
	if who == nil || who.Token != "" || who.Scope != nil || who.Local || s.cfg.Tokens == nil {
		return "", "", time.Time{}, errNotIssued
	}
	if err := scope.Check(); err != nil {
		return "", "", time.Time{}, fmt.Errorf("%w: %w", ErrScope, err)
	}
	if lifetime < time.Second || lifetime > token.MaxLifetime {
		return "", "", time.Time{}, fmt.Errorf("%w: it lasts from a second to %v", ErrScope, token.MaxLifetime)
	}
	now := time.Now()
	expires = now.Add(lifetime)
	if !who.Expires.IsZero() && who.Expires.Before(expires) {
		expires = who.Expires // what was lent does not last longer by lending it on
	}
	id = token.NewID()
	text, err = token.Sign(s.cfg.Tokens, s.cfg.ClusterID(), token.Claims{
		ID: id, Principal: who.Principal, Issued: now, Expires: expires, Scope: scope,
		Kept: who.Kept, Print: who.Print, // whoever changes the password takes the token back
	})
	if err == nil {
		s.cfg.Audit.Note("token issued", audit.Event{
			Who: who.Principal.String(), From: c.facts.Host, What: "Token", Why: "asked for",
			More: []any{"token", id, "expires", expires.UTC().Format(time.RFC3339)},
		})
	}
	return text, id, expires, err
}

// failed counts and writes down a login that failed. user is what the client claimed.
func (s *Server) failed(host, user, mechanism string, why error) {
	result := "failed"
	switch {
	case errors.Is(why, errLimited), errors.Is(why, errBusy):
		result = "not checked"
	default:
		s.limit.failed(host, user)
	}
	s.metrics.logins.WithLabelValues(mechanism, result).Inc()
	who := ""
	if user != "" {
		who = security.User(user).String()
	}
	s.cfg.Audit.Denied(audit.Event{Who: who, From: host, What: "login", Why: why.Error(), More: []any{"mechanism", mechanism}})
}

func (s *Server) succeeded(host string, w Who) {
	s.limit.succeeded(host, w.Principal.Name)
	s.metrics.logins.WithLabelValues(w.Mechanism, "ok").Inc()
}

// wait returns when a login that began then and failed may be answered.
func wait(ctx context.Context, began time.Time) {
	timer := time.NewTimer(time.Until(began.Add(FailureDelay)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
