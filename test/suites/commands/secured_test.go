package commands

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// securedCluster is what the ten commands of docs/security.md make.
type securedCluster struct {
	dir    string
	shell  command // where the commands run
	ports  []int   // for clients, by node
	shim   int     // its port
	nodes  []*harness.Process
	beside *harness.Process // the shim
	// passwords by user, as they were printed
	passwords map[string]string
	said      []string // by commands that failed
}

func (s *securedCluster) data(i int) string { return filepath.Join(s.dir, fmt.Sprint("data-", i)) }

func (s *securedCluster) brokers(i int) string { return fmt.Sprint("tls://127.0.0.1:", s.ports[i-1]) }

// commandsOf gives the commands of a part of docs/security.md that stand in blocks.
func commandsOf(t *testing.T, title string) (commands []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(harness.Root(), "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, part, found := strings.Cut(string(text), "\n## "+title+"\n")
	part, _, _ = strings.Cut(part, "\n## ")
	if !found {
		t.Fatalf("docs/security.md has no %q", title)
	}
	part = regexp.MustCompile(`\\\n *`).ReplaceAllString(part, "")
	for line := range strings.Lines(part) {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			commands = append(commands, strings.TrimSpace(command))
		}
	}
	return commands
}

// here makes a command of the page one of this machine, for node i.
func (s *securedCluster) here(line string, i int) string {
	line = strings.NewReplacer(
		"n1:9292,n2:9292,n3:9292", fmt.Sprintf("127.0.0.1:%d,127.0.0.1:%d,127.0.0.1:%d", s.ports[0]+200, s.ports[1]+200, s.ports[2]+200),
		"wss://n1:9092,wss://n2:9092,wss://n3:9092", fmt.Sprintf("wss://127.0.0.1:%d,wss://127.0.0.1:%d,wss://127.0.0.1:%d", s.ports[0], s.ports[1], s.ports[2]),
		"tls://n1:9092", s.brokers(1), "127.0.0.1:9092", fmt.Sprint("127.0.0.1:", s.shim), "--listen :9092", fmt.Sprint("--listen 127.0.0.1:", s.ports[i-1]),
		"/var/lib/trimaran", s.data(i), "--node-id n1", fmt.Sprint("--node-id n", i), "secrets/n1.", fmt.Sprintf("secrets/n%d.", i),
		"TRIMARAN_PASSWORD=…", "TRIMARAN_PASSWORD="+s.passwords["alice"],
	).Replace(line)
	return line
}

// serverCertificate makes server.pem and server.key, which clients trust that know SSL_CERT_FILE.
func serverCertificate(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kafka"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"server.pem": {Type: "CERTIFICATE", Bytes: cert}, "server.key": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// process starts a line in the background, in the cluster's directory.
func (s *securedCluster) process(t *testing.T, name, line string) *harness.Process {
	t.Helper()
	p := &harness.Process{Name: name, Path: "bash", Args: []string{"-c", "cd " + s.dir + " && exec " + line}, Env: s.shell.env, Log: filepath.Join(s.dir, name+".log")}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.Running() {
			_, _ = p.Terminate(30 * time.Second)
		}
		if t.Failed() {
			t.Logf("%s:\n%s", name, p.Tail(8))
		}
	})
	return p
}

