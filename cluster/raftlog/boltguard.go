package raftlog

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"sync/atomic"
	"syscall"
)

// boltGuard keeps errors of the disk that a bbolt file is on from Raft, which panics on some, and from bbolt, which goes on after a
// sync that failed as if the next one said anything (see Store.sync), and to which a page that cannot be read is a fault
// in memory. The first such error is told and ends the use of the file.
type boltGuard struct {
	path    string
	onFail  atomic.Pointer[func(error)]
	failure atomic.Pointer[error]
	faulted atomic.Bool // bbolt was left in the middle of something: its locks may be held
}

// OnFail sets what is told, once, of the error after which the file takes and gives nothing more.
func (g *boltGuard) OnFail(tell func(error)) { g.onFail.Store(&tell) }

func (g *boltGuard) failed() error {
	if err := g.failure.Load(); err != nil {
		return *err
	}
	return nil
}

func (g *boltGuard) fail(err error) {
	cause := fmt.Errorf("%s has failed: %w", g.path, err)
	if g.failure.CompareAndSwap(nil, &cause) {
		if tell := g.onFail.Load(); tell != nil {
			(*tell)(cause)
		}
	}
}

// read does what only reads the file. No error of it is the disk's but a fault.
func (g *boltGuard) read(do func() error) (err error) {
	if err := g.failed(); err != nil {
		return err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if reason := recover(); reason != nil {
			g.faulted.Store(true)
			g.fail(fmt.Errorf("%v", reason))
			err = g.failed()
		}
	}()
	return do()
}

// write does what changes the file. With an error nothing is changed, or nobody knows; after one
// that is more than no room nothing is changed any more.
func (g *boltGuard) write(do func() error) error {
	err := g.read(do)
	if err != nil && g.failed() == nil && !noRoom(err) {
		g.fail(err)
	}
	return err
}

// noRoom reports whether an error of bbolt is a full disk's: a write that did not fit. Nothing was synced
// then, and the next transaction writes all of its pages again. A sync that finds no room has lost something.
func noRoom(err error) bool {
	var path *fs.PathError
	return errors.As(err, &path) && path.Op == "write" && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT))
}

// close closes the file.
func (g *boltGuard) close(do func() error) error {
	if g.faulted.Load() {
		return g.failed() // bbolt might wait for itself
	}
	return do()
}
