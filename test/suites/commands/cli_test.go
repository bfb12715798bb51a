package commands

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// cli runs trimaran against a cluster's shim, as TRIMARAN_BROKERS lets it.
func cli(c *harness.Cluster) command {
	return command{env: []string{"TRIMARAN_BROKERS=" + c.ShimAddr()}}
}

// A topic's life by command line: created, listed, described, written, read by
// key, offset and format, deleted. Over TCP, the shim and WebSocket.
func TestTopicLifeByCommandLine(t *testing.T) {
	c := harness.Shared(t)
	bin := program(t, "trimaran")
	for _, brokers := range []string{c.Node(1).Addr(), c.ShimAddr(), c.Node(2).WS(), strings.Join(c.Addrs(), ",")} {
		t.Run(brokers, func(t *testing.T) {
			run := command{env: []string{"TRIMARAN_BROKERS=" + brokers}}
			topic := harness.Topic("life")
			run.ok(t, bin, "topic", "create", topic, "--partitions", "2", "--replication-factor", "3")
			known(t, c, topic, 2)
			contains(t, "topic list", run.ok(t, bin, "topic", "list"), topic)
			contains(t, "topic describe", run.ok(t, bin, "topic", "describe", topic), topic, "n1", "n2", "n3")
			if r := run.run(t, bin, "topic", "create", topic); r.code == 0 {
				t.Errorf("a second topic of the same name was created")
			} else {
				contains(t, "the refusal", r.err, "exists")
			}

			in := run
			in.stdin = "a:1\nb:2\nc:3\n"
			in.ok(t, bin, "produce", topic, "--key-separator", ":", "--partition", "1")
			got := run.ok(t, bin, "consume", topic, "--partition", "1", "--format", `%p %o %k %v\n`)
			if want := "1 0 a 1\n1 1 b 2\n1 2 c 3\n"; got != want {
				t.Errorf("consume gives %q, want %q", got, want)
			}
			if got := run.ok(t, bin, "consume", topic, "--partition", "1", "--from", "1", "--max-messages", "1"); got != "2\n" {
				t.Errorf("from offset 1, one message: %q", got)
			}
			if got := run.ok(t, bin, "consume", topic, "--partition", "1", "--from=-1"); got != "3\n" {
				t.Errorf("the last one: %q", got)
			}
			status := run.ok(t, bin, "cluster", "status")
			contains(t, "cluster status", status, "n1", "n2", "n3", topic)
			var parsed struct {
				ClusterID string `json:"cluster_id"`
			}
			if err := json.Unmarshal([]byte(run.ok(t, bin, "cluster", "status", "--json")), &parsed); err != nil || parsed.ClusterID == "" {
				t.Errorf("cluster status --json: %v, cluster id %q", err, parsed.ClusterID)
			}
			run.ok(t, bin, "topic", "alter", topic, "--config", "retention.ms=86400000", "--config", "max.message.bytes=5000")
			run.ok(t, bin, "topic", "alter", topic, "--delete-config", "max.message.bytes")
			run.ok(t, bin, "topic", "add-partitions", topic, "--partitions", "4")
			err := harness.Eventually(patience, func() bool {
				described := run.ok(t, bin, "topic", "describe", topic)
				return strings.Contains(described, "4 partitions") && strings.Contains(described, "retention.ms=86400000") && !strings.Contains(described, "max.message.bytes")
			})
			if err != nil {
				t.Errorf("altered and not seen, %v: %s", err, run.ok(t, bin, "topic", "describe", topic))
			}
			if got := run.ok(t, bin, "topic", "delete-records", topic, "--before", "2", "--partition", "1"); !strings.Contains(got, "1          2") {
				t.Errorf("delete-records says %q", got)
			}
			if got := run.ok(t, bin, "consume", topic, "--partition", "1"); got != "3\n" {
				t.Errorf("what was not deleted: %q", got)
			}
			run.ok(t, bin, "topic", "delete-records", topic, "--before", "end")
			run.ok(t, bin, "topic", "delete", topic)
			// Behind a shim the next command may meet another node, which hears of it
			// in its own time.
			err = harness.Eventually(patience, func() bool {
				return !strings.Contains(run.ok(t, bin, "topic", "list"), topic)
			})
			if err != nil {
				t.Errorf("deleted and still listed, %v", err)
			}
		})
	}
}

// Text goes in and comes out byte for byte, in each compression.
func TestProduceConsumeText(t *testing.T) {
	c := harness.Shared(t)
	bin := program(t, "trimaran")
	var text strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&text, "line %d %s\n", i, strings.Repeat("é", i%40))
	}
	for _, codec := range []string{"none", "gzip", "snappy"} {
		t.Run(codec, func(t *testing.T) {
			topic := harness.Topic("text")
			run := cli(c)
			run.ok(t, bin, "topic", "create", topic, "--partitions", "1")
			known(t, c, topic, 1)
			in := run
			in.stdin = text.String()
			in.ok(t, bin, "produce", topic, "--compression", codec)
			if got := run.ok(t, bin, "consume", topic); got != text.String() {
				t.Errorf("%d bytes came back, %d went in", len(got), text.Len())
			}
		})
	}
}

