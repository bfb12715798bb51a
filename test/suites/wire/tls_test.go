package wire

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/trimaran-io/trimaran/test/harness"
)

// authority makes a certificate authority of its own and a certificate of it for
// localhost, 127.0.0.1 and broker.test; all three as PEM files in dir.
func authority(t *testing.T, dir string) (ca, cert, key string, pool *x509.CertPool) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	now := time.Now()
	caTemplate := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, caTemplate, caTemplate, &caKey.PublicKey, caKey)
	check(err)
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "broker.test"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		DNSNames: []string{"localhost", "broker.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, caTemplate, &leafKey.PublicKey, caKey)
	check(err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	check(err)
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		check(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	pool = x509.NewCertPool()
	caCert, err := x509.ParseCertificate(caDER)
	check(err)
	pool.AddCert(caCert)
	return write("ca.pem", "CERTIFICATE", caDER), write("cert.pem", "CERTIFICATE", leafDER), write("key.pem", "PRIVATE KEY", keyDER), pool
}

// With a certificate the same port speaks TLS: Kafka over TLS, wss and https,
// and the shim reaches it with the authority that it is told to trust.
func TestTLS(t *testing.T) {
	ca, cert, key, pool := authority(t, t.TempDir())
	c := harness.New(t, harness.Options{
		Nodes: 1, NodeArgs: []string{"--tls-cert", cert, "--tls-key", key},
		ShimTLS: true, ShimArgs: []string{"--tls-ca", ca},
	})
	node := c.Node(1)
	if err := c.CreateTopic(t.Context(), "tls", 1, 1); err != nil {
		t.Fatal(err)
	}
	produced := int64(0)
	use := func(t *testing.T, w *harness.Wire, host string) {
		t.Helper()
		if base, err := w.Produce("tls", 0, -1, "secret"); err != nil || base != produced {
			t.Fatalf("offset %d, want %d, %v", base, produced, err)
		}
		produced++
		m, err := w.Metadata("tls")
		if err != nil {
			t.Fatal(err)
		}
		if m.Brokers[0].Host != host {
			t.Errorf("Metadata names %s, want %s", m.Brokers[0].Host, host)
		}
	}
	t.Run("Kafka over TLS", func(t *testing.T) {
		for _, name := range []string{"localhost", "broker.test"} {
			conn, err := tls.Dial("tcp", node.Addr(), &tls.Config{RootCAs: pool, ServerName: name})
			if err != nil {
				t.Fatal(err)
			}
			use(t, harness.NewWire(conn), name)
			conn.Close()
		}
	})
	t.Run("an old TLS version is refused", func(t *testing.T) {
		conn, err := tls.Dial("tcp", node.Addr(), &tls.Config{RootCAs: pool, ServerName: "localhost", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
		if err == nil {
			conn.Close()
			t.Error("TLS 1.1 was accepted")
		}
	})
	t.Run("wss", func(t *testing.T) {
		d := &websocket.Dialer{TLSClientConfig: &tls.Config{RootCAs: pool}}
		ws, err := harness.DialWS(d, "wss://"+node.Addr()+"/")
		if err != nil {
			t.Fatal(err)
		}
		defer ws.Close()
		use(t, harness.NewWire(wsNetConn{ws}), "127.0.0.1")
	})
	t.Run("https", func(t *testing.T) {
		client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
		resp, err := client.Get("https://" + node.Addr() + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("/readyz over https: %d", resp.StatusCode)
		}
	})
	t.Run("the shim", func(t *testing.T) {
		use(t, dial(t, c.ShimAddr()), "127.0.0.1")
	})
	t.Run("plaintext from loopback", func(t *testing.T) {
		use(t, dial(t, node.Addr()), "127.0.0.1")
	})
}

// A shim that does not trust the gateway's authority carries nothing, and says so.
func TestShimRefusesUnknownAuthority(t *testing.T) {
	_, cert, key, _ := authority(t, t.TempDir())
	other, _, _, _ := authority(t, t.TempDir())
	c := harness.New(t, harness.Options{
		Nodes: 1, NodeArgs: []string{"--tls-cert", cert, "--tls-key", key},
		ShimTLS: true, ShimArgs: []string{"--tls-ca", other},
	})
	w := dial(t, c.ShimAddr())
	if err := w.Send(harness.Request(3, 0, 1, harness.Int32(nil, 0))); err != nil {
		t.Fatal(err)
	}
	if err := harness.Eventually(20*time.Second, func() bool {
		return len(c.Shim.Output()) > 0 && containsAny(c.Shim.Output(), "certificate", "x509", "unknown authority")
	}); err != nil {
		t.Errorf("the shim does not say why:\n%s", c.Shim.Tail(10))
	}
	w.Conn.SetDeadline(time.Now().Add(time.Second))
	if _, answer, err := w.ReadFrame(); err == nil {
		t.Fatalf("served: %x", answer)
	}
}

// --advertise is what plain TCP clients are told, whatever address they used.
func TestAdvertise(t *testing.T) {
	c := harness.New(t, harness.Options{Nodes: 1, NodeArgs: []string{"--advertise", "kafka.test:19092"}})
	m, err := dial(t, c.Node(1).Addr()).Metadata()
	if err != nil {
		t.Fatal(err)
	}
	if b := m.Brokers[0]; b.Host != "kafka.test" || b.Port != 19092 {
		t.Errorf("a TCP client is told %s:%d", b.Host, b.Port)
	}
	m, err = dial(t, c.ShimAddr()).Metadata()
	if err != nil {
		t.Fatal(err)
	}
	if got := harness.Loopback(int(m.Brokers[0].Port)); m.Brokers[0].Host != "127.0.0.1" || got != c.ShimAddr() {
		t.Errorf("behind the shim a client is told %s:%d, the shim is %s", m.Brokers[0].Host, m.Brokers[0].Port, c.ShimAddr())
	}
}
