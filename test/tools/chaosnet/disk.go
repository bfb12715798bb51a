package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/trimaran-io/trimaran/test/harness/hostnet"
)

// disk is a file system of its own: ext4 on a loop device on an image that has holes.
type disk struct {
	image, mount string
}

const diskBytes = 3 << 30

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func newDisk(dir, name string) (*disk, error) {
	d := &disk{image: filepath.Join(dir, name+".img"), mount: filepath.Join(dir, name)}
	f, err := os.Create(d.image)
	if err != nil {
		return nil, err
	}
	err = errors.Join(f.Truncate(diskBytes), f.Close(), os.MkdirAll(d.mount, 0o755))
	if err != nil {
		return nil, err
	}
	if err := command("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,nodiscard", d.image); err != nil {
		return nil, fmt.Errorf("%w: %w", hostnet.ErrUnable, err)
	}
	if err := d.attach(); err != nil {
		return nil, fmt.Errorf("%w: %w", hostnet.ErrUnable, err)
	}
	return d, nil
}

func (d *disk) attach() error {
	return command("mount", "-o", "loop,errors=remount-ro", d.image, d.mount)
}

func (d *disk) detach() error { return command("umount", d.mount) }

// hang makes every write wait, and every sync.
func (d *disk) hang() error   { return command("fsfreeze", "-f", d.mount) }
func (d *disk) unhang() error { return command("fsfreeze", "-u", d.mount) }

func (d *disk) filler() string { return filepath.Join(d.mount, "filler") }

// fill leaves no room but what is reserved for root is root's as well: so it takes all of it.
func (d *disk) fill() error {
	var s unix.Statfs_t
	if err := unix.Statfs(d.mount, &s); err != nil {
		return err
	}
	f, err := os.Create(d.filler())
	if err != nil {
		return err
	}
	defer f.Close()
	for size := int64(s.Bfree) * s.Bsize; size > 1<<16; size = size * 15 / 16 {
		if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err == nil {
			break
		}
	}
	return nil
}

func (d *disk) unfill() error { return os.Remove(d.filler()) }

// readOnly is what ext4 does when it finds an error, as it is mounted here: EROFS from now on.
func (d *disk) readOnly() error {
	var s unix.Stat_t
	if err := unix.Stat(d.mount, &s); err != nil {
		return err
	}
	link, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(s.Dev), unix.Minor(s.Dev)))
	if err != nil {
		return err
	}
	return os.WriteFile("/sys/fs/ext4/"+filepath.Base(link)+"/trigger_fs_error", []byte("chaosnet\n"), 0o200)
}

// EXT4_IOC_SHUTDOWN and its flag: the file system stops at once and nothing that is not on the
// device yet gets there, the journal included (Linux, fs/ext4/ext4.h).
const (
	ioctlShutdown = 0x8004587d
	noLogFlush    = 2
)

// powerLoss takes the file system away as a power loss does. Everything fails with EIO until it is
// mounted again, and what was not synced may be gone.
func (d *disk) powerLoss() error {
	f, err := os.Open(d.mount)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := uint32(noLogFlush)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), ioctlShutdown, uintptr(unsafe.Pointer(&flags))); errno != 0 {
		return errno
	}
	return nil
}

// again mounts the file system anew: its journal is played back, errors are forgotten.
func (d *disk) again() error {
	if err := d.detach(); err != nil {
		return err
	}
	_ = command("e2fsck", "-p", d.image) // clears the mark of an error; 1 means it did
	return d.attach()
}
