package vfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// ErrLocked is in the error of a lock that somebody else has.
var ErrLocked = errors.New("locked by another process")

// Lock implements FS. The lock is the process's: it goes when that ends, however it does
// (flock(2)).
func (osFS) Lock(name string) (io.Closer, error) {
	locks.MayWait("locking a file")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %w", ErrLocked, err)
	}
	return f, nil
}

// Lock implements FS. The lock goes with Exit and with Crash.
func (m *Mem) Lock(name string) (io.Closer, error) {
	if err := m.change("lock", name); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	name = filepath.Clean(name)
	if parent := m.root[filepath.Dir(name)]; parent == nil || !parent.dir {
		return nil, notThere("lock", name)
	}
	node := m.root[name]
	if node == nil {
		node = &memNode{}
		m.link(name, node)
	}
	if node.locked != nil {
		return nil, fmt.Errorf("%w: %s", ErrLocked, name)
	}
	node.locked = &memLock{fs: m, node: node}
	return node.locked, nil
}

// memLock is a lock on a file in memory.
type memLock struct {
	fs   *Mem
	node *memNode
}

// Close gives the lock up, unless it is somebody else's meanwhile.
func (l *memLock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	if l.node.locked == l {
		l.node.locked = nil
	}
	return nil
}
