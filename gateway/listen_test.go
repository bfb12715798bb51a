package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/gateway/shim"
)

// Which names a request may call the node by, and which pages it may come from.
func TestHostAndOrigin(t *testing.T) {
	g := serve(t, newFake(t), func(cfg *Config) {
		cfg.Advertise = "kafka.example:9092"
		cfg.AllowHosts = []string{"Other.example"}
		cfg.AllowOrigins = []string{"https://app.example", "http://dev.example:3000", "http://pages.example:*"}
	})
	_, port, _ := net.SplitHostPort(g.addr)
	for _, try := range []struct {
		host, origin string
		status       int
	}{
		{"localhost:" + port, "", 200},
		{"LOCALHOST.", "", 200},
		{"a.localhost", "", 200},
		{"127.0.0.1", "", 200},
		{"127.9.9.9:1", "", 200},
		{"[::1]:9092", "", 200},
		{"kafka.example", "", 200},
		{"kafka.example:443", "", 200},
		{"other.example", "", 200},
		{"evil.example", "", 403},
		{"localhost.evil.example", "", 403},
		{"notlocalhost", "", 403},
		{"10.0.0.1", "", 403},
		{"127.0.0.1.evil.example", "", 403},
		{"0x7f000001", "", 403},
		{"localhost", "http://localhost", 200},
		{"localhost:80", "http://LOCALHOST", 200},
		{"localhost:" + port, "http://localhost:" + port, 200},
		{"localhost", "http://localhost:3000", 403},
		{"localhost:" + port, "http://localhost", 403},
		{"localhost", "https://localhost", 403},
		{"localhost", "ftp://localhost", 403},
		{"localhost", "http://127.0.0.1", 403},
		{"localhost", "http://a.localhost", 403},
		{"[::1]:9092", "http://[::1]:9092", 200},
		{"localhost", "https://kafka.example", 403},
		{"kafka.example:9092", "http://kafka.example:9092", 200},
		{"localhost", "http://pages.example", 200},
		{"localhost", "http://pages.example:5173", 200},
		{"localhost", "https://pages.example:5173", 403},
		{"localhost", "http://x.pages.example:5173", 403},
		{"localhost", "https://app.example", 200},
		{"localhost", "https://app.example:443", 200},
		{"localhost", "http://app.example", 403},
		{"localhost", "http://dev.example:3000", 200},
		{"localhost", "http://dev.example", 403},
		{"localhost", "http://evil.example", 403},
		{"localhost", "null", 403},
		{"localhost", "http://localhost.evil.example", 403},
		{"localhost", "http://localhost@evil.example", 403},
		{"localhost", "http://localhost/path", 403},
		{"localhost", "localhost", 403},
		{"localhost", " ", 403},
	} {
		status, _ := g.get(t, "/healthz", func(r *http.Request) {
			r.Host = try.host
			if try.origin != "" {
				r.Header.Set("Origin", try.origin)
			}
		})
		if status != try.status {
			t.Errorf("Host %q, Origin %q: %d, want %d", try.host, try.origin, status, try.status)
		}
		header := http.Header{"Host": {try.host}}
		if try.origin != "" {
			header.Set("Origin", try.origin)
		}
		ws, resp, err := g.dialWS(header)
		if opened := err == nil; opened != (try.status == 200) {
			t.Errorf("WebSocket with Host %q, Origin %q: %v", try.host, try.origin, err)
		}
		if err == nil {
			ws.Close()
		} else if resp == nil || resp.StatusCode != 403 {
			t.Errorf("WebSocket with Host %q, Origin %q: %v", try.host, try.origin, err)
		}
	}
}

func TestRefusalsAreLoggedQuotedAndCut(t *testing.T) {
	g := serve(t, newFake(t), nil)
	for range 100 {
		c := g.dial()
		c.send([]byte("GET / HTTP/1.1\r\nHost: " + strings.Repeat("x", 500) + "\r\n\r\n"))
		if b := make([]byte, 12); true {
			_, _ = c.Read(b)
		}
		c.Close()
	}
	logs := g.logs.String()
	if n := strings.Count(logs, "http request refused"); n < 1 || n > 20 {
		t.Errorf("%d lines for 100 refusals", n)
	}
	if strings.Contains(logs, strings.Repeat("x", 65)) {
		t.Error("more than 64 bytes of a client's in a line")
	}
}

// brokerOf gives the address that Metadata names on a WebSocket.
func (g *gatewayOf) brokerOf(header http.Header) (string, *http.Response, error) {
	ws, resp, err := g.dialWS(header)
	if err != nil {
		return "", resp, err
	}
	defer ws.Close()
	b := newClient(g.t, shim.NewConn(ws, 0)).do(metadataOf()).(*kmsg.MetadataResponse).Brokers[0]
	return net.JoinHostPort(b.Host, fmt.Sprint(b.Port)), resp, nil
}

