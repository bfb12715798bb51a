package faults

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// A cluster in plaintext, under load of clients that log in by SCRAM and have the ACLs that they
// need, becomes one whose nodes know each other by certificates and whose gossip has a key, by
// three rolling restarts. Then keys and the CA give way to others while it runs, and nodes are
// killed. Nothing that was acknowledged is lost, and nobody behind the shim sees an error.
func TestFromPlaintextToSecuredUnderLoad(t *testing.T) {
	t.Parallel()
	program, err := harness.Program("trimaran")
	must(t, err)
	c := harness.New(t, harness.Options{NodeArgs: []string{"--sasl-mechanisms", "SCRAM-SHA-512,SCRAM-SHA-256", "--authorize"}})
	login := &harness.Login{User: "writer", Password: "pä§§=,wörd"}
	for _, args := range [][]string{
		{"topic", "create", "moved", "--partitions", "3", "--replication-factor", "3"},
		{"topic", "create", "moved-shim", "--partitions", "3", "--replication-factor", "3"},
		{"user", "create", login.User, "--password-stdin"},
		{"acl", "add", "--principal", "User:" + login.User, "--topic-prefix", "moved", "--operation", "read", "--operation", "write"},
	} {
		cmd := exec.Command(program, append(args, "--brokers", "unix:"+c.Node(1).Data)...)
		cmd.Stdin = strings.NewReader(login.Password + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	l := harness.StartLoadAs(login, "moved", 3, c.Addrs(), -1)
	defer l.Stop()
	behind := harness.StartLoadAs(login, "moved-shim", 3, []string{c.ShimAddr()}, -1)
	defer behind.Stop()
	served := func() {
		t.Helper()
		must(t, l.Progress(50, patience))
		must(t, behind.Progress(50, patience))
	}
	served()

	dir := t.TempDir()
	cert := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(program, append([]string{"cert"}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("cert %v: %v\n%s", args, err, out)
		}
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, lines ...string) {
		t.Helper()
		fresh := file(name + ".fresh")
		must(t, os.WriteFile(fresh, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
		must(t, os.Rename(fresh, file(name)))
	}
	key := func() string {
		b := make([]byte, 32)
		rand.Read(b)
		return base64.StdEncoding.EncodeToString(b)
	}
	cert("ca", "--dir", dir)
	cert("node", "n1", "n2", "n3", "--dir", dir)
	first, second := key(), key()
	write("gossip", first)
	pem, err := os.ReadFile(file("ca.crt"))
	must(t, err)
	write("cas", string(pem))
	for _, mode := range []string{"accept", "prefer", "require"} {
		for _, n := range c.Nodes {
			_, err := n.Terminate(patience)
			must(t, err)
			n.ExtraArgs = []string{
				"--peer-tls-cert", file(n.ID + ".crt"), "--peer-tls-key", file(n.ID + ".key"), "--peer-tls-ca", file("cas"), "--peer-tls-mode", mode,
				"--gossip-key-file", file("gossip"), "--gossip-key-mode", mode,
			}
			must(t, n.Start())
			must(t, n.WaitReady(patience))
			served()
		}
	}
	for _, n := range c.Nodes {
		if hears(t, harness.Loopback(n.Peer)) {
			t.Errorf("%s answers a stranger", n.ID)
		}
	}

	// All nodes read the files again when they are told to, and SIGHUP ends none of them.
	told := func(what string) {
		t.Helper()
		for _, n := range c.Nodes {
			before := strings.Count(n.Output(), what)
			must(t, n.Signal(syscall.SIGHUP))
			must(t, harness.Eventually(patience, func() bool { return strings.Count(n.Output(), what) > before }))
		}
		served()
	}
	for _, keys := range [][]string{{first, second}, {second, first}, {second}} {
		write("gossip", keys...)
		told("keys of gossip were read again")
	}
	cert("ca", "--dir", file("second"))
	fresh, err := os.ReadFile(filepath.Join(file("second"), "ca.crt"))
	must(t, err)
	write("cas", string(pem), string(fresh))
	told("certificates for the peer link were read again")
	cert("node", "n1", "n2", "n3", "--dir", file("second"))
	for _, n := range c.Nodes {
		for _, name := range []string{n.ID + ".crt", n.ID + ".key"} {
			b, err := os.ReadFile(filepath.Join(file("second"), name))
			must(t, err)
			write(name, string(b))
		}
	}
	told("certificates for the peer link were read again")
	write("cas", string(fresh))
	told("certificates for the peer link were read again")
	// What was read counts for new connections, those of before live on: a node that is started
	// again has none of them.
	for _, n := range c.Nodes {
		_, err := n.Terminate(patience)
		must(t, err)
		must(t, n.Start())
		must(t, n.WaitReady(patience))
		served()
	}

	// Sessions behind the shim outlive gateways that are killed: they have tickets.
	for _, n := range c.Nodes {
		must(t, n.Kill9())
		served()
		must(t, n.Restart())
		served()
	}

	// Who can read a node's data is its super user.
	out, err := exec.Command(program, "topic", "list", "--brokers", "unix:"+c.Node(1).Data).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "moved-shim") {
		t.Errorf("over the Unix socket: %v\n%s", err, out)
	}
	verify(t, c, l)
	verify(t, c, behind)
	if failures := behind.Failures(); failures > 0 {
		t.Errorf("%d errors behind the shim", failures)
	}
	t.Log(behind)
}

// hears says whether a peer port answers a stranger who speaks the protocol.
func hears(t *testing.T, addr string) bool {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	must(t, err)
	defer c.Close()
	_, err = c.Write([]byte("TRMP\x00\x00\x00\x00\x00\x00"))
	must(t, err)
	must(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	n, err := io.ReadFull(c, make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s keeps a stranger", addr)
	}
	return n > 0
}