// newSecured runs the commands of the page, up to the shim's. more are flags that nodes get
// besides.
func newSecured(t *testing.T, more string) *securedCluster {
	t.Helper()
	bin := filepath.Dir(program(t, "trimaran"))
	program(t, "trimaran-shim")
	s := &securedCluster{dir: t.TempDir(), passwords: map[string]string{}}
	s.shell = command{dir: s.dir, env: []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "SSL_CERT_FILE=" + filepath.Join(s.dir, "server.pem")}}
	serverCertificate(t, s.dir)
	for range 3 {
		port, err := harness.FreePortBase(0, 100, 200)
		if err != nil {
			t.Fatal(err)
		}
		s.ports = append(s.ports, port)
	}
	var err error
	if s.shim, err = harness.FreePort(); err != nil {
		t.Fatal(err)
	}
	all := commandsOf(t, "A cluster in ten commands")
	if len(all) != 12 {
		t.Fatalf("%d commands are not ten and two about the shim: %q", len(all), all)
	}
	for _, line := range all {
		switch {
		case strings.HasPrefix(line, "trimaran serve"):
			for i := 1; i <= 3; i++ {
				s.nodes = append(s.nodes, s.process(t, fmt.Sprint("n", i), s.here(line, i)+" "+more))
			}
			for i := range s.nodes {
				if err := harness.Eventually(patience, func() bool { return s.ready(i + 1) }); err != nil {
					t.Fatalf("n%d is not ready: %v", i+1, err)
				}
			}
		case strings.HasPrefix(line, "trimaran-shim"):
			s.beside = s.process(t, "shim", s.here(line, 1)+" --log-level debug")
			if err := harness.WaitTCP(harness.Loopback(s.shim), patience); err != nil {
				t.Fatal(err)
			}
		case strings.Contains(line, "trimaran consume"):
			record := "hulls-" + rand.Text()
			s.run(t, "echo "+record+" | "+strings.Replace(s.here(line, 1), "trimaran consume", "trimaran produce", 1))
			if out := s.run(t, s.here(line, 1)); !strings.Contains(out, record) {
				t.Errorf("%s: %q does not have what was written", line, out)
			}
		default:
			out := strings.TrimSpace(s.run(t, s.here(line, 1)))
			if words := strings.Fields(line); words[1] == "user" {
				s.passwords[words[3]] = out
			}
		}
	}
	return s
}

func (s *securedCluster) run(t *testing.T, line string) string {
	t.Helper()
	return s.shell.ok(t, "bash", "-euo", "pipefail", "-c", line)
}

// refusedSince runs what must fail until it says why: on a busy machine its time may be over before
// it has heard that.
func (s *securedCluster) refusedSince(t *testing.T, line string, why ...string) {
	t.Helper()
	var out string
	err := harness.Eventually(patience, func() bool {
		out = s.refused(t, line)
		return t.Failed() || slices.ContainsFunc(why, func(w string) bool { return strings.Contains(out, w) })
	})
	if err != nil {
		t.Errorf("%s: none of %q in %s", line, why, out)
	}
}

// refused runs what must fail, and gives what it says.
func (s *securedCluster) refused(t *testing.T, line string) string {
	t.Helper()
	r := s.shell.run(t, "bash", "-euo", "pipefail", "-c", line)
	if r.code == 0 {
		t.Errorf("%s succeeds: %s", line, r.out)
	}
	s.said = append(s.said, r.out+r.err)
	return r.out + r.err
}

func (s *securedCluster) ready(i int) bool {
	_, code, err := harness.Get(fmt.Sprintf("http://127.0.0.1:%d/readyz", s.ports[i-1]))
	return err == nil && code == 200
}

// metric gives the sum of a metric of node i.
func (s *securedCluster) metric(t *testing.T, i int, name string) (sum float64) {
	t.Helper()
	text, _, err := harness.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", s.ports[i-1]))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, name) {
			var value float64
			fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &value)
			sum += value
		}
	}
	return sum
}

