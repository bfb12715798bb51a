package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/trimaran-io/trimaran/security"
)

// socketName is the Unix socket in the data directory, over which clients are the super user: who
// can open it can read the data. It is how the first user is made, and how one gets in who has
// forgotten his password.
const socketName = "trimaran.sock"

// longestSocket is how long the path of a Unix socket may be, in bytes; the kernel's bound is 108
// with a zero behind it on Linux, 104 elsewhere.
const longestSocket = 103

// localListener takes connections of the Unix socket.
type localListener struct {
	*net.UnixListener
	path string
}

// localConn is a connection of the Unix socket. Its principal is known before a byte is read.
type localConn struct{ *net.UnixConn }

// Principal is who is at the other end.
func (localConn) Principal() security.Principal { return security.Local }

// listenLocal makes the Unix socket of a data directory, which this process has locked: a socket
// that is there is one of a process before. There is no moment at which others than its owner could
// connect.
func listenLocal(dir string) (*localListener, error) {
	path := filepath.Join(dir, socketName)
	private, err := os.MkdirTemp(dir, ".socket-*") // 0700
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	inside := filepath.Join(private, "s")
	short, done, err := shortened(inside)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("socket in the data directory: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(inside, 0o600); err == nil {
		err = os.Rename(inside, path)
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("socket in the data directory: %w", err)
	}
	return &localListener{l, path}, nil
}

// Accept waits for a connection, which says who is at its other end.
func (l *localListener) Accept() (net.Conn, error) {
	c, err := l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	return localConn{c}, nil
}

// Close also removes the socket.
func (l *localListener) Close() error {
	err := l.UnixListener.Close()
	if err == nil {
		_ = os.Remove(l.path)
	}
	return err
}

// shortened gives a path for a socket that the kernel takes although the real one may be too long.
// done ends that.
func shortened(path string) (short string, done func(), err error) {
	if len(path) <= longestSocket {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	// Of Linux; elsewhere there is no such file, and the error names it.
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), func() { dir.Close() }, nil
}

// socketOf gives the socket that a path means: itself, or the one in a data directory.
func socketOf(path string) string {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return filepath.Join(path, socketName)
	}
	return path
}

// dialLocal connects to a node's Unix socket.
func dialLocal(ctx context.Context, path string) (net.Conn, error) {
	short, done, err := shortened(socketOf(path))
	if err != nil {
		return nil, err
	}
	defer done()
	return (&net.Dialer{}).DialContext(ctx, "unix", short)
}
