//go:build unix

package shim

import (
	"net"
	"syscall"
)

// writeNow writes what the connection takes without waiting, and gives how much that is. An error
// counts as nothing: who writes then and waits is told it.
func writeNow(c net.Conn, b []byte) (written int) {
	conn, ok := c.(*net.TCPConn)
	if !ok {
		return 0
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Write(func(fd uintptr) bool {
		n, err := syscall.Write(int(fd), b)
		if err == nil && n > 0 {
			written = n
		}
		return true // not to be called again when there is room
	})
	return written
}
