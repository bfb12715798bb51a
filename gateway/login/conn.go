package login

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/trimaran-io/trimaran/gateway/audit"
	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/scram"
)

// Kafka's error codes and API keys that a login has to know (Kafka protocol guide).
const (
	codeUnsupported   = 33
	codeIllegalState  = 34
	codeFailed        = 58
	keySaslHandshake  = 17
	keyApiVersions    = 18
	keyAuthenticate   = 36
	leastBetween      = time.Second // two logins on one connection
	invalidTokenReply = `{"status":"invalid_token"}`
)

// Errors of requests; some end their connection.
var (
	ErrNotLoggedIn = errors.New("a client that has not logged in asks for something else")
	ErrScope       = errors.New("no such token can be issued")
	errNotOffered  = errors.New("the mechanism is not offered here")
	errNotIssued   = errors.New("this session is issued no tokens")
	errExpired     = errors.New("the session has expired")
	errFailed      = errors.New("the login failed")
	errState       = errors.New("a SASL message out of its turn")
	errMany        = errors.New("too many requests before the login")
	// ErrNotKnown: this node has just started and does not know the users and keys yet. Nothing is
	// said to the client, who would take a failure for final.
	ErrNotKnown = errors.New("this node does not know yet who may log in")
)

// Facts are what is known of a connection before it says anything.
type Facts struct {
	Host string // the client's address, without a port
	// Clear: what is sent may be read on the way.
	Clear bool
	// Who came with the connection, by a certificate, a header of its handshake or the Unix socket;
	// nil: nobody that is known.
	Who *Who
	// Proven is called when it is known who the client is, End when its session must end, whatever
	// the client does. Cut closes the connection at once.
	Proven, End, Cut func()
}

// Answer is what is told to a SASL request.
type Answer struct {
	Code       int16
	Mechanisms []string // of a handshake
	Bytes      []byte
	Lifetime   time.Duration // of the session, 0: without end
	// End is why the connection ends after this answer, nil if it does not; Silent: in its place.
	End    error
	Silent bool
}

// Conn is what is known of one connection. Its reader calls the methods; Identity may be called by
// anybody.
type Conn struct {
	server *Server
	facts  Facts
	who    atomic.Pointer[Who]

	requests  int    // before the login
	mechanism string // that was agreed on; "": none, or the exchange is over
	raw       bool   // what comes next is a message of the mechanism's without a header
	scram     *scram.Server
	invalid   error     // of OAUTHBEARER: what the client is told when it has heard it
	claimed   string    // who the client says that it is
	began     time.Time // of the last login that was right
}

// Conn begins a connection. Leave has to be called at its end.
func (s *Server) Conn(facts Facts) *Conn {
	c := &Conn{server: s, facts: facts}
	if facts.Who != nil {
		c.who.Store(facts.Who)
		s.enter(c)
		facts.Proven()
	}
	return c
}

// Leave: the connection is over.
func (c *Conn) Leave() { c.server.leave(c) }

// Identity is who the client is at this moment.
func (c *Conn) Identity() security.Identity {
	if who := c.who.Load(); who != nil {
		return *IdentityOf(*who, c.facts.Host)
	}
	return security.Identity{Principal: security.Anonymous, Host: c.facts.Host}
}

// IdentityOf is who that is at a host.
func IdentityOf(who Who, host string) *security.Identity {
	return &security.Identity{Principal: who.Principal, Host: host, Scope: who.Scope, Local: who.Local}
}

// LoggedIn reports whether it is known who the client is, or need not be.
func (c *Conn) LoggedIn() bool { return c.who.Load() != nil || !c.server.cfg.Required }

// Raw reports whether the next frame is a message of the mechanism's (SaslHandshake version 0).
func (c *Conn) Raw() bool { return c.raw }

// Admit says why a request of that API may not be worked on, and its connection ends.
func (c *Conn) Admit(key int16) error {
	sasl := key == keyApiVersions || key == keySaslHandshake || key == keyAuthenticate
	who := c.who.Load()
	switch {
	case who != nil && !sasl && !who.Until.IsZero() && time.Now().After(who.Until):
		c.server.metrics.ended.Inc()
		return errExpired
	case c.LoggedIn():
		return nil
	case !sasl:
		c.server.cfg.Audit.Denied(audit.Event{From: c.facts.Host, What: "request", Why: ErrNotLoggedIn.Error(), More: []any{"api", key}})
		return ErrNotLoggedIn
	}
	if c.requests++; c.requests > MaxRequests {
		return errMany
	}
	return nil
}

// offered are the mechanisms that the client may choose from: no secret is asked for where others
// can read it.
func (s *Server) offered(facts Facts) []string {
	return slices.DeleteFunc(slices.Clone(s.cfg.Mechanisms), func(m string) bool {
		return facts.Clear && (m == Plain || m == OAuthBearer)
	})
}

func contains(all []string, one string) bool { return slices.Contains(all, one) }

