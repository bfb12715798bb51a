package backup

import (
	"os"

	"golang.org/x/sys/unix"
)

// setDirect has what is read from a file and written to it go past the kernel's page cache, or not
// any more (O_DIRECT). There are file systems that do not know that.
func setDirect(f *os.File, on bool) error {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	flags &^= unix.O_DIRECT
	if on {
		flags |= unix.O_DIRECT
	}
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETFL, flags)
	return err
}