// The page's ten commands make a cluster in which alice can do what she may, and strangers and she
// cannot do what they may not; its tokens can be taken back; what is secret is nowhere to be seen.
func TestASecuredClusterInTenCommands(t *testing.T) {
	t.Parallel()
	s := newSecured(t, "--log-level debug --sasl-mechanisms OAUTHBEARER")
	as := func(user, password string) string {
		return fmt.Sprintf(" --brokers %s --timeout 5s --user %s --password-file <(echo %s)", s.brokers(2), user, password)
	}
	alice := as("alice", s.passwords["alice"])
	for line, want := range map[string]string{
		"trimaran topic list --timeout 5s --brokers " + s.brokers(2):                             "wants to know who asks",
		"trimaran topic list" + as("alice", "wrong"):                                             "SASL_AUTHENTICATION_FAILED",
		"trimaran topic list" + as("nobody", "wrong"):                                            "SASL_AUTHENTICATION_FAILED",
		"echo x | trimaran produce others" + alice:                                               "AUTHORIZATION_FAILED",
		"trimaran acl list" + alice:                                                              "CLUSTER_AUTHORIZATION_FAILED",
		"trimaran token rotate-keys" + alice:                                                     "CLUSTER_AUTHORIZATION_FAILED",
		"trimaran user create mallory" + alice:                                                   "CLUSTER_AUTHORIZATION_FAILED",
		"trimaran node drain n1" + alice:                                                         "CLUSTER_AUTHORIZATION_FAILED",
		"trimaran topic list --timeout 2s --brokers " + fmt.Sprint("127.0.0.1:", s.ports[0]+100): "",
	} {
		s.refusedSince(t, line, want)
	}
	s.run(t, "trimaran acl list"+as("admin", s.passwords["admin"]))
	t.Run("tokens are taken back", func(t *testing.T) { s.tokens(t, alice, as("admin", s.passwords["admin"])) })
	t.Run("secrets are not to be seen", func(t *testing.T) { s.secrets(t, alice) })
}

var tokenID = regexp.MustCompile(`[0-9a-f]{32}`)

// tokens are worth nothing within a second on all nodes, and what waits by them ends.
func (s *securedCluster) tokens(t *testing.T, alice, admin string) {
	slow := harness.WatchSlowness(t, harness.Loopback(s.ports[0]), harness.Loopback(s.ports[1]), harness.Loopback(s.ports[2]))
	for name, takeBack := range map[string]func(id string) string{
		"by id":        func(id string) string { return "trimaran token revoke " + id + admin },
		"by principal": func(string) string { return "trimaran token revoke --principal User:alice" + admin },
		"with its key": func(string) string { return "trimaran token rotate-keys --at-once --brokers unix:" + s.data(3) },
		"with the password": func(string) string {
			return "trimaran user password alice --password-stdin <<< " + s.passwords["alice"] + " --brokers unix:" + s.data(1)
		},
	} {
		if name == "by principal" {
			continue // last, since it holds for what comes next as well
		}
		s.takenBack(t, slow, name, alice, takeBack)
	}
	s.takenBack(t, slow, "by principal", alice, func(string) string { return "trimaran token revoke --principal User:alice" + admin })
	if out := s.run(t, "trimaran token list"+admin); strings.Count(out, "\ntoken ") != 1 || !strings.Contains(out, "all of User:alice") {
		t.Errorf("what was revoked: %s", out)
	}
	if out := s.run(t, "trimaran token list-keys"+admin); strings.Count(out, "\n") != 2 {
		t.Errorf("keys: %s", out)
	}
}

func (s *securedCluster) takenBack(t *testing.T, slow *harness.Slowness, name, alice string, takeBack func(id string) string) {
	t.Helper()
	r := s.shell.run(t, "bash", "-euo", "pipefail", "-c", "trimaran token create --read events --group-prefix alice- > token"+alice)
	id := tokenID.FindString(r.err)
	if r.code != 0 || id == "" {
		t.Fatalf("%s: no token: %s", name, r.err)
	}
	before := make([]float64, 4)
	var readers []*harness.Process
	for i := 1; i <= 3; i++ {
		before[i] = s.metric(t, i, "trimaran_sessions_ended_total")
		in := s.metric(t, i, `trimaran_logins_total{mechanism="OAUTHBEARER",result="ok"}`)
		readers = append(readers, s.process(t, fmt.Sprintf("reader-%d-%s", i, strings.ReplaceAll(name, " ", "-")), "trimaran consume events --follow --from latest --token-file token --brokers "+s.brokers(i)))
		if err := harness.Eventually(patience, func() bool { return s.metric(t, i, `trimaran_logins_total{mechanism="OAUTHBEARER",result="ok"}`) > in }); err != nil {
			t.Fatalf("%s: nobody reads at n%d: %s", name, i, readers[i-1].Output())
		}
	}
	s.run(t, takeBack(id))
	began := time.Now()
	slow.Forget()
	for i := 1; i <= 3; i++ {
		if err := harness.Eventually(30*time.Second, func() bool { return s.metric(t, i, "trimaran_sessions_ended_total") > before[i] }); err != nil {
			t.Fatalf("%s: what reads at n%d goes on", name, i)
		}
		if took := time.Since(began); took > time.Second+slow.Longest() {
			t.Errorf("%s: what reads at n%d goes on for %v, on a machine that keeps everybody waiting for %v", name, i, took, slow.Longest())
		}
	}
	s.refusedSince(t, "trimaran topic list --timeout 1s --token-file token --brokers "+s.brokers(2), "SASL", "oauth")
	for _, r := range readers {
		_, _ = r.Terminate(30 * time.Second)
	}
}

