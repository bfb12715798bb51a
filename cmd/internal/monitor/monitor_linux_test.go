package monitor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

const asked = "TRIMARAN_MONITOR_TEST"

func TestMain(m *testing.M) {
	if os.Getenv(asked) == "" {
		os.Exit(m.Run())
	}
	Relax()
	comm, _ := os.ReadFile("/proc/self/comm")
	fmt.Println(os.Getpid(), slack(), strings.TrimSpace(string(comm)), strings.Join(os.Args[1:], " "))
	os.Exit(0)
}

// The program is started once more in its process, with its arguments, and goes on.
func TestRelax(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(self)
	name = name[:min(len(name), 15)] // as much as Linux keeps
	for _, c := range []struct {
		procs string
		first time.Duration // the slack before
		then  time.Duration
	}{
		{"2", 70 * time.Microsecond, usual}, // started once more, and put back
		{"1", 70 * time.Microsecond, 70 * time.Microsecond},
		{"2", 2 * relaxed, 2 * relaxed}, // somebody's setting
	} {
		cmd := exec.Command(self, "-test.run=none", "some words")
		cmd.Env = append(os.Environ(), asked+"=1", "GOMAXPROCS="+c.procs)
		out, err := start(t, cmd, c.first)
		if want := fmt.Sprintf("%d %s %s -test.run=none some words\n", cmd.Process.Pid, c.then, name); err != nil || out != want {
			t.Errorf("with %s processors and a slack of %v: %q, %v; want %q", c.procs, c.first, out, err, want)
		}
	}
}

// start runs cmd from a thread with that timer slack.
func start(t *testing.T, cmd *exec.Cmd, first time.Duration) (string, error) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := slack()
	setSlack(first)
	defer setSlack(before)
	out, err := cmd.Output()
	return string(out), err
}
