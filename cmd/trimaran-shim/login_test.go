package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	kscram "github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/trimaran-io/trimaran/fsm"
	node "github.com/trimaran-io/trimaran/gateway"
	"github.com/trimaran-io/trimaran/gateway/login"
	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/scram"
	"github.com/trimaran-io/trimaran/security/token"
)

// loginCluster is as much of a cluster as a client needs to log in and to ask for topics.
type loginCluster struct {
	node.Cluster
	catalog *fsm.Catalog

	mu   sync.Mutex
	gone bool // the user is deleted
}

const loginPassword = "pä§§=,wörd"

var loginKey = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

func (*loginCluster) ClusterID() string               { return "c" }
func (*loginCluster) Gateways() map[fsm.NodeID]string { return nil }
func (*loginCluster) CatalogKnown() bool              { return true }
func (*loginCluster) Ready() error                    { return nil }
func (*loginCluster) NewLine(uint16) uint64           { return 1 }
func (*loginCluster) Serving() (bool, error)          { return false, nil }
func (c *loginCluster) Topics() *fsm.Topics           { return c.catalog.View() }

func (c *loginCluster) Scram(user, mechanism string) (security.ScramCredential, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if user != "alice" || c.gone {
		return security.ScramCredential{}, false
	}
	salted, _ := scram.Salted(mechanism, loginPassword, []byte("salt"), 4096)
	stored, server := scram.Keys(mechanism, salted)
	return security.ScramCredential{Salt: []byte("salt"), StoredKey: stored, ServerKey: server, Iterations: 4096}, true
}

func (*loginCluster) Signer() (string, ed25519.PrivateKey, bool) { return "k", loginKey, true }
func (*loginCluster) Verifier(id string) (ed25519.PublicKey, bool) {
	return loginKey.Public().(ed25519.PublicKey), id == "k"
}
func (*loginCluster) Known(id string) bool                               { return id == "k" }
func (*loginCluster) LoginSecret() []byte                                { return loginKey.Seed() }
func (*loginCluster) Revoked(string, security.Principal, time.Time) bool { return false }

// loginGateway is a true gateway that wants clients to log in. It can die without a word.
type loginGateway struct {
	*node.Server
	addr  string
	conns *countingListener
}

type countingListener struct {
	net.Listener
	mu  sync.Mutex
	all []net.Conn
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		l.all = append(l.all, c)
		l.mu.Unlock()
	}
	return c, err
}

// die ends the gateway and its connections as a crash does.
func (g *loginGateway) die() {
	g.conns.Close()
	g.conns.mu.Lock()
	defer g.conns.mu.Unlock()
	for _, c := range g.conns.all {
		c.Close()
	}
}

func startLoginGateway(t *testing.T, c *loginCluster) *loginGateway {
	t.Helper()
	g, err := node.New(node.Config{Cluster: c, Login: login.Config{
		Mechanisms: login.Mechanisms, Required: true, Credentials: c, Tokens: c,
	}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conns := &countingListener{Listener: l}
	served := make(chan struct{})
	go func() { _ = g.Serve(conns); close(served) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = g.Shutdown(ctx)
		<-served
	})
	return &loginGateway{g, l.Addr().String(), conns}
}

// loginProxy is a shim before two such gateways.
func loginProxy(t *testing.T, flags ...string) (c *loginCluster, addr string, gateways []*loginGateway) {
	t.Helper()
	c = &loginCluster{catalog: fsm.NewCatalog()}
	var fakes []*fakeGateway
	for range 2 {
		g := startLoginGateway(t, c)
		gateways = append(gateways, g)
		fakes = append(fakes, &fakeGateway{Server: &httptest.Server{URL: "http://" + g.addr}})
	}
	p, addr, _ := runProxy(t, flags, fakes...)
	p.waitUp(t, 2)
	return c, addr, gateways
}

func loginMechanisms(t *testing.T, c *loginCluster, password string) []sasl.Mechanism {
	now := time.Now()
	text, err := token.Sign(c, "c", token.Claims{
		ID: "1", Principal: security.User("alice"), Issued: now, Expires: now.Add(time.Hour),
		Scope: security.Scope{{Resource: security.TopicResource, Name: "t", Access: security.ReadAccess}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if password != loginPassword {
		text = "x" + text
	}
	auth := kscram.Auth{User: "alice", Pass: password}
	return []sasl.Mechanism{
		auth.AsSha256Mechanism(), auth.AsSha512Mechanism(),
		plain.Auth{User: "alice", Pass: password}.AsMechanism(), oauth.Auth{Token: text}.AsMechanism(),
	}
}

func metadataRequest() *kmsg.MetadataRequest {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	return req
}

// A client that has logged in, by whichever mechanism, keeps its connection when its gateway dies.
func TestLoginsOutliveGateways(t *testing.T) {
	for i := range 4 {
		c, addr, gateways := loginProxy(t)
		m := loginMechanisms(t, c, loginPassword)[i]
		dials := 0
		cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.SASL(m), kgo.RequestRetries(0), kgo.Dialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials++
			return new(net.Dialer).DialContext(ctx, network, addr)
		}))
		if err != nil {
			t.Fatal(err)
		}
		ask := func() {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if _, err := cl.SeedBrokers()[0].Request(ctx, metadataRequest()); err != nil {
				t.Fatalf("%s: %v", m.Name(), err)
			}
		}
		ask()
		ask() // behind it the ticket is there: answers come in order
		before := dials
		gateways[0].die()
		ask()
		// Wherever the client was, it is at the second now, and goes on from there.
		ask()
		if dials != before {
			t.Errorf("%s: the client had to connect again", m.Name())
		}
		cl.Close()
	}
}

// A wrong password is the client's own error, through the shim as well.
func TestWrongPasswordsThroughTheShim(t *testing.T) {
	c, addr, _ := loginProxy(t)
	for _, m := range loginMechanisms(t, c, "wrong") {
		cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.SASL(m), kgo.RequestRetries(0))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		_, err = cl.SeedBrokers()[0].Request(ctx, metadataRequest())
		if err == nil || !strings.Contains(err.Error(), "SASL_AUTHENTICATION_FAILED") && !strings.Contains(err.Error(), "oauth") {
			t.Errorf("%s: %v", m.Name(), err)
		}
		cancel()
		cl.Close()
	}
}

