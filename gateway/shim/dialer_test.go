package shim

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/net/proxy"
)

// What clients want of a dialer: sarama takes the first two shapes, franz-go the
// function.
var (
	_ proxy.Dialer                                                               = (*Dialer)(nil)
	_ proxy.ContextDialer                                                        = (*Dialer)(nil)
	_ func(ctx context.Context, network, host string) (conn net.Conn, err error) = (&Dialer{}).DialContext
)

// authority makes a certificate authority and a certificate for name.
func authority(t *testing.T, name string) (roots *x509.CertPool, server tls.Certificate) {
	t.Helper()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	template := func(serial int64, ca bool) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IsCA: ca, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		}
	}
	caKey, serverKey := key(), key()
	ca := template(1, true)
	leaf := template(2, false)
	leaf.DNSNames = []string{name}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, &serverKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := x509.ParseCertificate(caDER)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(signed)
	return roots, tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: serverKey}
}

func TestTLSChecksTheCertificate(t *testing.T) {
	roots, certificate := authority(t, "kafka.internal")
	others, _ := authority(t, "kafka.internal")
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := new(websocket.Upgrader).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		echo(ws, r)
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.Config.ErrorLog = discard
	server.StartTLS()
	defer server.Close()
	addr := strings.TrimPrefix(server.URL, "https://")

	d := &Dialer{TLSConfig: &tls.Config{RootCAs: roots, ServerName: "kafka.internal"}}
	message := kafkaMessage(bytes.Repeat([]byte("x"), 200_000))
	for name, dial := range map[string]func() (net.Conn, error){
		"Dial": func() (net.Conn, error) { return d.Dial("tcp", addr) },
		"DialURL": func() (net.Conn, error) {
			return d.DialURL(context.Background(), "wss://"+addr)
		},
	} {
		conn, err := dial()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := make([]byte, len(message))
		if _, err := conn.Write(message); err != nil {
			t.Error(err)
		} else if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, message) {
			t.Errorf("%s: %v", name, err)
		}
		if err := conn.Close(); err != nil {
			t.Errorf("%s: close: %v", name, err)
		}
	}
	for name, config := range map[string]*tls.Config{
		"another name":      {RootCAs: roots},
		"another authority": {RootCAs: others, ServerName: "kafka.internal"},
		"the system's":      {ServerName: "kafka.internal"},
	} {
		if conn, err := (&Dialer{TLSConfig: config}).Dial("tcp", addr); err == nil {
			conn.Close()
			t.Errorf("%s: connected", name)
		}
	}
}

func TestDialingEndsWithItsContext(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // it takes the connection and says nothing
		conn, err := listener.Accept()
		cancel()
		if err == nil {
			_, _ = io.Copy(io.Discard, conn)
			conn.Close()
		}
	}()
	if _, err := (&Dialer{HandshakeTimeout: time.Minute}).DialContext(ctx, "tcp", listener.Addr().String()); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestTheConnectionOutlivesTheContextOfDialing(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	conn, err := (&Dialer{}).DialContext(ctx, "tcp", gateway(t, echo))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cancel()
	message := kafkaMessage([]byte("x"))
	if _, err := conn.Write(message); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, len(message))); err != nil {
		t.Fatal(err)
	}
}
