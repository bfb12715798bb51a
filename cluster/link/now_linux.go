package link

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// writesNow gives what conn.now is of a connection.
func writesNow(nc net.Conn) func(parts [][]byte) (written int) {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	return func(parts [][]byte) (written int) {
		// Control, not Write: that would heed a deadline that is of an earlier write.
		_ = raw.Control(func(fd uintptr) {
			for {
				n, err := unix.Writev(int(fd), parts[:min(len(parts), maxParts)])
				if !errors.Is(err, syscall.EINTR) {
					written = max(n, 0)
					return
				}
			}
		})
		return written
	}
}
