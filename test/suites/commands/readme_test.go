package commands

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/test/harness"
)

// The commands under "Connect a client" in the README, in its order, against a
// cluster on other ports. What they print is checked where the README says what.
func TestReadmeConnects(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(harness.Root(), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(b), "\n## Connect a client\n")
	if !ok {
		t.Fatal("the README has no section «Connect a client»")
	}
	section, _, _ = strings.Cut(section, "\n## ")

	l := newLocalCluster(t, 3)
	port := ""
	for _, e := range l.command.env {
		if p, ok := strings.CutPrefix(e, "TRIMARAN_PORT="); ok {
			port = p
		}
	}
	var first int
	fmt.Sscan(port, &first)
	run := l.command
	run.env = append(run.env, "TRIMARAN_BROKERS="+harness.Loopback(first))
	bin := filepath.Dir(program(t, "trimaran"))
	address := regexp.MustCompile(`127\.0\.0\.1:909([2-5])`)
	var out strings.Builder
	for line := range strings.Lines(section) {
		script, isCode := strings.CutPrefix(line, "    ")
		if !isCode {
			continue
		}
		script = strings.TrimSpace(script)
		if strings.HasPrefix(script, "kcat ") {
			if _, err := exec.LookPath("kcat"); err != nil {
				t.Logf("left out, no kcat here: %s", script)
				continue
			}
		}
		script = strings.ReplaceAll(script, "bin/trimaran", bin+"/trimaran")
		script = address.ReplaceAllStringFunc(script, func(a string) string {
			return harness.Loopback(first + int(a[len(a)-1]-'2'))
		})
		if strings.Contains(script, "kcat") && strings.Contains(script, " -P ") {
			script = "echo 'from kcat' | " + script
		}
		got := run.ok(t, "bash", "-euo", "pipefail", "-c", script)
		t.Logf("$ %s\n%s", script, got)
		out.WriteString(got)
	}
	contains(t, "what the README's commands print", out.String(), "hello", "events", "n1", "n2", "n3")
	// The ways in that its table names, TCP and WebSocket, by the command line.
	for _, broker := range []string{harness.Loopback(first), harness.Loopback(first + 1), "ws://" + harness.Loopback(first+2)} {
		got := command{env: []string{"TRIMARAN_BROKERS=" + broker}}.ok(t, bin+"/trimaran", "consume", "events")
		contains(t, broker, got, "hello")
	}
}
