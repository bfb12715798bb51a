package commands

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// trimaran dev is one process; with --nodes 3 it runs three real nodes. It keeps
// its data from run to run.
func TestDev(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			port, err := harness.FreePortBase(0, 1, 2, 3, 4, 100, 101, 102, 103, 200, 201, 202, 203)
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