// The address in Metadata: what the shim says, else what is configured, else what
// the client used.
func TestAdvertisedAddress(t *testing.T) {
	fixed := serve(t, newFake(t), func(cfg *Config) { cfg.Advertise = "kafka.example:9092" })
	used := serve(t, newFake(t), nil)
	said := http.Header{shim.AdvertiseHeader: {"shim.example:19092"}}
	for _, try := range []struct {
		name   string
		g      *gatewayOf
		header http.Header
		want   string
	}{
		{"header over configuration", fixed, said, "shim.example:19092"},
		{"configuration over Host", fixed, nil, "kafka.example:9092"},
		{"header", used, said, "shim.example:19092"},
		{"IPv6 in the header", used, http.Header{shim.AdvertiseHeader: {"[::1]:9092"}}, "[::1]:9092"},
		{"Host with port", used, http.Header{"Host": {"localhost:7777"}}, "localhost:7777"},
		{"Host without port", used, http.Header{"Host": {"localhost"}}, "localhost:80"},
	} {
		got, _, err := try.g.brokerOf(try.header)
		if err != nil || got != try.want {
			t.Errorf("%s: %s, %v, want %s", try.name, got, err, try.want)
		}
	}
	b := fixed.dial().do(metadataOf()).(*kmsg.MetadataResponse).Brokers[0]
	if b.Host != "kafka.example" || b.Port != 9092 || b.NodeID != BrokerID {
		t.Errorf("plain TCP with a configured address: %+v", b)
	}
	for _, bad := range []string{
		"", "nothing", "host:", ":9092", "host:0", "host:65536", "host:09092", "host:-1", "host:+1", "ho st:1", "host:1x",
		"a:b:c:1", "[::1]", "[fe80::1%eth0]:1", "-host:1", "host-:1", "a..b:1", "h\xc3\xb6st:1", "user@host:1", "host/x:1",
		strings.Repeat("a", 64) + ":1", strings.Repeat("a.", 127) + "a:1",
	} {
		_, resp, err := used.brokerOf(http.Header{shim.AdvertiseHeader: {bad}})
		if err == nil || resp == nil || resp.StatusCode != 400 {
			t.Errorf("%s: %q is taken: %v", shim.AdvertiseHeader, bad, err)
		}
	}
	if _, resp, err := used.brokerOf(http.Header{shim.AdvertiseHeader: {"a:1", "b:1"}}); err == nil || resp.StatusCode != 400 {
		t.Errorf("two addresses are taken: %v", err)
	}
}

