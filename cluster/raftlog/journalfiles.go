package raftlog

import (
	"fmt"
	"path/filepath"
	"sync"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// journalFile is a file of the journal. Its batches are written by whoever writes; from when
// it is full until it is free again it is that of a flush.
type journalFile struct {
	file  vfs.File
	form  batching
	size  int64 // written in this round
	dirty map[*segment]struct{}
}

// journalFiles are the files of a journal, which take turns: one is written, others are flushed in
// the background, others are free.
type journalFiles struct {
	disk    *disk
	dir     string
	limit   int64 // bytes of a file
	stamped bool  // new files are of format 2

	wg    sync.WaitGroup
	freed chan struct{} // capacity 1: free has grown, or the store failed

	// mu guards free. Nothing is taken or waited for under it.
	mu   locks.Mutex[journalFiles]
	free []*journalFile

	// Of who writes.
	count   int           // of files in all
	next    int           // number of the next file
	retired chan struct{} // closed when the files that were full so far are free
}

// turnOver gives the next file to be written. full, the one before, is free again when its segments
// are synced; nil: there is none, since the turn-over before failed.
func (j *journalFiles) turnOver(full *journalFile) (*journalFile, error) {
	if full != nil {
		before, retired := j.retired, make(chan struct{})
		j.retired = retired
		j.wg.Go(func() {
			defer close(retired)
			j.flush(full, before)
		})
	}
	for limit := maxJournalFiles; ; {
		if f := j.takeFree(); f != nil {
			f.size = f.form.start()
			return f, nil
		}
		if j.count < limit {
			f, err := j.create(j.next)
			if err == nil {
				j.count, j.next = j.count+1, j.next+1
				return f, nil
			}
			if j.count == 0 {
				return nil, err
			}
			limit = 0 // the disk is full: the files that there are have to do
		}
		locks.MayWait("a flush of the journal")
		<-j.freed // sooner or later: a flush ends, or it fails and so does the store
		if err := j.disk.failed(); err != nil {
			return nil, err
		}
	}
}

func (j *journalFiles) takeFree() *journalFile {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.free) == 0 {
		return nil
	}
	f := j.free[0]
	j.free = j.free[1:]
	return f
}

// close waits for the flushes and closes the files that are free.
func (j *journalFiles) close() {
	j.wg.Wait()
	for _, f := range j.free {
		f.file.Close()
	}
}

func (j *journalFiles) create(number int) (*journalFile, error) {
	path := filepath.Join(j.dir, fmt.Sprintf(journalNamesakes, number))
	file, err := j.disk.create(path)
	if err != nil {
		return nil, err
	}
	form := batching(newFraming(j.stamped))
	if err = file.Allocate(j.limit); err == nil && form.stamped {
		_, err = file.WriteAt(form.fileHeader(), 0)
	}
	if err == nil {
		if err = j.disk.sync(file); err == nil {
			err = j.disk.syncDir(j.dir)
		}
	}
	if err != nil {
		file.Close()
		j.disk.fs.Remove(path)
		return nil, err
	}
	return &journalFile{file: file, form: form, size: form.start(), dirty: map[*segment]struct{}{}}, nil
}

// flush syncs the segments that a file covers, so that it can be used again when the files
// before it can: before is closed then, or nil.
func (j *journalFiles) flush(f *journalFile, before <-chan struct{}) {
	limit := make(chan struct{}, flushesAtOnce)
	var wg sync.WaitGroup
	var once sync.Once
	for s := range f.dirty {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			if err := s.flush(j.disk); err != nil {
				once.Do(func() { j.disk.fail(fmt.Errorf("sync %s: %w", s.path, err)) })
			}
		})
	}
	wg.Wait()
	if before != nil {
		<-before
	}
	if j.disk.failed() == nil {
		if err := j.wipe(f); err != nil {
			j.disk.fail(fmt.Errorf("journal: %w", err))
		}
	}
	if j.disk.failed() == nil {
		clear(f.dirty)
		j.mu.Lock()
		j.free = append(j.free, f)
		j.mu.Unlock()
	} else {
		f.file.Close()
	}
	select {
	case j.freed <- struct{}{}:
	default:
	}
}

// wipe makes the batches of a file void for good. A crash may leave any part of the first write
// that comes over them, and so some of the old ones, behind which others would seem to be missing.
func (j *journalFiles) wipe(f *journalFile) error {
	if _, err := f.file.WriteAt(make([]byte, f.form.header()), f.form.start()); err != nil {
		return err
	}
	return j.disk.sync(f.file)
}