// What cannot work says why, on stderr, with a code other than 0.
func TestErrorsAreSaid(t *testing.T) {
	c := harness.Shared(t)
	bin := program(t, "trimaran")
	port, err := harness.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []struct{ args, want string }{
		{"topic create a/b", "name"},
		{"topic create too-many --replication-factor 4 --partitions 1", "replication factor"},
		{"topic describe not-there", "not-there"},
		{"topic delete not-there", "not-there"},
		{"topic alter not-there --config retention.ms=1", "not-there"},
		{"topic alter not-there", "nothing to change"},
		{"topic add-partitions not-there --partitions 3", "not-there"},
		{"topic delete-records not-there --before end", "not-there"},
		{"topic delete-records not-there --before some", "offset"},
		{"consume not-there", "not-there"},
		{"topic list --brokers " + harness.Loopback(port) + " --timeout 2s", harness.Loopback(port)},
		{"topic frobnicate", "frobnicate|unknown"},
		{"serve --no-such-flag", "no-such-flag"},
	} {
		t.Run(e.args, func(t *testing.T) {
			r := cli(c).run(t, bin, strings.Fields(e.args)...)
			if r.code == 0 {
				t.Errorf("success: %s", r.out)
			}
			if !regexp.MustCompile(e.want).MatchString(r.err) {
				t.Errorf("stderr does not say %q: %s", e.want, r.err)
			}
		})
	}
}

var subcommand = regexp.MustCompile(`(?m)^  ([a-z-]+)\s+\S`)

// helpOf gives every command's path and help text, found through the help itself.
func helpOf(t *testing.T, bin string, path []string, visit func(path []string, help string)) {
	t.Helper()
	help := command{}.ok(t, bin, append(path, "--help")...)
	visit(path, help)
	_, list, ok := strings.Cut(help, "Available Commands:\n")
	if !ok {
		return
	}
	list, _, _ = strings.Cut(list, "\n\n")
	for _, m := range subcommand.FindAllStringSubmatch(list, -1) {
		if m[1] != "help" && m[1] != "completion" {
			helpOf(t, bin, append(append([]string{}, path...), m[1]), visit)
		}
	}
}

