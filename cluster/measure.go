//go:build measure

package cluster

import (
	"log/slog"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trimaran-io/trimaran/cluster/raftlink"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// forMeasuring lets `make bench` see what the journal and what stable storage cost. The program
// that users have is built without the tag and knows none of these variables.
func forMeasuring(opts *raftlog.Options, logger *slog.Logger) {
	if os.Getenv("TRIMARAN_TEST_JOURNAL") == "off" {
		opts.JournalBytes = -1
	}
	if os.Getenv("TRIMARAN_TEST_SYNC") == "off" {
		opts.NoSync = true
		logger.Warn("TRIMARAN_TEST_SYNC=off: records are acknowledged that are not on stable storage")
	}
	// So long a sync takes at least: several nodes on one machine seem to have a disk each.
	if took, err := time.ParseDuration(os.Getenv("TRIMARAN_TEST_SYNC")); err == nil {
		opts.FS = vfs.Failing{FS: opts.FS, Fail: func(op, _ string) error {
			if op == "sync" {
				asSync(took)
			}
			return nil
		}}
	}
}

// asSync holds the thread, as a sync does.
func asSync(d time.Duration) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Threads that Go's monitor thread starts sleep as inexactly as that one does.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(50*time.Microsecond), 0, 0, 0)
	wait := unix.NsecToTimespec(d.Nanoseconds())
	_ = unix.Nanosleep(&wait, nil)
}

// linksForMeasuring lets `make bench` see what it is worth that entries go ahead.
func linksForMeasuring(cfg *raftlink.Config) {
	cfg.StoreFirst = os.Getenv("TRIMARAN_TEST_AHEAD") == "off"
}
