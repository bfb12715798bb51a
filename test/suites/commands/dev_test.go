package commands

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// trimaran dev runs a node in its process; with --nodes 3 three, in a process each, of which one is
// killed and started again by its page. It keeps its data from run to run.
func TestDev(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			port, err := harness.FreePortBase(0, 1, 2, 3, 4, 100, 101, 102, 103, 200, 201, 202, 203, 300)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			addr := harness.Loopback(port)
			p := &harness.Process{Name: "dev", Path: program(t, "trimaran"), Log: filepath.Join(dir, "log"),
				Args: []string{"dev", "--data", filepath.Join(dir, "data"), "--listen", addr}}
			if nodes > 1 {
				p.Args = append(p.Args, "--nodes", fmt.Sprint(nodes))
			}
			t.Cleanup(func() {
				if p.Running() {
					p.Kill9()
				}
				if t.Failed() {
					t.Log(p.Tail(40))
				}
			})
			run := command{env: []string{"TRIMARAN_BROKERS=" + addr}, stdin: "hello\n"}
			for round := range 2 {
				if err := p.Start(); err != nil {
					t.Fatal(err)
				}
				err := harness.Eventually(patience, func() bool {
					_, code, err := harness.Get("http://" + addr + "/readyz")
					return err == nil && code == 200
				})
				if err != nil {
					t.Fatalf("not ready: %v", err)
				}
				run.ok(t, p.Path, "produce", "greetings")
				got := run.ok(t, p.Path, "consume", "greetings")
				if want := strings.Repeat("hello\n", round+1); got != want {
					t.Errorf("round %d: %q, want %q", round, got, want)
				}
				if nodes > 1 {
					drill := harness.Loopback(port + 300)
					for _, op := range []string{"kill", "restart"} {
						ask(t, drill, op)
						if got := run.ok(t, p.Path, "consume", "greetings"); got != strings.Repeat("hello\n", round+1) {
							t.Errorf("round %d, after %s: %q", round, op, got)
						}
					}
				}
				status := run.ok(t, p.Path, "cluster", "status")
				t.Log(status)
				end := []os.Signal{syscall.SIGTERM, syscall.SIGHUP}[round]
				if signal.Ignored(end) {
					end = syscall.SIGTERM // under nohup, which a child inherits
				}
				if err := p.Signal(end); err != nil {
					t.Fatal(err)
				}
				code, err := p.Wait(30 * time.Second)
				if err != nil || code != 0 {
					t.Fatalf("%v: code %d, %v", end, code, err)
				}
			}
			if s := p.Complaint(); s != "" {
				t.Error(s)
			}
		})
	}
}

// ask has the drill page's server do something to the second node, as the page does.
func ask(t *testing.T, drill, op string) {
	t.Helper()
	body := fmt.Sprintf(`{"op":%q,"node":"n2"}`, op)
	r, err := http.NewRequest(http.MethodPost, "http://"+drill+"/drill/nodes", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Origin", "http://"+drill)
	r.Header.Set("Content-Type", "application/json")
	// What was asked for before may not have come to pass.
	err = harness.Eventually(patience, func() bool {
		r.Body = io.NopCloser(strings.NewReader(body))
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return false // the page comes a moment after the nodes
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	if err != nil {
		t.Fatalf("%s: %v", op, err)
	}
}
