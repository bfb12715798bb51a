package raftlog

import (
	"errors"
	"io/fs"
	"time"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// What the kernel could not write it tells once, to the next sync of the file, and takes for written from then on: reads give
// it, the sync after that succeeds, and the next loss of power shows that it is not there (fsync(2), "Errors"). So
// the first error of any sync, of a file or a folder, ends the store. The whole of it, since all groups share the
// journal and the disk. A restart finds out what there is: the journal is written to the segments again, and so is the last
// append of each log, whatever reads say of it.

// sync brings what was written to a file to stable storage. An error fails the store for good, and after one
// nothing is believed to be there.
func (st *Store) sync(f vfs.File) error {
	if h, ok := f.(handleFile); ok {
		h.handle.syncing.Lock()
		defer h.handle.syncing.Unlock()
		writes := h.handle.writes.Load()
		err := st.syncOne(h.File)
		if err == nil {
			h.handle.covered(writes)
		}
		return err
	}
	return st.syncOne(f)
}

func (st *Store) syncOne(f vfs.File) error {
	if err := st.failed(); err != nil {
		return err
	}
	if st.opts.NoSync {
		return nil
	}
	err := f.Sync()
	if err != nil {
		st.fail(err)
	}
	return err
}

// outOfFilesFor is how long a folder waits for a file descriptor to be synced with.
const outOfFilesFor = 5 * time.Second

// syncDir brings the names in a folder to stable storage. An error fails the store for good, but that there is no
// descriptor to do it with: that is no word of the disk's.
func (st *Store) syncDir(dir string) error {
	if err := st.failed(); err != nil {
		return err
	}
	err := st.fs.SyncDir(dir)
	for began := time.Now(); vfs.OutOfFiles(err) && time.Since(began) < outOfFilesFor; {
		if !st.handles.closeClean() {
			time.Sleep(10 * time.Millisecond)
		}
		err = st.fs.SyncDir(dir)
	}
	if err != nil && !vfs.OutOfFiles(err) && !errors.Is(err, fs.ErrNotExist) {
		st.fail(err)
	}
	return err
}

// create makes an empty file.
func (st *Store) create(path string) (vfs.File, error) {
	f, err := st.fs.Create(path)
	if vfs.OutOfFiles(err) && st.handles.closeClean() {
		f, err = st.fs.Create(path)
	}
	return f, err
}
