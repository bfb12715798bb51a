package gateway

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	kscram "github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/trimaran-io/trimaran/gateway/audit"
	"github.com/trimaran-io/trimaran/gateway/login"
	"github.com/trimaran-io/trimaran/gateway/shim"
	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/scram"
	"github.com/trimaran-io/trimaran/security/token"
)

// users are credentials of a test, by user and mechanism.
type users struct {
	mu   sync.Mutex
	kept map[[2]string]security.ScramCredential
}

func (u *users) Scram(user, mechanism string) (security.ScramCredential, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c, ok := u.kept[[2]string{user, mechanism}]
	return c, ok
}

func (u *users) set(t testing.TB, user, password string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, mechanism := range []string{security.ScramSHA256, security.ScramSHA512} {
		salt := []byte("salt of " + user)
		salted, err := scram.Salted(mechanism, password, salt, 4096)
		if err != nil {
			t.Fatal(err)
		}
		stored, server := scram.Keys(mechanism, salted)
		u.kept[[2]string{user, mechanism}] = security.ScramCredential{Salt: salt, StoredKey: stored, ServerKey: server, Iterations: 4096}
	}
}

func (u *users) drop(user string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for key := range u.kept {
		if key[0] == user {
			delete(u.kept, key)
		}
	}
}

// signing are the cluster's keys of a test.
type signing struct {
	mu      sync.Mutex
	revoked map[string]bool
}

var signingKey = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

func (s *signing) Signer() (string, ed25519.PrivateKey, bool) { return "k1", signingKey, true }
func (s *signing) Verifier(id string) (ed25519.PublicKey, bool) {
	return signingKey.Public().(ed25519.PublicKey), id == "k1"
}
func (s *signing) Known(id string) bool { return id == "k1" }
func (s *signing) Revoked(id string, _ security.Principal, _ time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revoked[id]
}
func (s *signing) revoke(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revoked[id] = true
}

const hardPassword = "pä§§=,wörd"

// secured is a gateway that wants its clients to log in.
type secured struct {
	*gatewayOf
	users *users
	keys  *signing
	audit *logBuffer
}

func serveSecured(t testing.TB, change func(*Config)) *secured {
	s := &secured{users: &users{kept: map[[2]string]security.ScramCredential{}}, keys: &signing{revoked: map[string]bool{}}, audit: &logBuffer{}}
	s.users.set(t, "alice", hardPassword)
	s.gatewayOf = serve(t, newFake(t, "events:2"), func(cfg *Config) {
		cfg.Login = login.Config{Mechanisms: login.Mechanisms, Required: true, Credentials: s.users, Tokens: s.keys}
		cfg.Audit = audit.New(slog.New(slog.NewJSONHandler(s.audit, nil)))
		if change != nil {
			change(cfg)
		}
	})
	return s
}

