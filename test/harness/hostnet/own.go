package hostnet

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ownEnv is set in a process that has a namespace of its own.
const ownEnv = "TRIMARAN_TEST_OWN_NETWORK"

// Own begins this program anew in a network namespace of its own, where PlugHere works and what it
// listens on is seen by its hosts alone. There it returns nil. It is to be called before anything
// else is done; where it fails, with an error that wraps ErrUnable, nothing has changed.
func Own() error {
	if os.Getenv(ownEnv) != "" {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnable, err)
	}
	// The other threads end with the exec, and this one's namespace is that of the program then.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("%w: a network namespace: %w", ErrUnable, err)
	}
	return fmt.Errorf("%w: %w", ErrUnable, unix.Exec(self, os.Args, append(os.Environ(), ownEnv+"=1")))
}
