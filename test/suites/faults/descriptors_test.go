package faults

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// limited is a program that may have so many files open.
func limited(t *testing.T, program string, files int) string {
	t.Helper()
	path, err := harness.Program(program)
	must(t, err)
	script := filepath.Join(t.TempDir(), program)
	must(t, os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\nulimit -n %d\nexec %s \"$@\"\n", files, path), 0o755))
	return script
}

// crowd opens connections until nobody takes more for a while, and says how many are held.
func crowd(t *testing.T, addr string, want int) (held []net.Conn) {
	t.Helper()
	for range want {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			break // the backlog is full
		}
		t.Cleanup(func() { conn.Close() })
		held = append(held, conn)
	}
	return held
}

// TestClientsThatUseUpAllDescriptorsHarmNobodyElse: of each node. Records that come through other
// nodes are stored, a node that comes back is reached, nothing is taken for damaged, and the log
// does not tell of each refused client.
func TestClientsThatUseUpAllDescriptorsHarmNobodyElse(t *testing.T) {
	t.Parallel()
	const files = 256
	c := harness.New(t, harness.Options{Program: limited(t, "trimaran", files), NoShim: true})
	create(t, c, "crowded", 12)
	l := harness.StartLoad("crowded", 12, c.Addrs(), -1) // with connections of before
	defer l.Stop()
	must(t, l.Progress(20, patience))
	var held []net.Conn
	for _, n := range c.Nodes {
		held = append(held, crowd(t, n.Addr(), 3*files)...)
	}
	must(t, l.Progress(200, patience))
	// What is opened now is opened beside the crowd: segments, and connections between nodes.
	away := c.Node(3)
	must(t, away.Kill9())
	must(t, l.Progress(20, patience))
	must(t, away.Restart())
	must(t, l.Progress(50, patience))
	must(t, l.Stop())
	for _, conn := range held {
		conn.Close()
	}
	waitNoLag(t, c, "crowded")
	for _, n := range c.Nodes {
		log, err := os.ReadFile(n.Log)
		must(t, err)
		if strings.Contains(string(log), "too many open files") {
			t.Errorf("%s had no files left", n.ID)
		}
		if refused := strings.Count(string(log), "connection refused\" "); n != away && refused > 200 {
			t.Errorf("%s has %d lines of refused clients", n.ID, refused)
		}
		if n != away && !strings.Contains(string(log), "open_files=256 clients=128 peers=32") {
			t.Errorf("%s does not say how many clients it takes", n.ID)
		}
	}
}

// A shim whose clients use up what they may have still serves those, also when it has to find them
// another gateway.
func TestAShimThatIsFullMovesItsClients(t *testing.T) {
	t.Parallel()
	c := harness.New(t, harness.Options{NoShim: true})
	create(t, c, "full", 6)
	port, err := harness.FreePortBase(0, 1)
	must(t, err)
	addr := harness.Loopback(port)
	var gateways []string
	for _, n := range c.Nodes {
		gateways = append(gateways, n.WS())
	}
	shim := &harness.Process{Name: "shim", Path: limited(t, "trimaran-shim", 128), Log: filepath.Join(t.TempDir(), "shim.log"),
		Args: []string{"--listen", addr, "--gateways", strings.Join(gateways, ",")}}
	start(t, shim)
	l := harness.StartLoad("full", 6, []string{addr}, -1)
	defer l.Stop()
	must(t, l.Progress(20, patience))
	for _, conn := range crowd(t, addr, 300) {
		defer conn.Close()
		// One request each, so that it has a gateway behind it.
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = conn.Write([]byte{0, 0, 0, 11, 0, 18, 0, 0, 0, 0, 0, 1, 0, 1, 'c'})
	}
	must(t, l.Progress(50, patience))
	must(t, c.Node(1).Kill9())
	must(t, l.Progress(50, patience))
	must(t, c.Node(1).Restart())
	must(t, c.Node(2).Kill9())
	must(t, l.Progress(50, patience))
	must(t, l.Stop())
	log, err := os.ReadFile(shim.Log)
	must(t, err)
	if strings.Contains(string(log), "too many open files") {
		t.Error("the shim had no files left")
	}
}
