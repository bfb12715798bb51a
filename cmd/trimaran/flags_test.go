package main

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/trimaran-io/trimaran/fsm"
)

func TestParseTopics(t *testing.T) {
	got, err := parseTopics([]string{"a", "b:3", " c:4:2"})
	want := []fsm.TopicSpec{
		{Name: "a", Partitions: -1, ReplicationFactor: -1},
		{Name: "b", Partitions: 3, ReplicationFactor: -1},
		{Name: "c", Partitions: 4, ReplicationFactor: 2},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", ":1", "a:", "a:0", "a:-1", "a:x", "a:1:0", "a:1:x", "a:1:2:3", "a b:1", "a/b:1", "..", "a:9999999999", "a:1:99999"} {
		if got, err := parseTopics([]string{bad}); err == nil {
			t.Errorf("%q is taken as %+v", bad, got)
		}
	}
	if _, err := parseTopics([]string{"a:1", "a:2"}); err == nil {
		t.Error("a topic that is there twice is accepted")
	}
}

func TestParseBroker(t *testing.T) {
	for in, want := range map[string]broker{
		"host:1234":             {scheme: "tcp", addr: "host:1234"},
		"host":                  {scheme: "tcp", addr: "host:9092"},
		"tcp://host":            {scheme: "tcp", addr: "host:9092"},
		"tls://host:1":          {scheme: "tls", addr: "host:1"},
		"[::1]:9093":            {scheme: "tcp", addr: "[::1]:9093"},
		"[::1]":                 {scheme: "tcp", addr: "[::1]:9092"},
		"ws://host:9093":        {scheme: "ws", addr: "host:9093"},
		"WSS://host/":           {scheme: "wss", addr: "host:443", path: "/"},
		"ws://host":             {scheme: "ws", addr: "host:80"},
		" 127.0.0.1:9092 ":      {scheme: "tcp", addr: "127.0.0.1:9092"},
		"unix:/var/lib/t":       {scheme: "unix", addr: "local:18519", path: "/var/lib/t"},
		"unix:///var/lib/t":     {scheme: "unix", addr: "local:18519", path: "/var/lib/t"},
		"unix:data":             {scheme: "unix", addr: "local:41304", path: "data"},
		"wss://host:9443/kafka": {scheme: "wss", addr: "host:9443", path: "/kafka"},
	} {
		if got, err := parseBroker(in); err != nil || got != want {
			t.Errorf("%q gives %+v, %v, want %+v", in, got, err, want)
		}
	}
	for _, bad := range []string{"", ":9092", "http://host:1", "ws://", "a b:1", "ws://%zz", "unix:", "unix://"} {
		if got, err := parseBroker(bad); err == nil {
			t.Errorf("%q is taken as %+v", bad, got)
		}
	}
}

