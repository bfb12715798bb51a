package gateway

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/gateway/login"
	"github.com/trimaran-io/trimaran/security"
)

func askToken(c *client, asked TokenRequest) (answer TokenAnswer) {
	c.t.Helper()
	body, err := json.Marshal(asked)
	if err != nil {
		c.t.Fatal(err)
	}
	c.send(raw(append(head(TokenKey, 0), body...)...))
	frame, err := c.frame()
	if err == nil {
		err = json.Unmarshal(frame[14:], &answer)
	}
	if err != nil {
		c.t.Fatalf("%x: %v", frame, err)
	}
	return answer
}

// A token is issued to who has logged in, and to nobody by a token.
func TestTokens(t *testing.T) {
	s := serveSecured(t, nil)
	c := s.dial()
	logIn(t, c)
	asked := TokenRequest{Kind: TokenKind, LifetimeMs: time.Hour.Milliseconds(), Scope: security.Scope{{Resource: security.TopicResource, Name: "t", Access: security.ReadAccess}}}
	a := askToken(c, asked)
	if a.Error != "" || a.ID == "" || a.ExpiresMs < time.Now().UnixMilli() {
		t.Fatalf("%+v", a)
	}
	for name, bad := range map[string]TokenRequest{
		"no scope": {Kind: TokenKind, LifetimeMs: 1000}, "no time": {Kind: TokenKind, Scope: asked.Scope}, "no kind": {},
		"two days": {Kind: TokenKind, Scope: asked.Scope, LifetimeMs: 48 * time.Hour.Milliseconds()},
	} {
		if a := askToken(c, bad); a.Error == "" || a.Token != "" {
			t.Errorf("%s: %+v", name, a)
		}
	}
	c = s.dial()
	handshake(c, 1, login.OAuthBearer)
	if in := authenticate(c, "n,,\x01auth=Bearer "+a.Token+"\x01\x01"); in.ErrorCode != 0 {
		t.Fatalf("%+v", in)
	}
	if again := askToken(c, asked); again.Error == "" || again.Token != "" {
		t.Errorf("a token by a token: %+v", again)
	}
	if ticket := askToken(c, TokenRequest{Kind: TicketKind}); ticket.Token == "" {
		t.Errorf("a ticket of its session: %+v", ticket)
	}
}

// Who shows a certificate has to log in no more, and who does not has to.
func TestClientCertificates(t *testing.T) {
	cert, roots := certificate(t, "kafka.example")
	s := serveSecured(t, func(cfg *Config) {
		cfg.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: roots, ClientAuth: tls.VerifyClientCertIfGiven}
	})
	shown := &tls.Config{RootCAs: roots, ServerName: "kafka.example", Certificates: []tls.Certificate{cert}}
	c := s.dialTLS(shown)
	if m := c.do(metadataOf("events")).(*kmsg.MetadataResponse); m.Topics[0].ErrorCode != 0 {
		t.Errorf("%+v", m)
	}
	logIn(t, c) // as somebody else
	c = s.dialTLS(&tls.Config{RootCAs: roots, ServerName: "kafka.example"})
	c.send(encode(1, metadataOf("events")))
	c.closed()
	foreign, _ := certificate(t, "client.example")
	// A client that shows it although it is told that only others are taken.
	shown.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &foreign, nil }
	c = s.dialTLS(shown) // TLS 1.3 tells afterwards
	var late net.Error
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.As(err, &late) && late.Timeout() {
		t.Errorf("a certificate of another CA is taken: %v", err)
	}
}
