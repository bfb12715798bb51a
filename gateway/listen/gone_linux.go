package listen

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// halfClosed reports whether the other side has closed the connection or its half of it, also where
// something that it sent before is still to be read.
func halfClosed(c net.Conn) bool {
	below, ok := lowest(c).(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := below.SyscallConn()
	if err != nil {
		return true // it is closed here
	}
	closed := false
	err = raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(poll, 0)
		closed = err == nil && n > 0 && poll[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
	return closed || err != nil
}

// lowest is the connection below TLS and what else is laid around it.
func lowest(c net.Conn) net.Conn {
	for {
		switch around := c.(type) {
		case *peeked:
			c = around.Conn
		case *conn:
			c = around.Conn
		case *webConn:
			c = around.conn
		case interface{ NetConn() net.Conn }: // TLS
			c = around.NetConn()
		default:
			return c
		}
	}
}
