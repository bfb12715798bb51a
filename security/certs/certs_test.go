package certs

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func newCA(t *testing.T, life time.Duration) *CA {
	t.Helper()
	ca, err := NewCA(life)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func parsed(t *testing.T, p Pair) *x509.Certificate {
	t.Helper()
	cert, err := parseOne(p.Cert)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestACertificateNamesItsNode(t *testing.T) {
	ca := newCA(t, time.Hour)
	node, err := ca.Node("n-1", []string{"kafka-1", "10.0.0.1"}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	cert := parsed(t, node)
	if id, err := NodeOf(cert); id != "n-1" || err != nil {
		t.Errorf("%q, %v", id, err)
	}
	for _, name := range []string{"kafka-1", "10.0.0.1"} {
		if err := cert.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	client, err := ca.Client("alice", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	cert = parsed(t, client)
	if id, err := NodeOf(cert); id != "" || err != nil {
		t.Errorf("a client's: %q, %v", id, err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err == nil {
		t.Error("a client's certificate is good for a server")
	}
	for _, id := range []string{"", "N1", "a/b", "a.b", strings.Repeat("a", 64)} {
		if _, err := ca.Node(id, nil, time.Minute); err == nil {
			t.Errorf("a certificate for node %q", id)
		}
	}
}

func TestNamesThatNoNodeHas(t *testing.T) {
	uri := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for _, test := range []struct {
		uris []*url.URL
		id   string
		ok   bool
	}{
		{nil, "", true},
		{[]*url.URL{uri("spiffe://x/trimaran/node/n1")}, "", true},
		{[]*url.URL{uri("spiffe://x/y"), NodeURI("n1")}, "n1", true},
		{[]*url.URL{NodeURI("n1"), NodeURI("n2")}, "", false},
		{[]*url.URL{NodeURI("n1"), NodeURI("n1")}, "", false},
		{[]*url.URL{uri("trimaran://node/n1/")}, "", false},
		{[]*url.URL{uri("trimaran://node/n1?x")}, "", false},
		{[]*url.URL{uri("trimaran://node/n1#x")}, "", false},
		{[]*url.URL{uri("trimaran://u@node/n1")}, "", false},
		{[]*url.URL{uri("trimaran://node:1/n1")}, "", false},
		{[]*url.URL{uri("trimaran://node/n%31")}, "", false},
		{[]*url.URL{uri("trimaran://node/N1")}, "", false},
		{[]*url.URL{uri("trimaran://client/n1")}, "", false},
		{[]*url.URL{uri("trimaran:node/n1")}, "", false},
		{[]*url.URL{uri("trimaran://node/")}, "", false},
	} {
		id, err := NodeOf(&x509.Certificate{URIs: test.uris})
		if id != test.id || (err == nil) != test.ok {
			t.Errorf("%v: %q, %v", test.uris, id, err)
		}
	}
}

// FuzzNodeOf: a name that is taken is a node id, and its URI is exactly the one made of it.
func FuzzNodeOf(f *testing.F) {
	for _, s := range []string{"trimaran://node/n1", "trimaran://node/n%31", "TRIMARAN://node/n1", "trimaran://node//n1", "spiffe://a/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := url.Parse(s)
		if err != nil {
			return
		}
		id, err := NodeOf(&x509.Certificate{URIs: []*url.URL{u}})
		if err != nil && (id != "" || !errors.Is(err, ErrName)) {
			t.Errorf("%q: %q, %v", s, id, err)
		}
		if id != "" && (!validNodeID(id) || NodeURI(id).String() != u.String()) {
			t.Errorf("%q is taken as %q", s, id)
		}
	})
}

func TestFilesAreForTheirOwnerAndNotOverwritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	ca := newCA(t, time.Hour)
	cert, key, err := ca.Save(dir, "ca", false)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{cert, key} {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	other := newCA(t, time.Hour)
	if _, _, err := other.Save(dir, "ca", false); !errors.Is(err, fs.ErrExist) {
		t.Errorf("saved over another: %v", err)
	}
	back, err := LoadCA(dir, "ca")
	if err != nil || string(back.Key) != string(ca.Key) {
		t.Fatalf("%v", err)
	}
	if _, _, err := other.Save(dir, "ca", true); err != nil {
		t.Error(err)
	}
	if back, err = LoadCA(dir, "ca"); err != nil || string(back.Key) != string(other.Key) {
		t.Errorf("%v", err)
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 2 {
		t.Errorf("%v", left)
	}
	if _, err := ReadCA(Pair{Cert: ca.Cert, Key: other.Key}); err == nil {
		t.Error("a key of another CA")
	}
	if node, err := ca.Node("n1", nil, 24*time.Hour); err != nil || parsed(t, node).NotAfter.After(ca.cert.NotAfter) {
		t.Errorf("valid for longer than its CA: %v", err)
	}
}

// put saves a node's certificate and its CA where Files says.
func put(t *testing.T, f Files, pair Pair, cas ...*CA) {
	t.Helper()
	var roots []byte
	for _, ca := range cas {
		roots = append(roots, ca.Cert...)
	}
	for name, data := range map[string][]byte{f.Cert: pair.Cert, f.Key: pair.Key, f.CA: roots} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFilesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	f := Files{filepath.Join(dir, "c"), filepath.Join(dir, "k"), filepath.Join(dir, "ca")}
	ca, second := newCA(t, time.Hour), newCA(t, time.Hour)
	node := func(ca *CA, id string) Pair {
		p, err := ca.Node(id, nil, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	put(t, f, node(ca, "n1"), ca)
	w, err := Watch(f, func(b *Bundle) error {
		if id, _ := NodeOf(b.Leaf); id != "n1" {
			return errors.New("another node's")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	first := w.Now()
	expect := func(what string, changed, fails bool) {
		t.Helper()
		got, err := w.Reload()
		if got != changed || (err != nil) != fails {
			t.Errorf("%s: changed %v, %v", what, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: the error shows a key", what)
		}
	}
	expect("nothing", false, false)
	fresh := node(second, "n1")
	if err := os.WriteFile(f.Cert, fresh.Cert, 0o600); err != nil {
		t.Fatal(err)
	}
	expect("the certificate before its key", false, true)
	expect("the same again", false, false)
	put(t, f, fresh, ca)
	expect("signed by a CA that is not there", false, true)
	if w.Now() != first {
		t.Error("what was read before is gone")
	}
	put(t, f, fresh, ca, second)
	expect("both CAs", true, false)
	if len(w.Now().Roots) != 2 {
		t.Errorf("%d CAs", len(w.Now().Roots))
	}
	put(t, f, node(second, "n2"), second)
	expect("another node's", false, true)
	expect("another node's again", false, false)
	put(t, f, node(newCA(t, time.Hour), "n1"), second)
	expect("a foreign CA's", false, true)
	if err := os.Remove(f.Key); err != nil {
		t.Fatal(err)
	}
	expect("no key", false, true)
	put(t, f, fresh, second)
	expect("the first CA goes", true, false)
}

func TestWhatCannotBeUsedIsRefused(t *testing.T) {
	dir := t.TempDir()
	f := Files{filepath.Join(dir, "c"), filepath.Join(dir, "k"), filepath.Join(dir, "ca")}
	ca := newCA(t, time.Hour)
	old, err := ca.Node("n1", nil, -time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	client, err := ca.Client("alice", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for what, pair := range map[string]Pair{"expired": old, "a client's": client, "empty": {}, "the CA itself": ca.Pair} {
		put(t, f, pair, ca)
		if _, err := f.Load(); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
	if err := os.WriteFile(f.CA, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Load(); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a large file: %v", err)
	}
}