// A node that wants certificates of its clients has its Unix socket besides, and a cluster's first
// users come from a file, once.
func TestFirstUsersAndTheSocketOfANodeWithClientCertificates(t *testing.T) {
	t.Parallel()
	bin := filepath.Dir(program(t, "trimaran"))
	port, err := harness.FreePortBase(0, 100, 200)
	if err != nil {
		t.Fatal(err)
	}
	s := &securedCluster{dir: t.TempDir(), ports: []int{port}}
	s.shell = command{dir: s.dir, env: []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "SSL_CERT_FILE=" + filepath.Join(s.dir, "server.pem")}}
	serverCertificate(t, s.dir)
	s.run(t, "trimaran cert ca --dir secrets && trimaran cert client bob --dir secrets")
	s.run(t, "umask 077; echo 'alice:first-password' > users")
	start := fmt.Sprintf("trimaran serve --data %s --listen 127.0.0.1:%d --tls-cert server.pem --tls-key server.key --tls-client-ca secrets/ca.crt "+
		"--authorize --super-users 'User:CN=bob;User:alice' --sasl-mechanisms SCRAM-SHA-256,PLAIN --bootstrap-user-file users --log-level debug", s.data(1), port)
	socket := " --timeout 10s --brokers unix:" + s.data(1)
	serve := func() *harness.Process {
		t.Helper()
		n := s.process(t, "node", start)
		if err := harness.Eventually(patience, func() bool { return s.ready(1) }); err != nil {
			t.Fatal(n.Output())
		}
		return n
	}
	logsIn := func(password string, want bool) {
		t.Helper()
		// On the machine itself TLS, and with it a certificate, can be left out.
		line := "trimaran topic list --timeout 5s --sasl-mechanism PLAIN --user alice --password-file <(echo " + password + ") --brokers " + harness.Loopback(port)
		var r result
		err := harness.Eventually(patience, func() bool { // who may may have to wait for it
			r = s.shell.run(t, "bash", "-c", line)
			return r.code == 0 || !want
		})
		if err != nil || (r.code == 0) != want {
			t.Errorf("%s: exit code %d: %s", line, r.code, r.err)
		}
	}
	n := serve()
	if err := harness.Eventually(patience, func() bool { return strings.Contains(s.run(t, "trimaran user list"+socket), "alice") }); err != nil {
		t.Fatal("the first user is not there")
	}
	logsIn("first-password", true)
	s.run(t, "trimaran topic create one --partitions 1 --replication-factor 1"+socket)
	s.run(t, "trimaran topic list --tls-cert secrets/bob.crt --tls-key secrets/bob.key --brokers "+s.brokers(1))
	s.refused(t, "trimaran topic list --timeout 1s --brokers "+s.brokers(1))
	s.run(t, "trimaran user password alice --password-stdin <<< another-password"+socket)
	logsIn("first-password", false)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", n.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Terminate(patience); err != nil {
		t.Fatal(err)
	}
	if all := string(text) + n.Output(); strings.Contains(all, "first-password") || !strings.Contains(all, "the cluster has its first users") {
		t.Errorf("what is said of the file: %s", all)
	}
	serve()
	logsIn("another-password", true)
	logsIn("first-password", false)
	s.run(t, "chmod 644 users")
	if out := s.refused(t, start); !strings.Contains(out, "chmod 600") {
		t.Errorf("a file that others can read: %s", out)
	}
}