// What breaks the rule of one Kafka message per binary message ends the
// connection with a code and a reason.
func TestWebSocketRules(t *testing.T) {
	g := serve(t, newFake(t, "events"), func(cfg *Config) { cfg.MaxRequestBytes = 1 << 16 })
	whole := encode(1, metadataOf("events"))
	for _, try := range []struct {
		name    string
		kind    int
		message []byte
		code    int
	}{
		{"text", websocket.TextMessage, whole, websocket.CloseUnsupportedData},
		{"empty", websocket.BinaryMessage, nil, websocket.CloseProtocolError},
		{"half a prefix", websocket.BinaryMessage, whole[:2], websocket.CloseProtocolError},
		{"cut", websocket.BinaryMessage, whole[:len(whole)-1], websocket.CloseProtocolError},
		{"one byte more", websocket.BinaryMessage, append(whole[:len(whole):len(whole)], 0), websocket.CloseProtocolError},
		{"two in one", websocket.BinaryMessage, append(whole[:len(whole):len(whole)], whole...), websocket.CloseProtocolError},
		{"negative size", websocket.BinaryMessage, append([]byte{0xff, 0xff, 0xff, 0xff}, whole[4:]...), websocket.CloseMessageTooBig},
		{"size above the limit", websocket.BinaryMessage, append([]byte{0, 1, 0, 1}, whole[4:]...), websocket.CloseMessageTooBig},
		{"above the limit", websocket.BinaryMessage, append([]byte{0, 2, 0, 0}, make([]byte, 1<<17)...), websocket.CloseMessageTooBig},
		{"an unknown API", websocket.BinaryMessage, []byte{0, 0, 0, 10, 0x7f, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff}, websocket.CloseProtocolError},
	} {
		t.Run(try.name, func(t *testing.T) {
			ws, _, err := g.dialWS(nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := ws.WriteMessage(websocket.BinaryMessage, whole); err != nil {
				t.Fatal(err)
			}
			if err := ws.WriteMessage(try.kind, try.message); err != nil {
				t.Fatal(err)
			}
			if kind, b, err := ws.ReadMessage(); err != nil || kind != websocket.BinaryMessage || len(b) < 8 || b[7] != 1 {
				t.Fatalf("the request before it: %d, %x, %v", kind, b, err)
			}
			_, b, err := ws.ReadMessage()
			if !websocket.IsCloseError(err, try.code) {
				t.Errorf("%x, %v, want code %d", b, err, try.code)
			}
		})
	}
}

func TestWebSocketGoodbyeFollowsTheLastAnswer(t *testing.T) {
	f := newFake(t, "events")
	waiting := make(chan struct{})
	f.await = func(ctx context.Context, p fsm.PartitionID, from fsm.Offset) error {
		close(waiting)
		return f.doAwait(ctx, p, from)
	}
	g := serve(t, f, nil)
	ws, _, err := g.dialWS(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := ws.WriteMessage(websocket.BinaryMessage, encode(7, fetchOf("events", 0, 0, time.Minute, 1, 1000))); err != nil {
		t.Fatal(err)
	}
	<-waiting
	done := make(chan error)
	go func() { done <- g.Shutdown(context.Background()) }()
	if _, b, err := ws.ReadMessage(); err != nil || len(b) < 8 || b[7] != 7 {
		t.Errorf("the answer: %x, %v", b, err)
	}
	_, b, err := ws.ReadMessage()
	if closed := new(websocket.CloseError); !errors.As(err, &closed) || closed.Code != websocket.CloseGoingAway || closed.Text != shim.GoodbyeReason {
		t.Errorf("the goodbye: %x, %v", b, err)
	}
	ws.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// That a client leaves while it waits for records is no event, over WebSocket as over TCP.
func TestWebSocketClientThatLeavesIsNotLogged(t *testing.T) {
	f := newFake(t, "events")
	waiting := make(chan struct{})
	f.await = func(ctx context.Context, p fsm.PartitionID, from fsm.Offset) error {
		close(waiting)
		<-ctx.Done()
		return ctx.Err()
	}
	g := serve(t, f, nil)
	ws, _, err := g.dialWS(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	if err := ws.WriteMessage(websocket.BinaryMessage, encode(7, fetchOf("events", 0, 0, time.Minute, 1, 1000))); err != nil {
		t.Fatal(err)
	}
	<-waiting
	if err := ws.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("the goodbye is answered with %v", err)
	}
	ws.Close()
	if err := g.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if logs := g.logs.String(); strings.Contains(logs, "WARN") {
		t.Errorf("logged: %s", logs)
	}
}

// certificate makes one for the names, signed by itself.
func certificate(t *testing.T, names ...string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// Kafka, HTTP and WebSocket inside TLS, on the port that takes plaintext from
// loopback as well.
func TestTLS(t *testing.T) {
	cert, roots := certificate(t, "kafka.example")
	g := serve(t, newFake(t, "events"), func(cfg *Config) { cfg.TLS = &tls.Config{Certificates: []tls.Certificate{cert}} })
	client := &tls.Config{RootCAs: roots, ServerName: "kafka.example"}

	b := g.dialTLS(client).do(metadataOf("events")).(*kmsg.MetadataResponse).Brokers[0]
	if _, port, _ := net.SplitHostPort(g.addr); b.Host != "kafka.example" || fmt.Sprint(b.Port) != port {
		t.Errorf("the address used is %+v", b)
	}
	if b := g.dial().do(metadataOf("events")).(*kmsg.MetadataResponse).Brokers[0]; b.Host != "127.0.0.1" {
		t.Errorf("plaintext from loopback: %+v", b)
	}
	resp, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: client, DisableKeepAlives: true}}).Get("https://" + g.addr + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("https: %d", resp.StatusCode)
	}
	dialer := websocket.Dialer{TLSClientConfig: client}
	ws, wsResp, err := dialer.Dial("wss://"+g.addr+"/", http.Header{"Host": {"kafka.example"}})
	if err != nil {
		t.Fatal(err)
	}
	wsResp.Body.Close()
	defer ws.Close()
	b = newClient(t, shim.NewConn(ws, 0)).do(metadataOf()).(*kmsg.MetadataResponse).Brokers[0]
	if b.Host != "kafka.example" || b.Port != 443 {
		t.Errorf("wss without port: %+v", b)
	}
	twice := g.dialTLS(client)
	twice.send([]byte{0x16, 3, 1, 0, 1, 0})
	twice.closed()
}

func TestTLSIsRefusedWithoutACertificate(t *testing.T) {
	g := serve(t, newFake(t), nil)
	c := g.dial()
	c.send([]byte{0x16, 3, 1, 0, 1, 0})
	c.closed()
}

// from makes connections look as if they came from elsewhere.
type from struct {
	net.Listener
	remote net.Addr
}

type fromConn struct {
	net.Conn
	remote net.Addr
}

func (l from) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return fromConn{c, l.remote}, nil
}

func (c fromConn) RemoteAddr() net.Addr { return c.remote }

func TestPlaintextFromBeyondLoopbackIsRefusedWithTLS(t *testing.T) {
	cert, roots := certificate(t, "kafka.example")
	g := serve(t, newFake(t, "events"), func(cfg *Config) { cfg.TLS = &tls.Config{Certificates: []tls.Certificate{cert}} })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = g.Serve(from{l, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1234}}) }()
	far := &gatewayOf{Server: g.Server, t: t, addr: l.Addr().String(), logs: g.logs}
	for _, first := range [][]byte{encode(1, metadataOf()), []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")} {
		c := far.dial()
		c.send(first)
		c.closed()
	}
	far.dialTLS(&tls.Config{RootCAs: roots, ServerName: "kafka.example"}).do(metadataOf("events"))
}
