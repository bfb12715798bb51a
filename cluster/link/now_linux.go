package link

import (
	"errors"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// writesNow gives what conn.now is of a connection.
func writesNow(nc net.Conn) func(parts [][]byte) (written int, err error) {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	return func(parts [][]byte) (written int, err error) {
		// Control, not Write: that would heed a deadline that is of an earlier write.
		closed := raw.Control(func(fd uintptr) {
			for {
				written, err = unix.Writev(int(fd), parts[:min(len(parts), maxParts)])
				if !errors.Is(err, syscall.EINTR) {
					return
				}
			}
		})
		switch {
		case closed != nil:
			return 0, closed
		case err == nil:
			return written, nil
		case errors.Is(err, syscall.EAGAIN):
			return 0, nil
		}
		return 0, &net.OpError{Op: "write", Net: "tcp", Source: nc.LocalAddr(), Addr: nc.RemoteAddr(), Err: os.NewSyscallError("writev", err)}
	}
}
