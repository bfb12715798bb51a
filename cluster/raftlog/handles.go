package raftlog

import (
	"container/list"
	"errors"
	"sync/atomic"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// handles keeps segment and index files open between uses. Of those that nobody uses the least
// recently used are closed first when there are too many. One that was written to stays open until
// it is synced: the kernel tells who has a file open that it could not write it, and may forget
// that when the last one closes it.
type handles struct {
	maxClean int // files that nobody uses and that are synced
	maxDirty int // files that nobody uses and that are not

	// mu guards the lists and what handles say is guarded by it. All who read take it: nothing is
	// taken under it, and files are opened, closed and synced without it.
	mu    locks.Mutex[handles]
	clean list.List // *fileHandle, oldest at the front
	dirty list.List
}

// init says how many files may stay open: of all that the process may have, the most part is for
// connections.
func (hs *handles) init(all int) {
	hs.maxClean = min(max(all/8, 1), 1024)
	hs.maxDirty = max(all/4, 1)
}

// fileHandle is a file that is opened when it is used.
type fileHandle struct {
	disk *disk
	path string

	// writes counts what was done to the file: after a write, so that a sync that ran beside it
	// does not count for it.
	writes atomic.Uint64
	// syncing is held during a sync. Of two at once the kernel tells one of an error and lets the
	// other succeed. handles.mu is taken under it. Readers do not take it.
	syncing locks.Slow[handleSyncing]
	// opening is held while the file is opened, so that it is opened once. It is taken with no lock
	// of the handles held, and handles.mu under it: who waits for it wants the very file.
	opening locks.Slow[handleOpening]

	// Guarded by handles.mu.
	file   vfs.File // a handleFile; nil: closed
	uses   int
	gone   bool
	synced uint64        // writes that are on stable storage
	at     *list.Element // in idle
	idle   *list.List    // nil: it is used, or closed
}

// handleSyncing and handleOpening are the classes of a fileHandle's mutexes.
type (
	handleSyncing struct{}
	handleOpening struct{}
)

var errGone = errors.New("the file is no longer part of the log")

// init sets the path; f, which is synced, may be nil.
func (h *fileHandle) init(d *disk, path string, f vfs.File) {
	h.disk, h.path = d, path
	if f == nil {
		return
	}
	hs := &d.handles
	hs.mu.Lock()
	h.file = handleFile{f, h}
	h.rest()
	over := hs.shrink(hs.maxClean)
	hs.mu.Unlock()
	closeAll(over)
}

// acquire gives the open file; release must be called once it is not used any more.
func (h *fileHandle) acquire() (vfs.File, error) {
	if f, err := h.use(nil); f != nil || err != nil {
		return f, err
	}
	h.opening.Lock()
	defer h.opening.Unlock()
	if f, err := h.use(nil); f != nil || err != nil {
		return f, err // somebody else has opened it
	}
	f, err := h.disk.fs.Open(h.path)
	if vfs.OutOfFiles(err) && h.disk.handles.closeClean() {
		f, err = h.disk.fs.Open(h.path)
	}
	if err != nil {
		return nil, err
	}
	used, err := h.use(f)
	if err != nil {
		f.Close()
	}
	return used, err
}

// use counts one more use of the file, which is opened if it is given; nil: it is closed.
func (h *fileHandle) use(opened vfs.File) (vfs.File, error) {
	hs := &h.disk.handles
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if h.gone {
		return nil, errGone
	}
	if opened != nil {
		h.file = handleFile{opened, h}
	}
	if h.file == nil {
		return nil, nil
	}
	h.wake()
	h.uses++
	return h.file, nil
}

func (h *fileHandle) release() {
	h.letGo()
	hs := &h.disk.handles
	for h := hs.tooDirty(); h != nil; h = hs.tooDirty() {
		err := h.disk.sync(h.file)
		h.letGo()
		if err != nil {
			return // the store has failed, and nothing comes to be clean any more
		}
	}
}

func (h *fileHandle) letGo() {
	hs := &h.disk.handles
	hs.mu.Lock()
	var over []vfs.File
	switch h.uses--; {
	case h.uses > 0:
	case h.gone:
		over = append(over, h.file)
		h.file = nil
	default:
		h.rest()
		over = hs.shrink(hs.maxClean)
	}
	hs.mu.Unlock()
	closeAll(over)
}

// drop makes later uses fail and closes the file when the last one is over.
func (h *fileHandle) drop() {
	if h.disk == nil {
		return
	}
	hs := &h.disk.handles
	hs.mu.Lock()
	h.gone = true
	h.wake()
	var over []vfs.File
	if h.uses == 0 && h.file != nil {
		over = append(over, h.file)
		h.file = nil
	}
	hs.mu.Unlock()
	closeAll(over)
}

// isDirty reports whether something was written that no sync has covered.
func (h *fileHandle) isDirty() bool {
	hs := &h.disk.handles
	hs.mu.Lock()
	defer hs.mu.Unlock()
	return h.writes.Load() != h.synced
}

// covered is told that a sync has ended which began when so much had been written.
func (h *fileHandle) covered(writes uint64) {
	hs := &h.disk.handles
	hs.mu.Lock()
	defer hs.mu.Unlock()
	h.synced = max(h.synced, writes)
}

// rest puts the file among those that nobody uses; the lock is held.
func (h *fileHandle) rest() {
	hs := &h.disk.handles
	if h.idle = &hs.clean; h.writes.Load() != h.synced {
		h.idle = &hs.dirty
	}
	h.at = h.idle.PushBack(h)
}

// wake takes the file out from among those that nobody uses; the lock is held.
func (h *fileHandle) wake() {
	if h.idle != nil {
		h.idle.Remove(h.at)
		h.idle, h.at = nil, nil
	}
}

// shrink takes files that are synced away from their handles until there are few enough, and gives
// them to be closed without the lock; the lock is held.
func (hs *handles) shrink(to int) (over []vfs.File) {
	for hs.clean.Len() > to {
		h := hs.clean.Front().Value.(*fileHandle)
		h.wake()
		over = append(over, h.file)
		h.file = nil
	}
	return over
}

func closeAll(files []vfs.File) {
	for _, f := range files {
		f.Close() // it is synced, or no part of the log any more
	}
}

// tooDirty gives the file to be synced so that it can be closed, acquired; nil if there are few
// enough.
func (hs *handles) tooDirty() *fileHandle {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if hs.dirty.Len() <= hs.maxDirty {
		return nil
	}
	h := hs.dirty.Front().Value.(*fileHandle)
	h.wake()
	h.uses++
	return h
}

// closeClean closes all files that nobody uses and that are synced, and reports whether there were
// any.
func (hs *handles) closeClean() bool {
	hs.mu.Lock()
	over := hs.shrink(0)
	hs.mu.Unlock()
	closeAll(over)
	return len(over) > 0
}

// handleFile is the file of a handle: what is written counts.
type handleFile struct {
	vfs.File
	handle *fileHandle
}

func (f handleFile) WriteAt(b []byte, at int64) (int, error) {
	defer f.handle.writes.Add(1)
	return f.File.WriteAt(b, at)
}

func (f handleFile) WriteVector(pieces [][]byte, at int64) error {
	defer f.handle.writes.Add(1)
	return f.File.WriteVector(pieces, at)
}

func (f handleFile) Truncate(size int64) error {
	defer f.handle.writes.Add(1)
	return f.File.Truncate(size)
}

func (f handleFile) Allocate(size int64) error {
	defer f.handle.writes.Add(1)
	return f.File.Allocate(size)
}