func TestServeOptions(t *testing.T) {
	parse := func(args ...string) (nodeOptions, error) {
		cmd, err := loaded(t, nil, append([]string{"serve"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return serveOptions(cmd)
	}
	o, err := parse()
	if err != nil || o.expect != 1 || o.peerListen != "127.0.0.1:9192" || o.gossipListen != "127.0.0.1:9292" || o.peerAdvertise != "" || !o.autoCreate {
		t.Errorf("defaults: %+v, %v", o, err)
	}
	o, err = parse("--join", "a:1,b:2", "--listen", "0.0.0.0:7000", "--peer-listen", "10.0.0.1:1")
	if err != nil || o.expect != 0 || len(o.join) != 2 || o.peerListen != "10.0.0.1:1" || o.gossipListen != "0.0.0.0:7200" || o.peerAdvertise != "" {
		t.Errorf("joining: %+v, %v", o, err)
	}
	o, err = parse("--listen", "[::]:7000", "--advertise", "kafka-1:9092", "--join", "a:1", "--bootstrap-expect", "3")
	if err != nil || o.expect != 3 || o.peerAdvertise != "kafka-1:7100" {
		t.Errorf("behind a name: %+v, %v", o, err)
	}
	if o, err = parse("--listen", "127.0.0.1:0"); err != nil || o.peerListen != "127.0.0.1:0" {
		t.Errorf("any port: %+v, %v", o, err)
	}
	for _, bad := range [][]string{
		{"--listen", "9092"}, {"--listen", "h:65400"}, {"--listen", "h:x"}, {"--peer-listen", "h"}, {"--gossip-listen", "h"},
		{"--max-request-bytes", "10"}, {"--max-request-bytes", "369098752"}, {"--tls-cert", "x"}, {"--tls-cert", "x", "--tls-key", "y"},
		{"--default-partitions", "0"}, {"--bootstrap-expect", "-1"}, {"--topics", "a:b"},
	} {
		if o, err := parse(bad...); err == nil {
			t.Errorf("%v is taken as %+v", bad, o)
		}
	}
}

func TestGossipKey(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	text := base64.StdEncoding.EncodeToString
	got, err := readGossipKeys(writeFile(t, "key", "# of June\n"+text(key)+"\n\n"+text(key[:16])))
	if err != nil || len(got) != 2 || !bytes.Equal(got[0], key) || !bytes.Equal(got[1], key[:16]) {
		t.Fatalf("got %x, %v", got, err)
	}
	for _, bad := range []string{"", "short", text(key[:31]), text(key) + "\nshort", strings.Repeat(text(key)+"\n", 9)} {
		if _, err := readGossipKeys(writeFile(t, "key", bad)); err == nil {
			t.Errorf("%q is a key", bad)
		}
	}
}

func TestDevNodes(t *testing.T) {
	dir := t.TempDir()
	if n, err := devNodes(dir, 1, false); n != 1 || err != nil {
		t.Errorf("nothing there: %d, %v", n, err)
	}
	for _, name := range []string{"n1", "n2", "n3"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		wanted int
		given  bool
		want   int
	}{{1, false, 3}, {3, true, 3}, {5, true, 5}, {1, true, 0}, {100, true, 0}} {
		if n, err := devNodes(dir, test.wanted, test.given); n != test.want || (err == nil) != (n > 0) {
			t.Errorf("--nodes %d (given %v) over three: %d, %v", test.wanted, test.given, n, err)
		}
	}
}

func TestDevOptions(t *testing.T) {
	all, err := devOptions("/d", "127.0.0.1:9092", 3)
	if err != nil || len(all) != 3 {
		t.Fatal(all, err)
	}
	o := all[1]
	if o.id != "n2" || o.data != "/d/n2" || o.listen != "127.0.0.1:9093" || o.peerListen != "127.0.0.1:9193" ||
		o.gossipListen != "127.0.0.1:9293" || o.expect != 3 || !reflect.DeepEqual(o.join, []string{"127.0.0.1:9292", "127.0.0.1:9294"}) {
		t.Errorf("second node: %+v", o)
	}
	if _, err := devOptions("/d", "127.0.0.1:0", 2); err == nil {
		t.Error("two nodes on any port are accepted")
	}
}

// Every command says in its help what it does and shows an example, and every
// flag is explained.
func TestHelpIsComplete(t *testing.T) {
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Short == "" || cmd.Example == "" {
			t.Errorf("%s: no description or no example", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(newRoot())
}

func TestExitCodes(t *testing.T) {
	for _, test := range []struct {
		args string
		want int
		text string
	}{
		{"version", 0, ""},
		{"serve --help", 0, ""},
		{"nope", 2, "unknown command"},
		{"topic nope", 2, "unknown command"},
		{"consume", 2, "accepts 1 arg"},
		{"consume a --format %z", 2, "unknown %z"},
		{"serve --data not-made --advertise a,b:1", 2, "advertised"},
		{"serve --data not-made --allow-origin a.b", 2, "allowed origin"},
		{"consume a --json --print-key", 2, "json"},
		{"group reset-offsets a --topic b", 2, "to-earliest"},
		{"topic list --config not-there.yaml", 2, "not-there.yaml"},
		{"produce a --acks 2", 2, "--acks"},
		{"produce a --compression zstd", 2, "--compression"},
		{"topic list --brokers 127.0.0.1:1 --timeout 1ms", 1, "127.0.0.1:1"},
		{"consume a --brokers 127.0.0.1:1 --timeout 500ms", 1, "refused"},
		{"consume a --group b --brokers 127.0.0.1:1 --timeout 500ms", 1, "refused"},
		{"group list --brokers 127.0.0.1:1 --timeout 500ms", 1, "Is a node running there?"},
	} {
		var out, errOut bytes.Buffer
		if got := run(strings.Fields(test.args), strings.NewReader(""), &out, &errOut); got != test.want || !strings.Contains(errOut.String(), test.text) {
			t.Errorf("trimaran %s: exit code %d, want %d, and %q in %q", test.args, got, test.want, test.text, errOut.String())
		}
	}
}
