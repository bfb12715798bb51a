package main

import (
	"bytes"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/trimaran-io/trimaran/security/certs"
)

// runs runs a command and gives its exit code and all that it printed.
func runs(args ...string) (code int, printed string) {
	var out bytes.Buffer
	code = run(args, strings.NewReader(""), &out, &out)
	return code, out.String()
}

func TestCertificatesAreMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	if code, said := runs("cert", "node", "n1", "--dir", dir); code != 1 || !strings.Contains(said, "cert ca") {
		t.Errorf("without a CA: %d\n%s", code, said)
	}
	for _, args := range [][]string{
		{"cert", "ca", "--dir", dir},
		{"cert", "node", "n1", "n2", "--dir", dir, "--host", "kafka-1,10.0.0.1"},
		{"cert", "client", "alice", "--dir", dir},
		{"cert", "node", "n1", "--dir", dir, "--replace"},
	} {
		if code, said := runs(args...); code != 0 || strings.Contains(said, "PRIVATE") {
			t.Fatalf("%v: %d\n%s", args, code, said)
		}
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		says string
	}{
		{[]string{"cert", "ca", "--dir", dir}, "exists"},
		{[]string{"cert", "node", "n2", "--dir", dir}, "--replace"},
		{[]string{"cert", "node", "N2", "--dir", dir}, "node id"},
		{[]string{"cert", "node", "ca", "--dir", dir, "--replace"}, "want a name"},
		{[]string{"cert", "client", "../bob", "--dir", dir}, "want a name"},
		{[]string{"cert", "client", "bob", "--dir", dir, "--days", "0"}, "--days"},
		{[]string{"cert", "ca", "--dir", dir, "--replace"}, "unknown flag"},
	} {
		if code, said := runs(test.args...); code == 0 || !strings.Contains(said, test.says) {
			t.Errorf("%v: %d\n%s", test.args, code, said)
		}
	}
	if now, err := os.ReadFile(filepath.Join(dir, "ca.key")); err != nil || !bytes.Equal(now, ca) {
		t.Errorf("the CA was overwritten: %v", err)
	}
	b, err := certs.Files{Cert: filepath.Join(dir, "n2.crt"), Key: filepath.Join(dir, "n2.key"), CA: filepath.Join(dir, "ca.crt")}.Load()
	if err != nil {
		t.Fatal(err)
	}
	if id, err := certs.NodeOf(b.Leaf); id != "n2" || err != nil {
		t.Errorf("%q, %v", id, err)
	}
}

func TestPeerFlagsThatMeanNothingAreRefused(t *testing.T) {
	dir := t.TempDir()
	if code, said := runs("cert", "ca", "--dir", dir); code != 0 {
		t.Fatal(said)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, args := range [][]string{
		{"--peer-tls-cert", at("ca.crt")},
		{"--peer-tls-cert", at("ca.crt"), "--peer-tls-key", at("ca.key")},
		{"--peer-tls-mode", "require"},
		{"--gossip-key-mode", "accept"},
		{"--gossip-key-file", at("none")},
		{"--peer-tls-cert", at("ca.crt"), "--peer-tls-key", at("ca.key"), "--peer-tls-ca", at("ca.crt")},
		{"--peer-tls-cert", at("ca.crt"), "--peer-tls-key", at("ca.key"), "--peer-tls-ca", at("ca.crt"), "--peer-tls-mode", "off"},
	} {
		cmd, err := loaded(t, nil, append([]string{"serve"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		if o, err := peersOf(cmd, nil); err == nil {
			t.Errorf("%v is taken as %+v", args, o)
		}
	}
}

// TestWhichSignalsEnd: that of a closed terminal ends all but a node.
func TestWhichSignalsEnd(t *testing.T) {
	if signal.Ignored(syscall.SIGHUP) {
		t.Skip("SIGHUP is ignored here, by nohup or the like")
	}
	for line, ends := range map[string]bool{
		"serve": false, "serve --data x": false, "dev": true, "consume topic": true, "": true, "node status": true,
	} {
		if got := slices.Contains(endings(newRoot(), strings.Fields(line)), os.Signal(syscall.SIGHUP)); got != ends {
			t.Errorf("%q ends: %v", line, got)
		}
	}
}
