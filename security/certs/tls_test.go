package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// write makes a certificate that is its own CA, and gives its name.
func write(t *testing.T, dir, name string) Files {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"node"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	f := Files{Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key"), CA: filepath.Join(dir, "ca")}
	for file, block := range map[string]*pem.Block{
		f.Cert: {Type: "CERTIFICATE", Bytes: der}, f.Key: {Type: "PRIVATE KEY", Bytes: secret}, f.CA: {Type: "CERTIFICATE", Bytes: der},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// meet has a client and a server shake hands, and gives who each of them sees.
func meet(server, client *tls.Config) (seenByClient, seenByServer string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	defer l.Close()
	b, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return "", "", err
	}
	defer b.Close()
	a, err := l.Accept()
	if err != nil {
		return "", "", err
	}
	defer a.Close()
	s, c := tls.Server(a, server), tls.Client(b, client)
	done := make(chan error, 1)
	go func() {
		done <- s.Handshake()
		_, _ = s.Write([]byte("x"))
	}()
	if err := c.Handshake(); err != nil {
		a.Close()
		<-done
		return "", "", err
	}
	// With TLS 1.3 it is refused after the client's end.
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		a.Close()
		<-done
		return "", "", err
	}
	if err := <-done; err != nil {
		return "", "", err
	}
	seenByClient = c.ConnectionState().PeerCertificates[0].Subject.CommonName
	if peers := s.ConnectionState().PeerCertificates; len(peers) > 0 {
		seenByServer = peers[0].Subject.CommonName
	}
	return seenByClient, seenByServer, nil
}

func TestCertificatesAreReadAnew(t *testing.T) {
	dir := t.TempDir()
	s, err := WatchParts(write(t, dir, "first"))
	if err != nil {
		t.Fatal(err)
	}
	server := s.Server(false)
	if c, sv, err := meet(server, s.Client("node")); err != nil || c != "first" || sv != "first" {
		t.Errorf("%q, %q, %v", c, sv, err)
	}
	if _, _, err := meet(server, &tls.Config{InsecureSkipVerify: true}); err == nil {
		t.Error("a client without a certificate gets in")
	}
	if _, sv, err := meet(s.Server(true), &tls.Config{InsecureSkipVerify: true}); err != nil || sv != "" {
		t.Errorf("a client that need not show a certificate: %v", err)
	}
	old := s.Client("node")
	write(t, dir, "second")
	_, _ = s.Reload()
	if c, sv, err := meet(server, s.Client("node")); err != nil || c != "second" || sv != "second" {
		t.Errorf("%q, %q, %v", c, sv, err)
	}
	if _, _, err := meet(server, old); err == nil {
		t.Error("a client trusts what is no more")
	}
	if err := os.WriteFile(filepath.Join(dir, "key"), []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _ = s.Reload()
	if c, _, err := meet(server, s.Client("node")); err != nil || c != "second" {
		t.Errorf("with a broken key: %q, %v", c, err)
	}
}

func TestPartsOfFiles(t *testing.T) {
	f := write(t, t.TempDir(), "a")
	for name, bad := range map[string]Files{
		"no key": {Cert: f.Cert}, "no certificate": {Key: f.Key}, "not there": {CA: f.CA + "x"}, "a key for a CA": {CA: f.Key}, "a CA for a key": {Cert: f.Cert, Key: f.CA},
	} {
		if _, err := WatchParts(bad); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if s, err := WatchParts(Files{CA: f.CA}); err != nil || s.Client("").GetClientCertificate != nil {
		t.Errorf("a CA alone: %v", err)
	}
}
