package raftlog

import (
	"container/list"
	"errors"
	"sync"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// maxOpenFiles bounds the segment and index files that a node keeps open though
// nobody uses them.
const maxOpenFiles = 1024

// handles keeps files open between uses, the least recently used ones closed
// first when there are too many.
type handles struct {
	mu   sync.Mutex
	idle list.List // *fileHandle, oldest at the front
}

// fileHandle is a file that is opened when it is used.
type fileHandle struct {
	st   *Store
	path string

	// Guarded by st.handles.mu.
	file vfs.File
	uses int
	gone bool
	at   *list.Element // in idle
}

var errGone = errors.New("the file is no longer part of the log")

// init sets the path; f may be nil.
func (h *fileHandle) init(st *Store, path string, f vfs.File) {
	h.st, h.path, h.file = st, path, f
	if f != nil {
		hs := &st.handles
		hs.mu.Lock()
		defer hs.mu.Unlock()
		h.at = hs.idle.PushBack(h)
		hs.shrink()
	}
}

// acquire gives the open file; release must be called once it is not used any more.
func (h *fileHandle) acquire() (vfs.File, error) {
	hs := &h.st.handles
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if h.gone {
		return nil, errGone
	}
	if h.file == nil {
		f, err := h.st.fs.Open(h.path) // rare, and mostly a matter of microseconds
		if err != nil {
			return nil, err
		}
		h.file = f
	}
	if h.at != nil {
		hs.idle.Remove(h.at)
		h.at = nil
	}
	h.uses++
	return h.file, nil
}

func (h *fileHandle) release() {
	hs := &h.st.handles
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if h.uses--; h.uses > 0 {
		return
	}
	if h.gone {
		h.file.Close()
		h.file = nil
		return
	}
	h.at = hs.idle.PushBack(h)
	hs.shrink()
}

// drop makes later uses fail and closes the file when the last one is over.
func (h *fileHandle) drop() {
	if h.st == nil {
		return
	}
	hs := &h.st.handles
	hs.mu.Lock()
	defer hs.mu.Unlock()
	h.gone = true
	if h.at != nil {
		hs.idle.Remove(h.at)
		h.at = nil
	}
	if h.uses == 0 && h.file != nil {
		h.file.Close()
		h.file = nil
	}
}

// shrink closes files until there are few enough; the lock is held.
func (hs *handles) shrink() {
	for hs.idle.Len() > maxOpenFiles {
		oldest := hs.idle.Front()
		h := hs.idle.Remove(oldest).(*fileHandle)
		h.at = nil
		h.file.Close()
		h.file = nil
	}
}
