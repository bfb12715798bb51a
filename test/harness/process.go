package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is one program under test. Its output goes to a file.
type Process struct {
	Name string
	Path string // the program
	Args []string
	// Under is a command that becomes the program in the end, such as nsenter; none when empty.
	Under []string
	Env   []string // added to the test's own environment
	Log   string   // file that gets stdout and stderr of every run

	// runs, at first at least, a program that is not of this tree: how that writes its log is its
	// own affair
	foreign bool

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when the current run has ended
}

// Start runs the program. It must not be running.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil && !p.endedLocked() {
		return fmt.Errorf("%s is running already", p.Name)
	}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(log, "--- start %s %s\n", filepath.Base(p.Path), strings.Join(p.Args, " "))
	line := slices.Concat(p.Under, []string{p.Path}, p.Args)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = append(os.Environ(), p.Env...)
	if raceDetector {
		// A program with the race detector sleeps for a second before it ends, which
		// would be measured as the time that a stop takes.
		cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	}
	cmd.Stdout, cmd.Stderr = log, log
	// Should the test process die without its cleanup, the kernel ends the child.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() {
		cmd.Wait()
		close(done)
	}()
	return nil
}

func (p *Process) endedLocked() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Running reports whether the program was started and has not ended.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil && !p.endedLocked()
}

// Pid gives the process id of the current or last run, 0 before the first.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Signal sends one signal to the program.
func (p *Process) Signal(s os.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || p.endedLocked() {
		return fmt.Errorf("%s is not running", p.Name)
	}
	return p.cmd.Process.Signal(s)
}

// Kill9 ends the program as kill -9 does and waits until it is gone.
func (p *Process) Kill9() error {
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	_, err := p.Wait(10 * time.Second)
	return err
}

// Terminate sends SIGTERM and gives the exit code.
func (p *Process) Terminate(within time.Duration) (int, error) {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	return p.Wait(within)
}

// Wait gives the exit code once the program has ended; -1 when a signal ended it.
func (p *Process) Wait(within time.Duration) (int, error) {
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.mu.Unlock()
	if cmd == nil {
		return 0, errors.New("never started")
	}
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-done:
		return cmd.ProcessState.ExitCode(), nil
	case <-timer.C:
		return 0, fmt.Errorf("%s did not end within %s", p.Name, within)
	}
}

// Output gives everything the program has written since its first start.
func (p *Process) Output() string {
	b, _ := os.ReadFile(p.Log)
	return string(b)
}

// Tail gives the last lines of the output.
func (p *Process) Tail(lines int) string {
	b, _ := os.ReadFile(p.Log)
	all := bytes.Split(bytes.TrimRight(b, "\n"), []byte("\n"))
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return string(bytes.Join(all, []byte("\n")))
}

var (
	logText = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	logKey  = regexp.MustCompile(`(?:^| )([A-Za-z_]+)=`)
)

// twice gives a line of a log that has a key twice: of the two values only one
// would be found in it as JSON.
func twice(log string) string {
	for line := range strings.Lines(log) {
		if !strings.HasPrefix(line, "time=") {
			continue
		}
		seen := map[string]bool{}
		for _, key := range logKey.FindAllStringSubmatch(logText.ReplaceAllString(line, ""), -1) {
			if seen[key[1]] {
				return line
			}
			seen[key[1]] = true
		}
	}
	return ""
}

// Complaint gives what no test may leave in a log: a data race, a panic, a fatal
// error of the runtime, a line with a key twice. Empty when there is none.
func (p *Process) Complaint() string {
	out := p.Output()
	for _, mark := range []string{"WARNING: DATA RACE", "\npanic: ", "\nfatal error: ", "[signal SIG"} {
		if i := strings.Index(out, mark); i >= 0 {
			end := min(i+6000, len(out))
			return out[i:end]
		}
	}
	if p.foreign {
		return ""
	}
	return twice(out)
}

// end makes sure that nothing is left running.
func (p *Process) end() {
	if !p.Running() {
		return
	}
	p.Signal(syscall.SIGCONT)
	p.Signal(syscall.SIGTERM)
	if _, err := p.Wait(10 * time.Second); err != nil {
		p.Signal(syscall.SIGKILL)
		p.Wait(10 * time.Second)
	}
}
