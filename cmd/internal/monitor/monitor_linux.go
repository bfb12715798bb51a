package monitor

import (
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Relax makes the monitor thread sleep for a millisecond at least. It must be called before
// anything else is done: it starts the program once more in this process, with
// the same arguments and environment. Where that cannot be, where there is one processor only, or
// where somebody has set a timer slack of at least as much, all stays as it is.
func Relax() {
	if runtime.GOMAXPROCS(0) < 2 {
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := slack()
	if before >= relaxed {
		return // it has been done, or is somebody's setting
	}
	if setSlack(relaxed); slack() == relaxed {
		restart(program())
	}
	setSlack(before)
}

// restart starts a program in place of this one. It returns if that fails, and nothing has changed.
func restart(path string) {
	var files syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files)
	_ = syscall.Exec(path, os.Args, os.Environ())
	if err == nil {
		// Exec has put back the soft limit, which Go had raised when the program began.
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files)
	}
}

// program is a path to the running program: its own, by which Linux names the process, unless
// another program lies there by now.
func program() string {
	const running = "/proc/self/exe"
	own, err := os.Executable()
	if err != nil {
		return running
	}
	a, err := os.Stat(own)
	if err != nil {
		return running
	}
	if b, err := os.Stat(running); err != nil || !os.SameFile(a, b) {
		return running
	}
	return own
}

// slack is the timer slack of this thread.
func slack() time.Duration {
	n, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return relaxed + 1
	}
	return time.Duration(n)
}

func setSlack(d time.Duration) {
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(d), 0, 0, 0)
}