func (s *secured) token(t testing.TB) string {
	now := time.Now()
	text, err := token.Sign(s.keys, "fake", token.Claims{
		ID: "t1", Principal: security.User("alice"), Issued: now, Expires: now.Add(time.Hour),
		Scope: security.Scope{{Resource: security.TopicResource, Prefix: true, Access: security.ReadAccess}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (s *secured) mechanisms(t testing.TB, password string) []sasl.Mechanism {
	text := s.token(t)
	if password != hardPassword {
		text = text[:len(text)-4] + "AAAA"
	}
	auth := kscram.Auth{User: "alice", Pass: password}
	return []sasl.Mechanism{
		auth.AsSha256Mechanism(), auth.AsSha512Mechanism(),
		plain.Auth{User: "alice", Pass: password}.AsMechanism(), oauth.Auth{Token: text}.AsMechanism(),
	}
}

// ways are how a client reaches the gateway.
func (s *secured) ways(roots *tls.Config) map[string]func(context.Context, string, string) (net.Conn, error) {
	return map[string]func(context.Context, string, string) (net.Conn, error){
		"tcp":       new(net.Dialer).DialContext,
		"tls":       (&tls.Dialer{Config: roots}).DialContext,
		"websocket": new(shim.Dialer).DialContext,
		"wss":       (&shim.Dialer{TLSConfig: roots}).DialContext,
	}
}

func ping(t testing.TB, addr string, mechanism sasl.Mechanism, dial func(context.Context, string, string) (net.Conn, error)) error {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.SASL(mechanism), kgo.Dialer(dial), kgo.RequestRetries(0))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = cl.SeedBrokers()[0].Request(ctx, metadataOf("events"))
	return err
}

// Every mechanism over every transport: the right password gets in, a wrong one gets the client's
// own error.
func TestMechanisms(t *testing.T) {
	cert, roots := certificate(t, "kafka.example")
	s := serveSecured(t, func(cfg *Config) { cfg.TLS = &tls.Config{Certificates: []tls.Certificate{cert}} })
	for way, dial := range s.ways(&tls.Config{RootCAs: roots, ServerName: "kafka.example"}) {
		for _, m := range s.mechanisms(t, hardPassword) {
			if err := ping(t, s.addr, m, dial); err != nil {
				t.Errorf("%s over %s: %v", m.Name(), way, err)
			}
		}
		for _, m := range s.mechanisms(t, "wrong") {
			err := ping(t, s.addr, m, dial)
			// franz-go has words of its own for what OAUTHBEARER is told.
			if m.Name() == login.OAuthBearer && err != nil && strings.Contains(err.Error(), "unexpected data in oauth response") {
				continue
			}
			if !errors.Is(err, kerr.SaslAuthenticationFailed) {
				t.Errorf("%s over %s with a wrong password: %v", m.Name(), way, err)
			}
		}
	}
	if log := s.audit.String(); strings.Contains(log, hardPassword) || strings.Contains(log, "wrong\"") || !strings.Contains(log, `"who":"User:alice"`) {
		t.Errorf("the audit log: %s", log)
	}
}

func handshake(c *client, version int16, mechanism string) *kmsg.SASLHandshakeResponse {
	return c.do(&kmsg.SASLHandshakeRequest{Version: version, Mechanism: mechanism}).(*kmsg.SASLHandshakeResponse)
}

func authenticate(c *client, message string) *kmsg.SASLAuthenticateResponse {
	return c.do(&kmsg.SASLAuthenticateRequest{Version: 1, SASLAuthBytes: []byte(message)}).(*kmsg.SASLAuthenticateResponse)
}

const plainMessage = "\x00alice\x00" + hardPassword

// logIn logs a connection in by PLAIN.
func logIn(t testing.TB, c *client) {
	t.Helper()
	if h := handshake(c, 1, login.Plain); h.ErrorCode != 0 || !slices.Equal(h.SupportedMechanisms, login.Mechanisms) {
		t.Fatalf("%+v", h)
	}
	if a := authenticate(c, plainMessage); a.ErrorCode != 0 {
		t.Fatalf("%+v", a)
	}
}

// Who has not logged in may ask three things only, and not often.
func TestBeforeTheLogin(t *testing.T) {
	s := serveSecured(t, nil)
	c := s.dial()
	if v := c.do(&kmsg.ApiVersionsRequest{}).(*kmsg.ApiVersionsResponse); v.ErrorCode != 0 {
		t.Errorf("%+v", v)
	}
	c.send(encode(1, metadataOf("events")))
	c.closed()

	c = s.dial()
	c.send(raw(head(StatusKey, 0)...))
	if frame, err := c.frame(); err != nil || binary.BigEndian.Uint16(frame[8:]) != 34 {
		t.Errorf("Status: %x, %v", frame, err)
	}
	c.closed()

	c = s.dial()
	if a := authenticate(c, plainMessage); a.ErrorCode != 34 {
		t.Errorf("without a handshake: %+v", a)
	}
	c.closed()

	c = s.dial()
	if h := handshake(c, 1, "GSSAPI"); h.ErrorCode != 33 || !slices.Equal(h.SupportedMechanisms, login.Mechanisms) {
		t.Errorf("%+v", h)
	}
	c.closed()

	c = s.dial()
	for range login.MaxRequests {
		c.do(&kmsg.ApiVersionsRequest{})
	}
	c.send(encode(1, &kmsg.ApiVersionsRequest{}))
	c.closed()

	c = s.dial()
	c.send(binary.BigEndian.AppendUint32(nil, login.MaxFrame+1))
	c.closed()
}

// What a client is told of a failure is the same for all reasons, and comes as late.
func TestFailuresLookAlike(t *testing.T) {
	s := serveSecured(t, nil)
	for name, message := range map[string]string{
		"wrong password": "\x00alice\x00wrong", "unknown user": "\x00bob\x00" + hardPassword, "no password": "\x00alice\x00",
		"another's name": "admin\x00alice\x00" + hardPassword, "nothing": "", "two NULs more": "\x00alice\x00" + hardPassword + "\x00",
	} {
		c := s.dial()
		handshake(c, 1, login.Plain)
		began := time.Now()
		a := authenticate(c, message)
		if a.ErrorCode != 58 || a.ErrorMessage == nil || *a.ErrorMessage != login.Failed || len(a.SASLAuthBytes) > 0 {
			t.Errorf("%s: %+v", name, a)
		}
		if took := time.Since(began); took < login.FailureDelay {
			t.Errorf("%s: answered after %v", name, took)
		}
		c.closed()
	}
	if n := strings.Count(s.audit.String(), "\n"); n != 6 {
		t.Errorf("%d lines of 6 failures: %s", n, s.audit.String())
	}
}

// Version 0 of the handshake: the mechanism's messages travel without a header.
func TestHandshakeVersion0(t *testing.T) {
	s := serveSecured(t, nil)
	c := s.dial()
	if h := handshake(c, 0, login.Plain); h.ErrorCode != 0 {
		t.Fatalf("%+v", h)
	}
	c.send(append(binary.BigEndian.AppendUint32(nil, uint32(len(plainMessage))), plainMessage...))
	if frame, err := c.frame(); err != nil || len(frame) != 4 {
		t.Fatalf("%x, %v", frame, err)
	}
	if m := c.do(metadataOf("events")).(*kmsg.MetadataResponse); m.Topics[0].ErrorCode != 0 {
		t.Errorf("%+v", m)
	}
	c = s.dial()
	handshake(c, 0, login.Plain)
	c.send([]byte{0, 0, 0, 1, 'x'})
	c.closed()
	c = s.dial()
	handshake(c, 0, login.Plain)
	c.send(binary.BigEndian.AppendUint32(nil, login.MaxFrame+1))
	c.closed()
}

// A client logs in again on its connection, as the same and by the same mechanism (KIP-368).
func TestLoggingInAgain(t *testing.T) {
	s := serveSecured(t, func(cfg *Config) { cfg.Login.MaxSession = time.Hour })
	s.users.set(t, "bob", "b")
	c := s.dial()
	handshake(c, 1, login.Plain)
	if a := authenticate(c, plainMessage); a.SessionLifetimeMillis <= 0 || a.SessionLifetimeMillis > time.Hour.Milliseconds() {
		t.Errorf("a session of %d ms", a.SessionLifetimeMillis)
	}
	time.Sleep(time.Second) // not more often
	logIn(t, c)
	if m := c.do(metadataOf("events")).(*kmsg.MetadataResponse); m.Topics[0].ErrorCode != 0 {
		t.Errorf("%+v", m)
	}
	handshake(c, 1, login.Plain)
	if a := authenticate(c, plainMessage); a.ErrorCode != 58 {
		t.Errorf("at once: %+v", a)
	}
	c.closed()
	for name, try := range map[string][2]string{"another principal": {login.Plain, "\x00bob\x00b"}, "another mechanism": {security.ScramSHA256, ""}} {
		c := s.dial()
		logIn(t, c)
		if h := handshake(c, 1, try[0]); h.ErrorCode == 0 {
			if a := authenticate(c, try[1]); a.ErrorCode != 58 {
				t.Errorf("%s: %+v", name, a)
			}
		} else if h.ErrorCode != 58 {
			t.Errorf("%s: %+v", name, h)
		}
		c.closed()
	}
}

// A session ends when the user is deleted, or its password is another, or its token is revoked.
func TestSessionsEndWithWhatTheyRestOn(t *testing.T) {
	s := serveSecured(t, nil)
	for name, end := range map[string]func(){
		"another password": func() { s.users.set(t, "alice", "another") },
		"a deleted user":   func() { s.users.drop("alice") },
	} {
		s.users.set(t, "alice", hardPassword)
		c := s.dial()
		logIn(t, c)
		c.send(encode(1, fetchOf("events", 0, 0, 30*time.Second, 1, 100)))
		end()
		began := time.Now()
		if err := c.do2(1, &kmsg.FetchResponse{}); err != nil {
			t.Errorf("%s: a long poll: %v", name, err)
		}
		c.closed()
		if took := time.Since(began); took > patience { // of a wait of half a minute
			t.Errorf("%s: it took %v", name, took)
		}
	}
	s.users.set(t, "alice", hardPassword)
	c := s.dial()
	handshake(c, 1, login.OAuthBearer)
	if a := authenticate(c, "n,,\x01auth=Bearer "+s.token(t)+"\x01\x01"); a.ErrorCode != 0 || a.SessionLifetimeMillis == 0 {
		t.Fatalf("%+v", a)
	}
	s.keys.revoke("t1")
	c.closed()
}

// do2 reads an answer if there is one; a drained session may also just end.
func (c *client) do2(correlation int32, resp kmsg.Response) error {
	b, err := c.frame()
	if err != nil {
		return err
	}
	if got := int32(binary.BigEndian.Uint32(b[4:])); got != correlation {
		return errors.New("another answer")
	}
	return resp.ReadFrom(b[8:])
}

// Passwords and tokens are not asked for where others may read them.
func TestSecretsInClear(t *testing.T) {
	s := serveSecured(t, nil)
	ws := func(header http.Header) (status int) {
		conn, resp, err := s.dialWS(header)
		if err == nil {
			conn.Close()
			return 101
		}
		return resp.StatusCode
	}
	beyond := http.Header{shim.ClientHeader: {"192.0.2.7:5000 clear"}}
	conn, err := (&shim.Dialer{Header: beyond}).Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, conn)
	want := []string{security.ScramSHA512, security.ScramSHA256}
	if h := handshake(c, 1, login.Plain); h.ErrorCode != 33 || !slices.Equal(h.SupportedMechanisms, want) {
		t.Errorf("%+v", h)
	}
	beyond.Set("Authorization", "Bearer "+s.token(t))
	if status := ws(beyond); status != 401 {
		t.Errorf("a token in clear: %d", status)
	}
	beyond.Set(shim.ClientHeader, "192.0.2.7:5000 tls")
	if status := ws(beyond); status != 101 {
		t.Errorf("a token over TLS: %d", status)
	}
	for _, odd := range []string{"x clear", "192.0.2.7 clear", "192.0.2.7:1", "192.0.2.7:1 other", ""} {
		if status := ws(http.Header{shim.ClientHeader: {odd}}); status != 400 {
			t.Errorf("%q: %d", odd, status)
		}
	}
}

// Credentials in a WebSocket's handshake.
func TestWebSocketCredentials(t *testing.T) {
	s := serveSecured(t, func(cfg *Config) { cfg.AllowOrigins = []string{"http://app.example"} })
	basic := func(user, password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	}
	text := s.token(t)
	encoded := base64.RawURLEncoding.EncodeToString([]byte(text))
	for name, try := range map[string]struct {
		header http.Header
		status int
		chosen string
		asks   int16 // error code of a Metadata; -1: closed
	}{
		"nothing":            {http.Header{}, 101, "", -1},
		"Bearer":             {http.Header{"Authorization": {"Bearer " + text}}, 101, "", 0},
		"Bearer from a page": {http.Header{"Authorization": {"bearer " + text}, "Origin": {"http://app.example"}}, 101, "", 0},
		"Basic":              {http.Header{"Authorization": {basic("alice", hardPassword)}}, 101, "", 0},
		"Basic from a page":  {http.Header{"Authorization": {basic("alice", hardPassword)}, "Origin": {"http://app.example"}}, 403, "", 0},
		"subprotocol":        {http.Header{"Sec-Websocket-Protocol": {"trimaran, trimaran.bearer." + encoded}}, 101, "trimaran", 0},
		"subprotocol alone":  {http.Header{"Sec-Websocket-Protocol": {"trimaran.bearer." + encoded}}, 400, "", 0},
		"wrong Basic":        {http.Header{"Authorization": {basic("alice", "wrong")}}, 401, "", 0},
		"unknown user":       {http.Header{"Authorization": {basic("bob", hardPassword)}}, 401, "", 0},
		"broken Basic":       {http.Header{"Authorization": {"Basic !"}}, 400, "", 0},
		"wrong Bearer":       {http.Header{"Authorization": {"Bearer " + text + "x"}}, 401, "", 0},
		"another scheme":     {http.Header{"Authorization": {"Digest a"}}, 400, "", 0},
		"two":                {http.Header{"Authorization": {"Bearer " + text, "Bearer " + text}}, 400, "", 0},
		"a foreign page":     {http.Header{"Origin": {"http://evil.example"}}, 403, "", 0},
		"wrong ticket":       {http.Header{shim.TicketHeader: {text}}, 401, "", 0},
	} {
		conn, resp, err := s.dialWS(try.header)
		if resp == nil || resp.StatusCode != try.status {
			t.Errorf("%s: %+v, %v", name, resp, err)
			continue
		}
		if challenge := resp.Header.Get("Www-Authenticate"); try.status == 401 != (challenge == "Bearer") {
			t.Errorf("%s: a challenge of %q", name, challenge)
		}
		if err != nil {
			continue
		}
		if conn.Subprotocol() != try.chosen {
			t.Errorf("%s: subprotocol %q", name, conn.Subprotocol())
		}
		_ = conn.WriteMessage(2, encode(1, metadataOf("events")))
		_, _, err = conn.ReadMessage()
		if (err == nil) != (try.asks == 0) {
			t.Errorf("%s: asking: %v", name, err)
		}
		conn.Close()
	}
}
