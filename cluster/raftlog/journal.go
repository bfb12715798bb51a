package raftlog

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// A disk syncs a few thousand times a second whatever is written, so many raft groups
// with small appends must not sync each. The journal takes the small appends of
// all raft groups of a node in one write and one sync. They are in their segments'
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

// journalWrite is an append on its way to the journal.
type journalWrite struct {
	seg  *segment
	id   uint64
	pos  int64
	data []byte
	told chan journalWord // capacity 1; nil: it began to write at once
}

// journalWord is what an append that waited is told: how the batch went that it was in, or that it
// is to write the next one.
type journalWord struct {
	err   error
	write bool
}

// journal is the journal of a node. It has no goroutine of its own: an append that finds nobody
// writing writes, what comes meanwhile waits for the next batch, and the first of those writes that
// one. So where one appends at a time nothing is handed over.
type journal struct {
	disk  *disk
	files *journalFiles

	replayed int64 // bytes that the start computed checksums over

	// mu guards what follows. Nothing is taken or waited for under it.
	mu      locks.Mutex[journal]
	queue   []*journalWrite
	writing bool          // somebody writes, or is told to
	closed  bool          // nothing more is taken
	over    chan struct{} // closed when nobody writes any more; nil: nobody waits for that

	// Of who writes.
	epoch, seq uint64
	current    *journalFile
	buf        []byte
	busy       bool // several appends were in the last batch
}

// append returns when the bytes, which stand in the segment already, are on stable storage. data
// must not change before.
func (j *journal) append(s *segment, pos int64, data []byte) error {
	w := &journalWrite{seg: s, id: s.id.Load(), pos: pos, data: data}
	locks.MayWait("the journal")
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return errClosed
	}
	wait := j.writing
	if wait {
		w.told = make(chan journalWord, 1)
	}
	j.writing = true
	j.queue = append(j.queue, w)
	j.mu.Unlock()
	if wait {
		if word := <-w.told; !word.write {
			return word.err
		}
	}
	return j.writeNext()
}

// close waits until what was taken is written, and for the flushes. Nothing more is taken.
func (j *journal) close() {
	j.mu.Lock()
	j.closed = true
	if j.writing {
		j.over = make(chan struct{})
	}
	over := j.over
	j.mu.Unlock()
	if over != nil {
		<-over
	}
	j.files.close()
	if j.current == nil {
		return
	}
	if j.disk.failed() == nil {
		// What is behind the last batch is allocated ahead or of a round before: the next start
		// need not read it. If this fails it will.
		j.current.file.Truncate(j.current.size)
	}
	j.current.file.Close()
}

// writeNext writes the next batch, with the append whose turn it is in front, and gives its error.
// It passes the turn on, and tells the others of the batch.
func (j *journal) writeNext() error {
	// Groups that are ready to run may be about to append, too: that makes batches larger and
	// syncs fewer, and the raft groups of a batch go on together. One that appends alone does not
	// wait for others.
	if j.busy {
		j.disk.outbox.Wake() // others run first, for as long as they take
	}
	for n := 0; j.busy && n < yields; n++ {
		runtime.Gosched()
	}
	j.mu.Lock()
	n, size := j.batchOf(j.queue)
	batch := j.queue[:n:n]
	if j.queue = j.queue[n:]; len(j.queue) == 0 {
		j.queue = nil
	}
	j.mu.Unlock()
	j.disk.outbox.Write()
	j.busy = n > 1
	err := j.disk.failed()
	if err == nil {
		if err = j.write(batch, size); err != nil {
			err = fmt.Errorf("journal: %w", err)
			// A sync that failed may have thrown away what it could not write. A write that
			// found no room, on a file system that keeps none, leaves a torn batch, and the
			// next one comes over it.
			var full errNoRoom
			if !errors.As(err, &full) {
				j.disk.fail(err)
			}
		}
	}
	j.mu.Lock()
	var next *journalWrite
	if len(j.queue) > 0 {
		next = j.queue[0]
	} else if j.writing = false; j.over != nil {
		close(j.over)
	}
	j.mu.Unlock()
	if next != nil {
		next.told <- journalWord{write: true}
	}
	for _, w := range batch[1:] {
		w.told <- journalWord{err: err}
	}
	return err
}

// batchOf gives how many appends the next batch takes, at least one, and its size in bytes.
func (j *journal) batchOf(waiting []*journalWrite) (n, size int) {
	size = batching{stamped: j.files.stamped}.header()
	for n < len(waiting) {
		record := align(recordHeader + len(waiting[n].data))
		if n > 0 && size+record > maxJournalBatch {
			break
		}
		n, size = n+1, size+record
	}
	return n, size
}

// errNoRoom means that a batch was not written, and none of its appends is acknowledged.
type errNoRoom struct{ error }

func (e errNoRoom) Unwrap() error { return e.error }

// write puts a batch of appends on stable storage.
func (j *journal) write(writes []*journalWrite, size int) error {
	if j.current == nil || j.current.size+int64(size) > j.files.limit {
		full := j.current
		j.current = nil
		f, err := j.files.turnOver(full)
		if err != nil {
			return err
		}
		j.current = f
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
	return j.disk.sync(f.file)
}
