package secured

import (
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/oauth"

	"github.com/trimaran-io/trimaran/test/harness"
)

// provider is an identity provider of the test's own: tokens are put together by hand, so that they
// can be wrong in every way.
type provider struct {
	key     *rsa.PrivateKey
	server  *httptest.Server
	fetches atomic.Int64
	ca      string // PEM file
}

const (
	issuer   = "https://id.example"
	audience = "trimaran-test"
)

func encoded(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func newProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{}
	var err error
	p.key, err = rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	set, err := json.Marshal(map[string]any{"keys": []any{map[string]string{
		"kty": "RSA", "kid": "k1", "use": "sig", "n": encoded(p.key.N.Bytes()), "e": encoded(big.NewInt(int64(p.key.E)).Bytes()),
	}}})
	must(t, err)
	p.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.fetches.Add(1)
		_, _ = w.Write(set)
	}))
	t.Cleanup(p.server.Close)
	p.ca = filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(p.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.server.Certificate().Raw}), 0o600))
	return p
}

type fields map[string]any

// token signs what it is told to; change says what is unlike a token that is right.
func (p *provider) token(t testing.TB, change func(head, claims fields) (sign func(text string) []byte)) string {
	t.Helper()
	now := time.Now()
	head := fields{"alg": "RS256", "kid": "k1", "typ": "JWT"}
	claims := fields{"iss": issuer, "aud": audience, "sub": "alice", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	sign := p.rs256
	if change != nil {
		if other := change(head, claims); other != nil {
			sign = other
		}
	}
	var parts []string
	for _, part := range []fields{head, claims} {
		b, err := json.Marshal(part)
		must(t, err)
		parts = append(parts, encoded(b))
	}
	text := strings.Join(parts, ".")
	return text + "." + encoded(sign(text))
}

func (p *provider) rs256(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, p.key, crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return signature
}

func hs256(secret []byte) func(string) []byte {
	return func(text string) []byte {
		m := hmac.New(sha256.New, secret)
		m.Write([]byte(text))
		return m.Sum(nil)
	}
}

// TestForgedTokens: none of them gets anybody in, one that is right does; and however many name
// keys that nobody knows, these are fetched once in a minute.
func TestForgedTokens(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	began := time.Now()
	c := harness.New(t, harness.Options{
		Nodes: 1, NoShim: true, Env: []string{"SSL_CERT_FILE=" + p.ca},
		NodeArgs: append([]string{"--oauth-jwks", p.server.URL, "--oauth-issuer", issuer, "--oauth-audience", audience}, locked...),
	})
	n := c.Node(1)
	try := func(text string) error {
		cl, err := kgo.NewClient(kgo.SeedBrokers(n.Addr()), kgo.RequestRetries(0), kgo.RetryTimeout(3*time.Second), kgo.SASL(oauth.Auth{Token: text}.AsMechanism()))
		must(t, err)
		defer cl.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err = cl.SeedBrokers()[0].Request(ctx, kmsg.NewPtrMetadataRequest())
		return err
	}
	right := p.token(t, nil)
	must(t, harness.Eventually(patience, func() bool { return try(right) == nil }))
	der, err := x509.MarshalPKIXPublicKey(&p.key.PublicKey)
	must(t, err)
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	type changed = func(head, claims fields) func(string) []byte
	for what, change := range map[string]changed{
		"alg none": func(head, _ fields) func(string) []byte {
			head["alg"] = "none"
			return func(string) []byte { return nil }
		},
		"alg none, and signed":         func(head, _ fields) func(string) []byte { head["alg"] = "nOnE"; return nil },
		"HS256 by the public key, PEM": func(head, _ fields) func(string) []byte { head["alg"] = "HS256"; return hs256(publicPEM) },
		"HS256 by the public key, DER": func(head, _ fields) func(string) []byte { head["alg"] = "HS256"; return hs256(der) },
		"HS256 by the public key, n":   func(head, _ fields) func(string) []byte { head["alg"] = "HS256"; return hs256(p.key.N.Bytes()) },
		"a foreign audience":           func(_, claims fields) func(string) []byte { claims["aud"] = "elsewhere"; return nil },
		"no audience":                  func(_, claims fields) func(string) []byte { delete(claims, "aud"); return nil },
		"a foreign issuer":             func(_, claims fields) func(string) []byte { claims["iss"] = "https://evil.example"; return nil },
		"the cluster as issuer":        func(_, claims fields) func(string) []byte { claims["iss"] = "trimaran:"; return nil },
		"expired": func(_, claims fields) func(string) []byte {
			claims["exp"], claims["iat"] = at(-time.Minute), at(-time.Hour)
			return nil
		},
		"not yet":                       func(_, claims fields) func(string) []byte { claims["nbf"] = at(10 * time.Minute); return nil },
		"issued in the future":          func(_, claims fields) func(string) []byte { claims["iat"] = at(10 * time.Minute); return nil },
		"without end":                   func(_, claims fields) func(string) []byte { delete(claims, "exp"); return nil },
		"without beginning":             func(_, claims fields) func(string) []byte { delete(claims, "iat"); return nil },
		"for a year":                    func(_, claims fields) func(string) []byte { claims["exp"] = at(365 * 24 * time.Hour); return nil },
		"an end that no clock has":      func(_, claims fields) func(string) []byte { claims["exp"] = 1e300; return nil },
		"nobody":                        func(_, claims fields) func(string) []byte { claims["sub"] = ""; return nil },
		"a name that is a list":         func(_, claims fields) func(string) []byte { claims["sub"] = []string{"alice"}; return nil },
		"an unknown key":                func(head, _ fields) func(string) []byte { head["kid"] = "k2"; return nil },
		"a path as key":                 func(head, _ fields) func(string) []byte { head["kid"] = "../../../../dev/null"; return hs256(nil) },
		"a key of its own":              func(head, _ fields) func(string) []byte { return signedBy(other, head, "jwk") },
		"a key from elsewhere":          func(head, _ fields) func(string) []byte { return signedBy(other, head, "jku") },
		"a header that must be known":   func(head, _ fields) func(string) []byte { head["crit"], head["x"] = []string{"x"}, 1; return nil },
		"of another key":                func(_, _ fields) func(string) []byte { return signedBy(other, fields{}, "") },
		"an algorithm of another kind":  func(head, _ fields) func(string) []byte { head["alg"] = "ES256"; return nil },
		"a hash of another kind":        func(head, _ fields) func(string) []byte { head["alg"] = "RS512"; return nil },
		"too long":                      func(_, claims fields) func(string) []byte { claims["more"] = strings.Repeat("a", 20<<10); return nil },
		"without a key, of another key": func(head, _ fields) func(string) []byte { delete(head, "kid"); return signedBy(other, fields{}, "") },
	} {
		if try(p.token(t, change)) == nil {
			t.Errorf("%s: it is taken", what)
		}
	}
	parts := strings.Split(right, ".")
	for what, text := range map[string]string{
		"without a signature": parts[0] + "." + parts[1] + ".", "two parts": parts[0] + "." + parts[1],
		"other claims":   parts[0] + "." + encoded([]byte(`{"iss":"`+issuer+`","aud":"`+audience+`","sub":"admin"}`)) + "." + parts[2],
		"many parts":     strings.Repeat(".", 8000),
		"nested":         right + "." + right,
		"JSON":           fmt.Sprintf(`{"payload":%q,"signatures":[{"protected":%q,"signature":%q}]}`, parts[1], parts[0], parts[2]),
		"nothing at all": "x",
	} {
		if try(text) == nil {
			t.Errorf("%s: it is taken", what)
		}
	}
	if err := harness.Eventually(patience, func() bool { return try(right) == nil }); err != nil {
		t.Errorf("one that is right is not taken afterwards: %v", err)
	}
	flood(t, n, p)
	minutes := int64(time.Since(began)/time.Minute) + 1
	if got := p.fetches.Load(); got > minutes {
		t.Errorf("the keys were fetched %d times in %v", got, time.Since(began))
	}
	t.Logf("the keys were fetched %d times in %v", p.fetches.Load(), time.Since(began).Round(time.Second))
}

func signedBy(key *rsa.PrivateKey, head fields, header string) func(string) []byte {
	switch header {
	case "jwk":
		head["jwk"] = map[string]string{"kty": "RSA", "n": encoded(key.N.Bytes()), "e": "AQAB"}
	case "jku":
		head["jku"] = "https://evil.example/keys"
	}
	return (&provider{key: key}).rs256
}

// flood sends 10,000 tokens of unknown keys, from addresses of loopback of which none is held back.
func flood(t *testing.T, n *harness.Node, p *provider) {
	const tokens, perHost, at = 10_000, 80, 250
	text := p.token(t, func(head, _ fields) func(string) []byte { head["kid"] = "unknown"; return nil })
	var next atomic.Int64
	var refused atomic.Int64
	var all sync.WaitGroup
	for range at {
		all.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= tokens {
					return
				}
				host := i / perHost
				dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(host>>8), byte(host))}, Timeout: patience}
				if refusedAt(&dialer, n.Addr(), text) {
					refused.Add(1)
				}
			}
		})
	}
	all.Wait()
	if got := refused.Load(); got != tokens {
		t.Errorf("%d of %d were refused in order", got, tokens)
	}
}

// refusedAt shows a token in a WebSocket's handshake, and says whether the answer is 401.
func refusedAt(d *net.Dialer, addr, token string) bool {
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer %s\r\n\r\n", token)
	status := make([]byte, 12)
	_, err = c.Read(status)
	return err == nil && string(status) == "HTTP/1.1 401"
}