// Each client-side example of every --help runs as it stands, with a cluster at
// the other end. Those that start nodes or end them have tests of their own.
func TestHelpExamplesWork(t *testing.T) {
	c := harness.Shared(t)
	bin := program(t, "trimaran")
	dir := t.TempDir()
	var events strings.Builder
	for i := range 1020 {
		fmt.Fprintf(&events, "key%d:event %d\n", i, i)
	}
	if err := os.WriteFile(filepath.Join(dir, "events.txt"), []byte(events.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	shell := cli(c)
	shell.dir = dir
	shell.env = append(shell.env, "PATH="+filepath.Dir(bin)+":"+os.Getenv("PATH"))
	prepare := func(creating bool) {
		for _, topic := range []string{"events", "old-events", "greetings"} {
			shell.ok(t, bin, "topic", "delete", topic, "--if-exists")
			if !creating || topic != "events" {
				shell.ok(t, bin, "topic", "create", topic, "--partitions", "6", "--replication-factor", "3")
			}
		}
		if !creating {
			shell.ok(t, "bash", "-c", "trimaran produce events --partition 2 < events.txt")
		}
	}
	// The files of a node that was stopped, where the examples say /var/lib/trimaran.
	stopped := harness.New(t, harness.Options{Nodes: 1, NoShim: true})
	if err := stopped.CreateTopic(t.Context(), "kept", 1, 1); err != nil {
		t.Fatal(err)
	}
	command{env: []string{"TRIMARAN_BROKERS=" + stopped.Node(1).Addr()}, stdin: "one\ntwo\n"}.ok(t, bin, "produce", "kept")
	if _, err := stopped.Node(1).Terminate(30 * time.Second); err != nil {
		t.Fatal(err)
	}
	secured := harness.New(t, harness.Options{Nodes: 1, NoShim: true, NodeArgs: []string{"--authorize", "--super-users", "User:ANONYMOUS", "--sasl-mechanisms", "SCRAM-SHA-512,OAUTHBEARER", "--sasl-optional"}})
	files := stopped.Node(1).Data
	partition, err := os.ReadDir(filepath.Join(files, "partitions"))
	if err != nil || len(partition) != 1 {
		t.Fatalf("the stopped node's partitions: %v, %v", partition, err)
	}
	helpOf(t, bin, nil, func(path []string, help string) {
		_, examples, ok := strings.Cut(help, "Examples:\n")
		name := strings.Join(path, " ")
		if !ok {
			t.Errorf("trimaran %s --help shows no example", name)
			return
		}
		examples, _, _ = strings.Cut(examples, "\n\nAvailable Commands:")
		examples, _, _ = strings.Cut(examples, "\n\nFlags:")
		examples, _, _ = strings.Cut(examples, "\n\nUsage:")
		// The group `topic` shows a life from create to delete; each leaf's lines
		// stand alone.
		isGroup := strings.Contains(help, "Available Commands:")
		prepare(isGroup && name == "topic")
		if strings.HasPrefix(name, "group ") { // someone has read, and left
			shell.ok(t, bin, "consume", "events", "--group", "readers", "--max-messages", "500")
		}
		if strings.HasPrefix(name, "transaction ") {
			openTransaction(t, c, "payments", "events")
		}
		examples = strings.ReplaceAll(examples, "\\\n", "") // a backslash at a line's end goes on
		for line := range strings.Lines(examples) {
			line = strings.TrimSpace(line)
			if line == "" || strings.HasPrefix(line, "#") || strings.Contains(line, "trimaran serve") || strings.Contains(line, "trimaran dev") ||
				strings.Contains(line, "node decommission") || strings.Contains(line, "node replace") || strings.HasPrefix(line, "trimaran recover --") || strings.Contains(line, "--from-tier") {
				// Those of recover want a majority that is lost (TestRecoverFromOneOfThree), and
				// --from-tier a cluster that is: TestALostClusterComesBackFromItsTier.
				continue
			}
			if first, _, _ := strings.Cut(name, " "); first == "backup" {
				t.Run(strings.ReplaceAll(line, "/", "|"), func(t *testing.T) { backupExample(t, filepath.Dir(bin), line) })
				continue
			}
			if first, _, _ := strings.Cut(name, " "); first == "acl" || first == "user" || first == "cert" || first == "token" {
				t.Run(strings.ReplaceAll(line, "/", "|"), func(t *testing.T) { secureExample(t, secured, filepath.Dir(bin), line) })
				continue
			}
			t.Run(strings.ReplaceAll(line, "/", "|"), func(t *testing.T) {
				if !isGroup && (strings.HasSuffix(name, "create") || strings.HasSuffix(name, "delete")) {
					prepare(strings.HasSuffix(name, "create"))
				}
				script := strings.NewReplacer("ws://127.0.0.1:9093", c.Node(1).WS(), "/var/lib/trimaran", files, "<topic id>-0", partition[0].Name()).Replace(line)
				if strings.Contains(script, "--follow") {
					script = "timeout -s INT 5 " + script + " || [ $? = 124 ]"
				}
				shell.ok(t, "bash", "-euo", "pipefail", "-c", script)
			})
		}
	})
}

// trimaran-shim's own help.
func TestShimHelp(t *testing.T) {
	r := command{}.run(t, program(t, "trimaran-shim"), "--help")
	if r.code != 0 {
		t.Errorf("--help ends with %d", r.code)
	}
	contains(t, "trimaran-shim --help", r.out+r.err, "-listen", "-gateways", "-tls-ca", "Examples:")
}

// secureExample runs a line about users, ACLs, tokens or certificates on a node that judges rights,
// where what the line is about is there before it.
func secureExample(t *testing.T, c *harness.Cluster, bin, line string) {
	t.Helper()
	const password = "correct horse battery staple"
	shell := command{dir: t.TempDir(), env: []string{"TRIMARAN_BROKERS=" + c.Node(1).Addr(), "PATH=" + bin + ":" + os.Getenv("PATH"), "TRIMARAN_PASSWORD=" + password}}
	if err := os.WriteFile(filepath.Join(shell.dir, "password.txt"), []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := []string{"trimaran acl add --principal User:alice --topic events --operation read --operation write"}
	for _, user := range []string{"alice", "bob"} {
		if strings.Contains(line, "user create") {
			before = append(before, "trimaran user delete "+user+" || true")
		} else {
			before = append(before, "trimaran user create "+user+" || true")
		}
	}
	if strings.Contains(line, "token") {
		before = append(before, "trimaran user password alice --password-stdin < password.txt", "trimaran topic create events --partitions 1 || true")
	}
	if strings.Contains(line, "--token-file") {
		// Of a user whose tokens no example has revoked, as all of alice's of the next seconds are.
		before = append(before, "trimaran user delete carol || true", "trimaran user create carol --password-stdin < password.txt",
			"trimaran acl add --principal User:carol --topic events --operation read", "trimaran token create --read events --user carol > token")
	}
	if strings.Contains(line, "cert ") && !strings.Contains(line, "cert ca") {
		before = append(before, "trimaran cert ca")
		if _, dir, ok := strings.Cut(line, "--dir "); ok {
			before = append(before, "trimaran cert ca --dir "+dir)
		}
	}
	if strings.Contains(line, "--replace") {
		before = append(before, "trimaran cert node n1")
	}
	for _, script := range append(before, line) {
		shell.ok(t, "bash", "-euo", "pipefail", "-c", script)
	}
}
