package raftlog

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// disk is the files of a store, whatever is in them: it makes, opens and syncs them, and ends with
// the first sync that fails.
//
// What the kernel could not write it tells once, to the next sync of the file, and takes for
// written from then on: reads give it, the sync after that succeeds, and the next loss of power
// shows that it is not there (fsync(2), "Errors"). So the first error of any sync, of a file or a
// folder, ends the store. The whole of it, since all raft groups share the journal and the disk. A
// restart finds out what there is: the journal is written to the segments again, and so is the last
// append of each log, whatever reads say of it.
type disk struct {
	fs      vfs.FS
	logger  *slog.Logger
	noSync  bool        // see Options.NoSync
	onFail  func(error) // told once; nil: it is logged
	outbox  Outbox      // Options.Outbox, never nil where something is appended
	handles handles

	failure atomic.Pointer[error] // nil: it has not failed
}

// fail makes the store take nothing more.
func (d *disk) fail(err error) {
	cause := fmt.Errorf("the log store has failed: %w", err)
	if d.failure.CompareAndSwap(nil, &cause) {
		if d.onFail == nil {
			d.logger.Error("the log store takes nothing more until it is opened again", "error", err)
			return
		}
		d.onFail(err)
	}
}

// failed gives the error that ended the store; nil: none has.
func (d *disk) failed() error {
	if err := d.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// sync brings what was written to a file to stable storage. An error fails the store for good, and
// after one nothing is believed to be there.
func (d *disk) sync(f vfs.File) error {
	if h, ok := f.(handleFile); ok {
		h.handle.syncing.Lock()
		defer h.handle.syncing.Unlock()
		writes := h.handle.writes.Load()
		err := d.syncOne(h.File)
		if err == nil {
			h.handle.covered(writes)
		}
		return err
	}
	return d.syncOne(f)
}

func (d *disk) syncOne(f vfs.File) error {
	if err := d.failed(); err != nil {
		return err
	}
	if d.noSync {
		return nil
	}
	err := f.Sync()
	if err != nil {
		d.fail(err)
	}
	return err
}

// outOfFilesFor is how long a folder waits for a file descriptor to be synced with.
const outOfFilesFor = 5 * time.Second

// syncDir brings the names in a folder to stable storage. An error fails the store for good, but
// that there is no descriptor to do it with: that is no word of the disk's.
func (d *disk) syncDir(dir string) error {
	if err := d.failed(); err != nil {
		return err
	}
	err := d.fs.SyncDir(dir)
	for began := time.Now(); vfs.OutOfFiles(err) && time.Since(began) < outOfFilesFor; {
		if !d.handles.closeClean() {
			time.Sleep(10 * time.Millisecond)
		}
		err = d.fs.SyncDir(dir)
	}
	if err != nil && !vfs.OutOfFiles(err) && !errors.Is(err, fs.ErrNotExist) {
		d.fail(err)
	}
	return err
}

// create makes an empty file.
func (d *disk) create(path string) (vfs.File, error) {
	f, err := d.fs.Create(path)
	if vfs.OutOfFiles(err) && d.handles.closeClean() {
		f, err = d.fs.Create(path)
	}
	return f, err
}

// unmake removes a file that could not be finished, for good: were it there after a crash, with an
// entry less in front of it by then, it would look as if something was lost. If that cannot be had
// either, nothing more is taken until a restart, which finds what there is.
func (d *disk) unmake(path string) {
	err := d.fs.Remove(path)
	if err == nil {
		err = d.syncDir(filepath.Dir(path))
	}
	if err != nil {
		d.fail(fmt.Errorf("remove %s: %w", path, err))
	}
}

// readFile gives what is in a file of at most limit bytes; a longer one is damaged.
func (d *disk) readFile(path string, limit int64) ([]byte, error) {
	f, err := d.fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("%w: %s has %d bytes", ErrDamaged, path, size)
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); int64(n) < size {
		return nil, err
	}
	return b, nil
}

// writeFile puts a file in place of the one before, durably.
func (d *disk) writeFile(dir, name string, b []byte) error {
	path := filepath.Join(dir, name+".new")
	f, err := d.create(path)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = d.sync(f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = d.fs.Rename(path, filepath.Join(dir, name))
	}
	if err != nil {
		d.fs.Remove(path)
		return err
	}
	return d.syncDir(dir)
}
