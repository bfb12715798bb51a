package monitor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

const asked = "TRIMARAN_MONITOR_TEST"

func TestMain(m *testing.M) {
	if os.Getenv(asked) == "" {
		os.Exit(m.Run())
	}
	if os.Getenv(asked) == "fails" {
		var before, after syscall.Rlimit
		syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before)
		restart("/nowhere")
		syscall.Getrlimit(syscall.RLIMIT_NOFILE, &after)
		fmt.Print(before.Cur, " ", after.Cur)
		os.Exit(0)
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
		{"2", 70 * time.Microsecond, relaxed}, // started once more
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

// Where the program cannot be started once more it goes on with as many files as before.
func TestNothingChangesWhereTheStartFails(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `ulimit -Sn 64 && exec "$0"`, self)
	cmd.Env = append(os.Environ(), asked+"=fails")
	out, err := cmd.Output()
	before, after, _ := strings.Cut(string(out), " ")
	if err != nil || before != after || before == "64" {
		t.Errorf("before and after: %q, %v", out, err)
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
