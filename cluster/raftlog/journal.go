package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// A disk syncs a few thousand times a second whatever is written, so many groups
// with small appends must not sync each. The journal takes the small appends of
// all groups of a node in one write and one sync. They are in their segments'
// page cache already; the segments are synced later, before the journal's bytes
// are overwritten, and after a crash the journal is played back into them.
//
// What must hold (FORMAT.md, Journal):
//   - A segment is written before the journal takes the append.
//   - A journal file is used again only after a sync of every segment in it, the
//     oldest file first, and after its first batch was durably wiped out: the
//     batches that a crash leaves are then always the newest ones, without a hole.
//   - After a failed sync nothing more is acknowledged until the node restarts.

const (
	journalMagic     = "TRMJNL\x00\x02" // a file of format 2; one of format 1 begins with a batch
	journalHeader    = 64
	batchMagic1      = "TJB1"
	batchMagic2      = "TJB2"
	batchHeader      = 32 // of format 1
	recordHeader     = 24
	maxJournalBatch  = 4 << 20
	maxJournalFiles  = 6
	defaultJournal   = 64 << 20
	smallJournal     = 1 << 20
	flushesAtOnce    = 4
	yields           = 4
	journalNamesakes = "%06d.journal"
)

// journalWrite is an append that waits for its turn.
type journalWrite struct {
	seg  *segment
	id   uint64
	pos  int64
	data []byte
	done chan error
}

// batching is how the batches of a journal file are laid out. The zero value is that of format 1.
type batching struct {
	stamped bool   // format 2: the file has a header, each batch a stamp
	secret  uint64 // of the file; no client can know it
}

// start is where the first batch is.
func (l batching) start() int64 {
	if l.stamped {
		return journalHeader
	}
	return 0
}

// header is the size of a batch's header.
func (l batching) header() int {
	if l.stamped {
		return batchHeader + stampBytes
	}
	return batchHeader
}

// fileHeader gives the first bytes of a file of format 2.
func (l batching) fileHeader() []byte {
	le := binary.LittleEndian
	b := append(make([]byte, 0, journalHeader), journalMagic...)
	b = le.AppendUint64(b, 0)
	// It is where a batch of format 1 has its number, which is not 0: so a header with a bad magic is no void batch.
	b = le.AppendUint64(b, l.secret)
	b = append(b, make([]byte, journalHeader-4-len(b))...)
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

type journalFile struct {
	file  vfs.File
	form  batching
	size  int64 // written in this round
	dirty map[*segment]struct{}
}

// journal is the journal of a node. Its writer is the only one that writes files.
type journal struct {
	st    *Store
	dir   string
	limit int64 // bytes of a file

	stamped bool // new files are of format 2

	unread map[string]error // folders of segments that could not be read at the start
	hashed int64            // bytes that the start computed checksums over

	wake chan struct{} // capacity 1
	quit chan struct{}
	wg   sync.WaitGroup

	freed  chan struct{} // capacity 1: free has grown, or the store failed
	mu     sync.Mutex
	queue  []*journalWrite
	closed bool
	free   []*journalFile

	// The writer's own.
	files      int // in all
	next       int // number of the next file
	epoch, seq uint64
	current    *journalFile
	retired    chan struct{} // closed when the files before current are free
	buf        []byte
}

// append returns when the bytes, which stand in the segment already, are on
// stable storage. data must not change before.
func (j *journal) append(s *segment, pos int64, data []byte) error {
	w := &journalWrite{seg: s, id: s.id.Load(), pos: pos, data: data, done: make(chan error, 1)}
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return errClosed
	}
	j.queue = append(j.queue, w)
	j.mu.Unlock()
	select {
	case j.wake <- struct{}{}:
	default:
	}
	return <-w.done
}

func (j *journal) start() {
	j.wg.Go(j.run)
}

// close ends the writer when what waits is written.
func (j *journal) close() {
	j.mu.Lock()
	j.closed = true
	j.mu.Unlock()
	close(j.quit)
	j.wg.Wait()
	if j.current != nil && j.st.failed() == nil {
		// What is behind the last batch is allocated ahead or of a round before: the next start need not read it. If
		// this fails it will.
		j.current.file.Truncate(j.current.size)
	}
	for _, f := range append(j.free, j.current) {
		if f != nil {
			f.file.Close()
		}
	}
}

func (j *journal) run() {
	busy := false // several appends waited last time
	for {
		// Groups that are ready to run may be about to append, too: that makes batches larger and syncs fewer, and the
		// groups of a batch go on together. One that appends alone does not wait for others.
		for n := 0; busy && n < yields; n++ {
			runtime.Gosched()
		}
		j.mu.Lock()
		waiting := j.queue
		j.queue = nil
		closed := j.closed
		j.mu.Unlock()
		if len(waiting) == 0 {
			if closed {
				return
			}
			select {
			case <-j.wake:
			case <-j.quit:
			}
			continue
		}
		busy = len(waiting) > 1
		for len(waiting) > 0 {
			n, size := 0, batching{stamped: j.stamped}.header()
			for n < len(waiting) {
				record := align(recordHeader + len(waiting[n].data))
				if n > 0 && size+record > maxJournalBatch {
					break
				}
				n, size = n+1, size+record
			}
			err := j.st.failed()
			if err == nil {
				if err = j.write(waiting[:n], size); err != nil {
					err = fmt.Errorf("journal: %w", err)
					// A sync that failed may have thrown away what it could not write. A write that
					// found no room, on a file system that keeps none, leaves a torn batch, and the next
					// one comes over it.
					var full errNoRoom
					if !errors.As(err, &full) {
						j.st.fail(err)
					}
				}
			}
			for _, w := range waiting[:n] {
				w.done <- err
			}
			waiting = waiting[n:]
		}
	}
}

