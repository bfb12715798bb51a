package main

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trimaran-io/trimaran/gateway"
	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/scram"
)

// startForTest starts a node on loopback and gives its address.
func startForTest(t *testing.T, access gateway.Access) *node {
	t.Helper()
	free := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
	all, err := devOptions(t.TempDir(), free(), 1)
	if err != nil {
		t.Fatal(err)
	}
	o := all[0]
	o.peerListen, o.gossipListen, o.access, o.log = free(), free(), access, slog.New(slog.DiscardHandler)
	n, err := startNode(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
		defer cancel()
		if err := n.stop(ctx); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := n.cluster.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return n
}

// Users and ACLs come and go by the command line, over a node that judges rights.
func TestUsersAndACLsByCommands(t *testing.T) {
	n := startForTest(t, gateway.Access{Authorize: true, SuperUsers: []security.Principal{security.Anonymous}})
	command := func(in string, want int, args ...string) string {
		t.Helper()
		var out, errOut bytes.Buffer
		if got := run(append(args, "--brokers", n.addr, "--timeout", "10s"), strings.NewReader(in), &out, &errOut); got != want {
			t.Fatalf("trimaran %s: exit code %d, want %d: %s", strings.Join(args, " "), got, want, errOut.String())
		}
		return out.String() + errOut.String()
	}
	made := strings.TrimSpace(command("", 0, "user", "create", "alice"))
	if len(made) < 20 {
		t.Errorf("a password was made up: %q", made)
	}
	if out := command("pä§§=,wörd\r\nmore\n", 0, "user", "create", "bob", "--password-stdin"); strings.Contains(out, "wörd") {
		t.Errorf("a password is printed: %s", out)
	}
	holds := func(user, password string) {
		t.Helper()
		for _, m := range scramMechanisms {
			c, ok := n.cluster.Topics().Security().Scram(user, m.name)
			if !ok || c.Iterations != scramIterations {
				t.Fatalf("%s has no %s", user, m.name)
			}
			salted, err := scram.Salted(m.name, password, c.Salt, c.Iterations)
			if err != nil {
				t.Fatal(err)
			}
			if stored, _ := scram.Keys(m.name, salted); !bytes.Equal(stored, c.StoredKey) {
				t.Errorf("%s has another password for %s", user, m.name)
			}
		}
	}
	holds("alice", made)
	holds("bob", "pä§§=,wörd")
	command("", 1, "user", "create", "alice")
	command("", 1, "user", "password", "carol")
	command("next\n", 0, "user", "password", "alice", "--password-stdin")
	holds("alice", "next")
	command("", 2, "user", "password", "alice", "--password-stdin")
	command("", 0, "user", "delete", "bob")
	command("", 1, "user", "delete", "bob")
	if out := command("", 0, "user", "list"); !strings.Contains(out, "alice") || strings.Contains(out, "bob") || !strings.Contains(out, "SCRAM-SHA-256, SCRAM-SHA-512") {
		t.Errorf("users:\n%s", out)
	}

	command("", 0, "acl", "add", "--principal", "User:alice", "--topic", "a,b", "--operation", "read,write")
	command("", 0, "acl", "add", "--deny", "--principal", "User:*", "--topic-prefix", "a", "--operation", "all", "--host", "192.0.2.1")
	if got := n.cluster.Topics().Security().ACLs().Len(); got != 5 {
		t.Errorf("%d ACLs, want 5", got)
	}
	if out := command("", 0, "acl", "list", "--topic", "a"); strings.Count(out, "alice") != 2 || strings.Contains(out, "deny") {
		t.Errorf("of the topic:\n%s", out)
	}
	if out := command("", 0, "acl", "list", "--topic", "a", "--match"); strings.Count(out, "\n") != 4 || !strings.Contains(out, "192.0.2.1") {
		t.Errorf("what is obeyed:\n%s", out)
	}
	if out := command("", 0, "acl", "remove", "--principal", "User:alice", "--operation", "write"); strings.Count(out, "write") != 2 {
		t.Errorf("removed:\n%s", out)
	}
	command("", 2, "acl", "remove")
	command("", 2, "acl", "add", "--principal", "User:alice", "--topic", "a")
	command("", 2, "acl", "add", "--principal", "alice", "--topic", "a", "--operation", "read")
	command("", 2, "acl", "add", "--principal", "User:alice", "--topic", "a", "--operation", "reading")
	command("", 0, "acl", "remove", "--all")
	if got := n.cluster.Topics().Security().ACLs().Len(); got != 0 {
		t.Errorf("%d ACLs, want none", got)
	}
}

func TestAccessFlags(t *testing.T) {
	parse := func(args ...string) (nodeOptions, error) {
		cmd, err := loaded(t, nil, append([]string{"serve"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return serveOptions(cmd)
	}
	o, err := parse("--authorize", "--super-users", "User:admin;User:CN=a,O=b", "--allow-everyone-if-no-acl")
	if err != nil || !o.access.Authorize || !o.access.AllowEveryoneIfNoACL || len(o.access.SuperUsers) != 2 || o.access.SuperUsers[1].Name != "CN=a,O=b" {
		t.Errorf("%+v, %v", o.access, err)
	}
	for _, bad := range [][]string{{"--super-users", "User:admin"}, {"--allow-everyone-if-no-acl"}, {"--authorize", "--super-users", "admin"}} {
		if o, err := parse(bad...); err == nil {
			t.Errorf("%v is taken as %+v", bad, o.access)
		}
	}
}

// A node that is open says so once, and shows it; one that is not says nothing.
func TestAnOpenNodeSaysSo(t *testing.T) {
	for name, test := range map[string]struct {
		args           []string
		clients, peers bool // from beyond this machine
		said           string
		open           bool
	}{
		"nothing configured":   {nil, true, true, "this node is open: ", true},
		"on loopback":          {nil, false, false, "", true},
		"clients log in":       {[]string{"--sasl-mechanisms", "PLAIN"}, true, false, "", false},
		"and nodes do not":     {[]string{"--sasl-mechanisms", "PLAIN"}, true, true, "nodes are not told from strangers", false},
		"they need not log in": {[]string{"--sasl-mechanisms", "PLAIN", "--sasl-optional"}, true, false, "open to clients", true},
		"rights are judged":    {[]string{"--authorize"}, true, false, "", false},
		"strangers are super":  {[]string{"--authorize", "--super-users", "User:ANONYMOUS"}, true, false, "open to clients", true},
	} {
		cmd, err := loaded(t, nil, append([]string{"serve"}, test.args...)...)
		if err != nil {
			t.Fatal(err)
		}
		o, err := serveOptions(cmd)
		if err != nil {
			t.Fatal(err)
		}
		var lines bytes.Buffer
		o.warnOpen(slog.New(slog.NewTextHandler(&lines, nil)), test.clients, test.peers)
		if n := strings.Count(lines.String(), "\n"); n > 1 || (n == 1) != (test.said != "") || !strings.Contains(lines.String(), test.said) {
			t.Errorf("%s: %s", name, lines.String())
		}
		registry := prometheus.NewRegistry()
		o.register(registry)
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "trimaran_clients_open" && (f.GetMetric()[0].GetGauge().GetValue() == 1) != test.open {
				t.Errorf("%s: the metric says %v", name, f)
			}
		}
	}
}