// Handshake answers SaslHandshake.
func (c *Conn) Handshake(version int16, mechanism string) Answer {
	offered := c.server.offered(c.facts)
	who := c.who.Load()
	again := who != nil && who.Mechanism != ""
	known := contains(c.server.cfg.Mechanisms, mechanism)
	if !known {
		mechanism = "other" // what a client makes up is no metric's label
	}
	switch {
	case c.mechanism != "" || again && version == 0:
		return c.refuse(codeIllegalState, mechanism, errState)
	case !known:
		a := c.refuse(codeUnsupported, mechanism, errNotOffered)
		a.Mechanisms = offered
		return a
	case !contains(offered, mechanism):
		a := c.refuse(codeUnsupported, mechanism, errClear)
		a.Mechanisms = offered
		return a
	case again && who.Mechanism != mechanism:
		return c.refuse(codeFailed, mechanism, errSameAgain)
	}
	c.mechanism, c.raw, c.scram, c.invalid, c.claimed = mechanism, version == 0, nil, nil, ""
	return Answer{Mechanisms: offered}
}

// refuse ends the connection after an answer. Nothing was checked.
func (c *Conn) refuse(code int16, mechanism string, why error) Answer {
	c.server.failed(c.facts.Host, c.claimed, mechanism, why)
	c.mechanism, c.raw = "", false
	return Answer{Code: code, Mechanisms: []string{}, End: errFailed}
}

// Authenticate answers a message of the mechanism's, in SaslAuthenticate or raw. It takes as long
// as checking a password does; a failure is answered after FailureDelay. ctx ends with the
// connection.
func (c *Conn) Authenticate(ctx context.Context, message []byte) Answer {
	began := time.Now()
	mechanism := c.mechanism
	if mechanism == "" {
		return c.refuse(codeIllegalState, "none", errState)
	}
	if !c.server.known(ctx) {
		return Answer{End: ErrNotKnown, Silent: true}
	}
	answer, who, err := c.step(ctx, mechanism, message)
	if err == nil && who == nil {
		return Answer{Bytes: answer}
	}
	if err == nil {
		who.Mechanism = mechanism
		err = c.become(who)
	}
	if err != nil {
		a := c.refuse(codeFailed, mechanism, err)
		wait(ctx, began)
		return a
	}
	c.mechanism, c.raw, c.scram = "", false, nil
	a := Answer{Bytes: answer}
	if !who.Until.IsZero() {
		a.Lifetime = max(time.Until(who.Until), time.Millisecond)
	}
	return a
}

// step takes the next message. who is not nil when the client has proved who it is.
func (c *Conn) step(ctx context.Context, mechanism string, message []byte) (answer []byte, who *Who, err error) {
	switch mechanism {
	case Plain:
		user, password, err := parsePlain(message)
		c.claimed = user
		if err != nil {
			return nil, nil, err
		}
		w, err := c.server.password(ctx, c.facts.Host, user, password)
		return []byte{}, &w, err
	case OAuthBearer:
		return c.bearer(ctx, message)
	}
	if c.scram == nil {
		c.scram = scram.NewServer(mechanism, c.server.secretNow(), func(user string) (security.ScramCredential, bool) {
			return c.server.cfg.Credentials.Scram(user, mechanism)
		})
	}
	answer, done, err := c.scram.Step(message)
	c.claimed = c.scram.User()
	switch {
	case err != nil:
		return nil, nil, err
	case !c.server.limit.allows(c.facts.Host, c.claimed):
		return nil, nil, errLimited
	case !done:
		return answer, nil, nil
	}
	return answer, &Who{Principal: security.User(c.claimed), Kept: mechanism, Print: c.server.fingerprint(c.scram.Credential())}, nil
}

// bearer takes OAUTHBEARER's message. A token that is not taken is told so in its own words, and
// only the client's answer to that, whatever it is, gets Kafka's error (KIP-255).
func (c *Conn) bearer(ctx context.Context, message []byte) ([]byte, *Who, error) {
	if c.invalid != nil {
		return nil, nil, c.invalid
	}
	text, authz, err := parseBearer(message)
	if err != nil {
		return nil, nil, err
	}
	w, err := c.server.token(ctx, c.facts.Host, text)
	if err == nil && authz != "" && authz != w.Principal.Name {
		c.claimed, err = w.Principal.Name, errAuthz
	}
	if err != nil {
		c.invalid = err
		return []byte(invalidTokenReply), nil, nil
	}
	return []byte{}, &w, nil
}

// become makes the connection that of who.
func (c *Conn) become(who *Who) error {
	before := c.who.Load()
	if before != nil && before.Mechanism != "" {
		switch {
		case before.Principal != who.Principal || before.Mechanism != who.Mechanism:
			return errSameAgain
		case time.Since(c.began) < leastBetween:
			return errTooSoon
		}
	}
	c.server.session(who)
	c.began = time.Now()
	c.who.Store(who)
	c.server.enter(c)
	c.server.succeeded(c.facts.Host, *who)
	c.facts.Proven()
	return nil
}