// Version 0 of the handshake, its messages without a header, and the death of the gateway after it.
func TestHandshakeVersion0ThroughTheShim(t *testing.T) {
	c, addr, gateways := loginProxy(t)
	conn := connect(t, addr)
	write(t, conn, asked(apiSaslHandshake, 1, append([]byte{0, 5}, "PLAIN"...)...))
	if frame := readAnswer(t, conn); binary.BigEndian.Uint16(frame[8:]) != 0 {
		t.Fatalf("%x", frame)
	}
	write(t, conn, message([]byte("\x00alice\x00"+loginPassword)...))
	wantRead(t, conn, []byte{0, 0, 0, 0})
	for i, ask := range []func(){func() {}, gateways[0].die, func() {}} {
		ask()
		write(t, conn, asked(apiApiVersions, int32(10+i)), asked(apiMetadata, int32(20+i), 0, 0, 0, 0))
		for _, want := range []int32{int32(10 + i), int32(20 + i)} {
			if got := int32(binary.BigEndian.Uint32(readAnswer(t, conn)[4:])); got != want {
				t.Fatalf("answer to %d, want %d", got, want)
			}
		}
	}
	// A ticket is worth nothing when the user is gone.
	c.mu.Lock()
	c.gone = true
	c.mu.Unlock()
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("the session of a user that is gone: %v", err)
	}
}

func readAnswer(t *testing.T, conn net.Conn) []byte {
	t.Helper()
	frame := make([]byte, 4)
	if _, err := io.ReadFull(conn, frame); err != nil {
		t.Fatal(err)
	}
	frame = append(frame, make([]byte, binary.BigEndian.Uint32(frame))...)
	if _, err := io.ReadFull(conn, frame[4:]); err != nil {
		t.Fatal(err)
	}
	return frame
}

func TestReadingALogin(t *testing.T) {
	if m := handshakeMechanism(asked(apiSaslHandshake, 1, 0, 2, 'a', 'b')); m != "ab" {
		t.Errorf("%q", m)
	}
	for _, bad := range [][]byte{asked(apiSaslHandshake, 1), asked(apiSaslHandshake, 1, 0, 9, 'a'), asked(apiSaslHandshake, 1, 0xff, 0xff)} {
		if m := handshakeMechanism(bad); m != "" {
			t.Errorf("%q", m)
		}
	}
	for version := range int16(3) {
		for _, code := range []int16{0, 58} {
			for _, text := range []string{"", "x"} {
				resp := &kmsg.SASLAuthenticateResponse{Version: version, ErrorCode: code, SASLAuthBytes: []byte(text)}
				head := []byte{}
				if version == 2 {
					head = []byte{0}
				}
				r := &request{key: apiSaslAuthenticate, version: version}
				taken, nothing := authenticated(r, answer(1, resp.AppendTo(head)...))
				if taken != (code == 0) || taken && nothing != (text == "") {
					t.Errorf("version %d, code %d, %q: %v, %v", version, code, text, taken, nothing)
				}
			}
		}
		if taken, _ := authenticated(&request{version: version}, answer(1)); taken {
			t.Error("an answer that is cut counts")
		}
	}
}

// Clients reach a shim over TLS where it is configured, and not otherwise.
func TestClientsOverTLS(t *testing.T) {
	g := newFakeGateway(t)
	web := httptest.NewUnstartedServer(nil)
	web.StartTLS()
	defer web.Close()
	p, addr, _ := runProxyWith(t, nil, func(p *proxy) {
		p.clientTLS = &tls.Config{Certificates: web.TLS.Certificates}
	}, g)
	p.waitUp(t, 1)
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	write(t, conn, asked(apiApiVersions, 1))
	c := g.accept(t)
	c.want(asked(apiApiVersions, 1))
	if said := c.header.Get("Trimaran-Client"); !strings.HasSuffix(said, " tls") || !strings.HasPrefix(said, "127.0.0.1:") {
		t.Errorf("the gateway is told %q", said)
	}
	plain := connect(t, addr)
	write(t, plain, asked(apiApiVersions, 1))
	_, _ = io.Copy(io.Discard, plain) // until it is closed
}
