package soon

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// newAlarm makes one. It is nil where a descriptor cannot be had.
func newAlarm() alarm {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil
	}
	// It is not blocking, so the runtime waits for it as it does for sockets.
	return &timerfd{fd: fd, file: os.NewFile(uintptr(fd), "timerfd")}
}

type timerfd struct {
	fd   int
	file *os.File
	rang [8]byte // how often; read, and not looked at
}

func (t *timerfd) set(at time.Time) {
	var spec unix.ItimerSpec
	if !at.IsZero() {
		spec.Value = unix.NsecToTimespec(max(int64(time.Until(at)), 1)) // 0 would be never
	}
	_ = unix.TimerfdSettime(t.fd, 0, &spec, nil)
}

func (t *timerfd) wait() bool {
	_, err := t.file.Read(t.rang[:])
	return err == nil
}

func (t *timerfd) close() { t.file.Close() }
