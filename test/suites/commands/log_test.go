package commands

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trimaran-io/trimaran/test/harness"
)

// What runs for long outlives who reads its log: lines are dropped and counted, clients are served,
// and the end is a good one.
func TestTheReaderOfALogGoesAwayOrStandsStill(t *testing.T) {
	for _, what := range []string{"serve", "dev", "shim"} {
		for _, reader := range []string{"gone", "still"} {
			t.Run(what+" "+reader, func(t *testing.T) {
				t.Parallel()
				port, err := harness.FreePortBase(0, 1, 2, 100, 101, 102, 200, 201, 202)
				if err != nil {
					t.Fatal(err)
				}
				addr, web, metric := harness.Loopback(port), harness.Loopback(port), "trimaran_log_lines_dropped_total"
				name, args := "trimaran", []string{what, "--data", filepath.Join(t.TempDir(), "data"), "--listen", addr, "--log-level", "debug"}
				if what == "shim" {
					name, web, metric = "trimaran-shim", harness.Loopback(port+1), "trimaran_shim_log_lines_dropped_total"
					args = []string{"--listen", addr, "--gateways", "127.0.0.1:1,127.0.0.2:1,127.0.0.3:1", "--metrics-listen", web, "--log-level", "debug"}
				}
				cmd := exec.Command(program(t, name), args...)
				log, theirs, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				defer log.Close()
				// As small as a pipe can be, so that it is full soon.
				if _, err := unix.FcntlInt(theirs.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
					t.Fatal(err)
				}
				cmd.Stdout, cmd.Stderr = theirs, theirs
				cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				theirs.Close()
				ended := make(chan error, 1)
				go func() { ended <- cmd.Wait() }()
				if reader == "gone" {
					if _, err := bufio.NewReader(log).ReadString('\n'); err != nil {
						t.Fatal(err)
					}
					log.Close()
				}
				healthy := func() bool {
					path := "/readyz"
					if what == "shim" {
						path = "/healthz"
					}
					_, code, err := harness.Get("http://" + web + path)
					return err == nil && code == 200
				}
				err = harness.Eventually(patience, func() bool {
					// Something that is told in the log.
					if conn, err := net.Dial("tcp", addr); err == nil {
						fmt.Fprint(conn, "\x7f\xff\xff\xff")
						conn.SetDeadline(time.Now().Add(time.Second))
						conn.Read(make([]byte, 1))
						conn.Close()
					}
					page, _, err := harness.Get("http://" + web + "/metrics")
					if err != nil || !healthy() {
						return false
					}
					at := strings.Index(page, "\n"+metric+" ")
					return at >= 0 && (reader == "still" || !strings.HasPrefix(page[at+1:], metric+" 0\n"))
				})
				if err != nil {
					t.Error("it does not serve, or counts no lines that are lost")
				}
				if !healthy() {
					t.Error("it is not well")
				}
				if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Error(err)
				}
				select {
				case err := <-ended:
					if err != nil {
						t.Errorf("it ends with %v", err)
					}
				case <-time.After(patience):
					t.Error("it does not end")
					_ = cmd.Process.Kill()
					<-ended
				}
			})
		}
	}
}
