package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// command runs the program and gives what it printed.
func command(t *testing.T, want int, in string, args ...string) (out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	if got := run(args, strings.NewReader(in), &o, &e); got != want {
		t.Fatalf("trimaran %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, want, o.String(), e.String())
	}
	return o.String(), e.String()
}

// oneNode runs a node; stop may be called once more.
func oneNode(t *testing.T) (data, addr string, stop func()) {
	t.Helper()
	o := nodeOptions{
		id: "n1", data: t.TempDir(), listen: "127.0.0.1:0", peerListen: "127.0.0.1:0", gossipListen: "127.0.0.1:0",
		expect: 1, autoCreate: true, partitions: 1, replication: 3, maxRequest: 100 << 20, log: slog.New(slog.DiscardHandler),
	}
	n, err := startNode(o)
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := n.stop(ctx); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if err := n.cluster.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return o.data, n.addr, stop
}

func TestLogCommands(t *testing.T) {
	data, addr, stop := oneNode(t)
	command(t, 0, "k\tone\nk\ttwo\n", "produce", "greetings", "--brokers", addr, "--key-separator", "\t", "--partition", "0")
	if _, text := command(t, 1, "", "log", "verify", data); !strings.Contains(text, "in use by another process") {
		t.Errorf("of a running node: %q", text)
	}
	stop()
	before, err := os.ReadDir(data)
	if err != nil {
		t.Fatal(err)
	}
	if out, _ := command(t, 0, "", "log", "verify", data); !strings.Contains(out, "good ") || !strings.Contains(out, "1 partitions") || !strings.Contains(out, "offsets 0 to 2") {
		t.Errorf("verify: %q", out)
	}
	out, _ := command(t, 0, "", "log", "dump", data, "--records")
	for _, want := range []string{"segment 00000000000000000001-1.log", "records of", "batch 0 to", "record 1 ", "key 1 bytes, value 3 bytes", "configuration"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in the dump:\n%s", want, out)
		}
	}
	out, _ = command(t, 0, "", "log", "dump", data, "--json", "--records")
	for line := range strings.Lines(out) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %q", line)
		}
	}
	segments, err := filepath.Glob(filepath.Join(data, "partitions", "*", "*.log"))
	if err != nil || len(segments) != 1 {
		t.Fatal(segments, err)
	}
	if out, _ := command(t, 0, "", "log", "dump", filepath.Dir(segments[0]), "--segments"); strings.Count(out, "\n") != 2 && strings.Contains(out, "entry 1 ") {
		t.Errorf("segments only: %q", out)
	}
	after, err := os.ReadDir(data)
	if err != nil || len(after) != len(before) {
		t.Errorf("%v is now %v, %v", before, after, err)
	}

	// A record that is not what was written. The journal would bring it back.
	if err := os.RemoveAll(filepath.Join(data, "journal")); err != nil {
		t.Fatal(err)
	}
	bytesOf, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	bytesOf[100] ^= 1 // in the first entry, with good ones behind it
	if err := os.WriteFile(segments[0], bytesOf, 0o600); err != nil {
		t.Fatal(err)
	}
	out, text := command(t, 1, "", "log", "verify", data)
	if !strings.Contains(out, "WRONG") || !strings.Contains(text, "things are wrong") {
		t.Errorf("damaged: %q, %q", out, text)
	}
	if out, _ := command(t, 1, "", "log", "verify", data, "--json"); !strings.Contains(out, `"wrong":["`) {
		t.Errorf("damaged: %q", out)
	}
	if _, text := command(t, 1, "", "log", "verify", t.TempDir()); !strings.Contains(text, "no node's data directory") {
		t.Errorf("of something else: %q", text)
	}
}