func align(n int) int { return (n + frameAlign - 1) &^ (frameAlign - 1) }

// encodeBatch lays out a batch that is written at pos.
func encodeBatch(b []byte, form batching, pos int64, epoch, seq uint64, writes []*journalWrite) []byte {
	le := binary.LittleEndian
	if form.stamped {
		b = append(b[:0], batchMagic2...)
	} else {
		b = append(b[:0], batchMagic1...)
	}
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, epoch)
	b = le.AppendUint64(b, seq)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, uint32(len(writes)))
	if form.stamped {
		b = le.AppendUint64(b, stamp(form.secret, pos))
	}
	for _, w := range writes {
		b = le.AppendUint64(b, w.id)
		b = le.AppendUint64(b, uint64(w.pos))
		b = le.AppendUint32(b, uint32(len(w.data)))
		b = le.AppendUint32(b, 0)
		b = append(b, w.data...)
		for len(b)%frameAlign != 0 {
			b = append(b, 0)
		}
	}
	le.PutUint32(b[24:], uint32(len(b)-form.header()))
	le.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
	return b
}

// errNoRoom means that a batch was not written, and none of its appends is acknowledged.
type errNoRoom struct{ error }

func (e errNoRoom) Unwrap() error { return e.error }

// write puts a batch of appends on stable storage.
func (j *journal) write(writes []*journalWrite, size int) error {
	if j.current == nil || j.current.size+int64(size) > j.limit {
		if err := j.turnOver(); err != nil {
			return err
		}
	}
	f := j.current
	j.seq++
	j.buf = encodeBatch(j.buf, f.form, f.size, j.epoch, j.seq, writes)
	for _, w := range writes {
		f.dirty[w.seg] = struct{}{}
	}
	if _, err := f.file.WriteAt(j.buf, f.size); err != nil {
		if errors.Is(err, vfs.ErrNoSpace) {
			j.seq--
			return errNoRoom{err}
		}
		return err
	}
	f.size += int64(len(j.buf))
	return j.st.sync(f.file)
}

// turnOver goes on in another file. The full one is free again when its segments
// are synced.
func (j *journal) turnOver() error {
	if full := j.current; full != nil {
		before, retired := j.retired, make(chan struct{})
		j.current, j.retired = nil, retired
		j.wg.Go(func() {
			defer close(retired)
			j.flush(full, before)
		})
	}
	for limit := maxJournalFiles; ; {
		j.mu.Lock()
		if n := len(j.free); n > 0 {
			j.current = j.free[0]
			j.free = j.free[1:]
			j.mu.Unlock()
			j.current.size = j.current.form.start()
			return nil
		}
		j.mu.Unlock()
		if j.files < limit {
			f, err := j.create(j.next)
			if err == nil {
				j.files, j.next, j.current = j.files+1, j.next+1, f
				return nil
			}
			if j.files == 0 {
				return err
			}
			limit = 0 // the disk is full: the files that there are have to do
		}
		<-j.freed // sooner or later: a flush ends, or it fails and so does the store
		if err := j.st.failed(); err != nil {
			return err
		}
	}
}

func (j *journal) create(number int) (*journalFile, error) {
	path := filepath.Join(j.dir, fmt.Sprintf(journalNamesakes, number))
	file, err := j.st.create(path)
	if err != nil {
		return nil, err
	}
	form := batching(newFraming(j.stamped))
	if err = file.Allocate(j.limit); err == nil && form.stamped {
		_, err = file.WriteAt(form.fileHeader(), 0)
	}
	if err == nil {
		if err = j.st.sync(file); err == nil {
			err = j.st.syncDir(j.dir)
		}
	}
	if err != nil {
		file.Close()
		j.st.fs.Remove(path)
		return nil, err
	}
	return &journalFile{file: file, form: form, size: form.start(), dirty: map[*segment]struct{}{}}, nil
}

// flush syncs the segments that a file covers, so that it can be used again when the files
// before it can: before is closed then, or nil.
func (j *journal) flush(f *journalFile, before <-chan struct{}) {
	limit := make(chan struct{}, flushesAtOnce)
	var wg sync.WaitGroup
	var once sync.Once
	for s := range f.dirty {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			if err := s.flush(j.st); err != nil {
				once.Do(func() { j.st.fail(fmt.Errorf("sync %s: %w", s.path, err)) })
			}
		})
	}
	wg.Wait()
	if before != nil {
		<-before
	}
	if j.st.failed() == nil {
		if err := j.wipe(f); err != nil {
			j.st.fail(fmt.Errorf("journal: %w", err))
		}
	}
	if j.st.failed() == nil {
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

// wipe makes the batches of a file void for good. A crash may leave any part of the first write that comes
// over them, and so some of the old ones, behind which others would seem to be missing.
func (j *journal) wipe(f *journalFile) error {
	if _, err := f.file.WriteAt(make([]byte, f.form.header()), f.form.start()); err != nil {
		return err
	}
	return j.st.sync(f.file)
}

// flush brings to stable storage what was written to the segment so far. A
// segment that is gone needs none: whoever lets go of one that stays syncs it. One that has come there since is
// not opened for it.
func (s *segment) flush(st *Store) error {
	if !s.handle.isDirty() {
		return nil
	}
	f, err := s.handle.acquire()
	if errors.Is(err, errGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer s.handle.release()
	return st.sync(f)
}
