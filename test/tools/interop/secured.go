package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// With -secured every client logs in, over TLS: by each mechanism, to a node and through the shim
// (securedcell.go), and, with -kill, while the nodes behind the shim are killed one after the other
// (securedkill.go). Rights are judged, too.

// mechanisms are the ways to log in.
var mechanisms = []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"}

// cannot says which mechanism a client does not have, and why.
var cannot = map[string]map[string]string{
	"java 0.11.0.3": {"OAUTHBEARER": "came with 2.0 (KIP-255)"},
	"kcat":          {"OAUTHBEARER": "kcat hands no token over, and Debian's librdkafka is without OIDC"},
	"kafka-go":      {"OAUTHBEARER": "it has none"},
}

// tokenless says whose admin client cannot log in with a token, and why.
var tokenless = map[string]string{
	"rust rdkafka":         "its AdminClient does not ask for a token",
	"confluent-javascript": "createTopics of its admin client does not end with a token",
}

// quickly are the clients of -secured -quick.
var quickly = []string{"java 4.4.0", "kcat", "kafka-python", "franz-go", "kafkajs"}

// What is in the login files. Every name but the wrong one's may use topics and groups that begin
// with interop.
const (
	rightUser    = "alice"
	oddUser      = "bob"
	oddPassword  = "pä§§=,wörd"
	wrongUser    = "mallory"
	adminUser    = "admin"
	issuer       = "https://issuer.example"
	audience     = "interop"
	storeSecret  = "interop"
	securedTopic = "interop"
)

// guard is what a secured cluster has beside its nodes.
type guard struct {
	dir       string // certificates, keys
	mu        sync.Mutex
	passwords map[string]string // by user
	tokens    map[string]string // by user; the wrong user's is signed by nobody
	relay     *relay            // before the shim
}

// startSecured starts a cluster whose clients have to log in, with users and ACLs.
func (b *bench) startSecured(ctx context.Context) error {
	g := &guard{dir: filepath.Join(b.work, "secrets"), passwords: map[string]string{}, tokens: map[string]string{}}
	b.guard = g
	if err := g.certificates(ctx); err != nil {
		return err
	}
	if err := g.makeTokens(); err != nil {
		return err
	}
	var err error
	if g.relay, err = newRelay(); err != nil {
		return err
	}
	file := func(name string) string { return filepath.Join(g.dir, name) }
	b.cluster, err = harness.Start(harness.Options{
		Dir: filepath.Join(b.work, "cluster"), ShimTLS: true, BySocket: true,
		NodeArgs: []string{"--tls-cert", file("server.crt"), "--tls-key", file("server.key"),
			"--sasl-mechanisms", strings.Join(mechanisms, ","), "--authorize", "--super-users", "User:" + adminUser,
			"--oauth-jwks", file("jwks.json"), "--oauth-issuer", issuer, "--oauth-audience", audience,
			"--audit-log", file("audit.log"), "--trusted-proxy", "127.0.0.1"},
		ShimArgs: []string{"--tls-ca", file("ca.crt"), "--advertise", g.relay.addr(),
			"--listen-tls-cert", file("server.crt"), "--listen-tls-key", file("server.key")},
	})
	if err != nil {
		return err
	}
	g.relay.lead(b.cluster.ShimAddr())
	b.addrs, b.shimAddr = b.cluster.Addrs(), g.relay.addr()
	for _, n := range b.cluster.Nodes {
		b.looks = append(b.looks, n.Driver())
	}
	b.driverAddr = strings.Join(b.looks, ",")
	return b.admit(ctx)
}

// certificates makes them as an operator does, and a store of the CA for Java.
func (g *guard) certificates(ctx context.Context) error {
	if err := os.MkdirAll(g.dir, 0o700); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"cert", "ca", "--dir", g.dir},
		{"cert", "node", "server", "--host", "localhost,127.0.0.1", "--dir", g.dir},
	} {
		if _, err := trimaran(ctx, "", args...); err != nil {
			return err
		}
	}
	if err := need("keytool"); err != nil {
		return nil // Java's clients are missing then
	}
	return command(ctx, g.dir, nil, "keytool", "-importcert", "-noprompt", "-alias", "ca", "-file", "ca.crt",
		"-keystore", "ca.p12", "-storetype", "PKCS12", "-storepass", storeSecret)
}

// trimaran runs a command of ours.
func trimaran(ctx context.Context, stdin string, args ...string) (string, error) {
	program, err := harness.Program("trimaran")
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("trimaran %s: %w: %s", strings.Join(args, " "), err, lastLines(complaint.Bytes(), 2))
	}
	return out.String(), nil
}

// admit makes the users and gives them their rights. The cluster may have to raise its level first.
func (b *bench) admit(ctx context.Context) error {
	node := []string{"--brokers", "unix:" + b.cluster.Node(1).Data}
	for user, password := range map[string]string{rightUser: "right", oddUser: oddPassword, adminUser: "all", wrongUser: ""} {
		args, in := append([]string{"user", "create", user}, node...), ""
		if password != "" {
			args, in = append(args, "--password-stdin"), password+"\n"
		}
		var last error
		if err := harness.Eventually(30*time.Second, func() bool {
			_, last = trimaran(ctx, in, args...)
			return last == nil
		}); err != nil {
			return errors.Join(err, last)
		}
		b.guard.setPassword(user, password)
	}
	b.guard.setPassword(wrongUser, "wrong")
	for _, user := range []string{rightUser, oddUser} {
		args := []string{"acl", "add", "--principal", "User:" + user, "--topic-prefix", securedTopic, "--group-prefix", securedTopic, "--operation", "all"}
		if _, err := trimaran(ctx, "", append(args, node...)...); err != nil {
			return err
		}
	}
	return nil
}

// makeTokens makes an identity provider's key, and tokens by it.
func (g *guard) makeTokens() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	nobodys, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	public, err := key.PublicKey.Bytes()
	if err != nil {
		return err
	}
	text := base64.RawURLEncoding.EncodeToString
	set := map[string]any{"keys": []any{map[string]string{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "interop",
		"x": text(public[1:33]), "y": text(public[33:])}}}
	content, err := json.Marshal(set)
	if err != nil {
		return err
	}
	for user, signer := range map[string]*ecdsa.PrivateKey{rightUser: key, adminUser: key, wrongUser: nobodys} {
		if g.tokens[user], err = token(user, signer); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(g.dir, "jwks.json"), content, 0o600)
}

// token makes a token of two hours.
func token(user string, key *ecdsa.PrivateKey) (string, error) {
	now := time.Now().Unix()
	claims, err := json.Marshal(map[string]any{"iss": issuer, "aud": audience, "sub": user, "iat": now, "exp": now + 7200})
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString
	signed := text([]byte(`{"alg":"ES256","typ":"JWT","kid":"interop"}`)) + "." + text(claims)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		return "", err
	}
	var signature [64]byte
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return signed + "." + text(signature[:]), nil
}

func (g *guard) setPassword(user, password string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.passwords[user] = password
}

func (g *guard) password(user string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.passwords[user]
}

// login writes a file by which a client of the contract logs in, and gives its name.
func (g *guard) login(dir, mechanism, user string) (string, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", err
	}
	file := filepath.Join(dir, user+".login")
	content := fmt.Sprintf("mechanism=%s\nuser=%s\npassword=%s\ntoken=%s\nca=%s\ntruststore=%s\n", mechanism, user,
		g.password(user), g.tokens[user], filepath.Join(g.dir, "ca.crt"), filepath.Join(g.dir, "ca.p12"))
	return file, os.WriteFile(file, []byte(content), 0o600)
}
