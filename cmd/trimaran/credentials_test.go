package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/gateway/login"
	"github.com/trimaran-io/trimaran/security"
)

func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	password, empty, token := file("password", "pä§§=,wörd\nmore\n"), file("empty", "\n"), file("token", "a.b.c\n")
	t.Setenv(passwordVariable, "from the environment")
	for args, want := range map[string]string{
		"":                                     "",
		"--user a":                             security.ScramSHA512,
		"--user a --password-file " + password: security.ScramSHA512,
		"--user a --sasl-mechanism SCRAM-SHA-256":                       security.ScramSHA256,
		"--user a --sasl-mechanism PLAIN":                               login.Plain,
		"--token-file " + token:                                         login.OAuthBearer,
		"--user a --password-file -":                                    security.ScramSHA512,
		"--user a --sasl-mechanism PLAIN --brokers tls://kafka.example": login.Plain,
		"--user a --brokers kafka.example":                              security.ScramSHA512,
		"--brokers unix:///run/node.sock":                               "",
	} {
		cmd := newNodeList()
		in := strings.NewReader("secret\nrecord")
		cmd.SetIn(in)
		if err := cmd.ParseFlags(strings.Fields(args)); err != nil {
			t.Fatal(err)
		}
		b, err := brokersOf(cmd)
		if err != nil {
			t.Errorf("%q: %v", args, err)
			continue
		}
		got := ""
		if b.mechanism != nil {
			got = b.mechanism.Name()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", args, got, want)
		}
		if strings.HasSuffix(args, "-") && in.Len() != len("record") {
			t.Errorf("%d bytes of what follows the password are left", in.Len())
		}
	}
	for args, text := range map[string]string{
		"--sasl-mechanism PLAIN":                                  "--user",
		"--user a --token-file " + token:                          "one",
		"--user a --sasl-mechanism GSSAPI":                        "GSSAPI",
		"--token-file " + token + " --sasl-mechanism PLAIN":       "OAUTHBEARER",
		"--user a --password-file " + empty:                       "empty",
		"--user a --password-file " + dir + "/none":               "--password-file",
		"--user a --sasl-mechanism PLAIN --brokers kafka.example": "in clear",
		"--token-file " + token + " --brokers ws://kafka.example": "in clear",
		"--tls-cert " + token:                                     "together",
	} {
		var out, errOut bytes.Buffer
		if code := run(append([]string{"node", "list"}, strings.Fields(args)...), strings.NewReader(""), &out, &errOut); code == 0 || !strings.Contains(errOut.String(), text) {
			t.Errorf("%q: %d, %q", args, code, errOut.String())
		}
		if strings.Contains(errOut.String(), "environment") {
			t.Errorf("%q: the password is in %q", args, errOut.String())
		}
	}
}

func TestServeLoginFlags(t *testing.T) {
	for args, text := range map[string]string{
		"--sasl-mechanisms GSSAPI":                           "GSSAPI",
		"--tls-client-ca ca.pem":                             "--tls-cert",
		"--tls-principal email":                              "san-uri",
		"--max-reauth 1s":                                    "minute",
		"--trusted-proxy a.b":                                "network",
		"--max-unauthenticated 0":                            "--max-unauthenticated",
		"--oauth-jwks keys.json":                             "go together",
		"--oauth-jwks k --oauth-issuer i --oauth-audience a": "OAUTHBEARER",
		"--sasl-mechanisms OAUTHBEARER --oauth-jwks http://a.example/k --oauth-issuer i --oauth-audience a": "https",
	} {
		var out, errOut bytes.Buffer
		if code := run(append([]string{"serve", "--data", "not-made"}, strings.Fields(args)...), strings.NewReader(""), &out, &errOut); code != 2 || !strings.Contains(errOut.String(), text) {
			t.Errorf("%q: %d, %q", args, code, errOut.String())
		}
	}
}
