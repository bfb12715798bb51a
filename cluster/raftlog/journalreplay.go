package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// journalRun is the batches that one journal file has, one after the other.
type journalRun struct {
	number      int
	epoch       uint64
	first, last uint64 // sequence numbers; last < first: none
	end         int64  // position behind them
}

// journalBatch is a batch as it was read.
type journalBatch struct {
	epoch, seq uint64
	count      uint32
	body       []byte
	size       int64
}

// parseBatch reads the batch at the start of b. ok is false if there is none.
func parseBatch(b []byte) (batch journalBatch, ok bool) {
	if len(b) < batchHeader || string(b[:4]) != journalMagic {
		return batch, false
	}
	le := binary.LittleEndian
	body := int64(le.Uint32(b[24:]))
	if body > int64(len(b)-batchHeader) || crc32.Checksum(b[8:batchHeader+body], castagnoli) != le.Uint32(b[4:]) {
		return batch, false
	}
	return journalBatch{
		epoch: le.Uint64(b[8:]), seq: le.Uint64(b[16:]), count: le.Uint32(b[28:]),
		body: b[batchHeader : batchHeader+body], size: batchHeader + body,
	}, true
}

// records calls fn for each append in the batch.
func (b journalBatch) records(fn func(id uint64, pos int64, data []byte) error) error {
	le := binary.LittleEndian
	rest := b.body
	for range b.count {
		if len(rest) < recordHeader {
			return fmt.Errorf("%w: journal batch %d is too short", ErrDamaged, b.seq)
		}
		size := int(le.Uint32(rest[16:]))
		if size > len(rest)-recordHeader {
			return fmt.Errorf("%w: journal batch %d is too short", ErrDamaged, b.seq)
		}
		if err := fn(le.Uint64(rest), int64(le.Uint64(rest[8:])), rest[recordHeader:recordHeader+size]); err != nil {
			return err
		}
		rest = rest[min(len(rest), align(recordHeader+size)):]
	}
	return nil
}

// openJournal plays back what the journal has into the segments, which it finds
// below groups, and begins a new epoch.
func openJournal(st *Store, dir, groups string, limit int64) (*journal, error) {
	if err := st.fs.MkdirAll(dir); err != nil {
		return nil, err
	}
	if err := st.fs.SyncDir(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	j := &journal{
		st: st, dir: dir, limit: limit,
		wake: make(chan struct{}, 1), quit: make(chan struct{}), freed: make(chan struct{}, 1),
	}
	epoch, old, err := j.replay(groups)
	if errors.Is(err, ErrDamaged) {
		// Nobody knows whose appends are gone. If all segments were synced since, nobody's are.
		if st.closed.Epoch == epoch {
			st.logger.Warn("the journal is damaged, and was not needed any more", "error", err)
			err = nil
		} else {
			err = st.distrust(fmt.Errorf("journal %s: %w", dir, err))
		}
	}
	for dir, cause := range j.unread {
		// What the journal had for it cannot be kept. After a stop in good order that was nothing.
		if err == nil && st.closed.Epoch != epoch {
			err = writeFile(st, dir, suspectName, []byte(cause.Error()+"\n"))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("journal %s: %w", dir, err)
	}
	// The new epoch begins in a new file: until its first batch is on stable
	// storage, the old ones count, and must stay whole.
	for _, number := range old {
		j.next = max(j.next, number+1)
	}
	j.epoch = epoch + 1
	if limit > 0 {
		f, err := j.create(j.next)
		// A node must start on a full disk, too: else nobody could delete anything.
		for errors.Is(err, vfs.ErrNoSpace) && j.limit > smallJournal {
			j.limit = max(j.limit/4, smallJournal)
			f, err = j.create(j.next)
		}
		if err != nil {
			return nil, fmt.Errorf("journal %s: %w", dir, err)
		}
		j.files, j.next, j.current = 1, j.next+1, f
		if err := j.write(nil, batchHeader); err != nil {
			return nil, fmt.Errorf("journal %s: %w", dir, err)
		}
	}
	for _, number := range old {
		if err := st.fs.Remove(filepath.Join(dir, fmt.Sprintf(journalNamesakes, number))); err != nil {
			return nil, err
		}
	}
	if len(old) > 0 {
		if err := st.fs.SyncDir(dir); err != nil {
			return nil, err
		}
	}
	return j, nil
}

// replay plays the journal back. It gives the newest epoch, 0 if there is none, and the numbers of all files. With an
// error that wraps ErrDamaged they are right as far as can be known, and nothing was played back.
func (j *journal) replay(groups string) (epoch uint64, files []int, err error) {
	entries, err := j.st.fs.List(j.dir)
	if err != nil {
		return 0, nil, err
	}
	targets, unread, err := findSegments(j.st, groups)
	if err != nil {
		return 0, nil, err
	}
	j.unread = unread
	content := map[int][]byte{}
	var runs []journalRun
	var bad []int // files whose head is neither good nor void
	var damage error
	for _, e := range entries {
		var number int
		if _, err := fmt.Sscanf(e.Name, journalNamesakes, &number); err != nil || fmt.Sprintf(journalNamesakes, number) != e.Name {
			continue
		}
		files = append(files, number)
		b, err := readFile(j.st, filepath.Join(j.dir, e.Name), 1<<32)
		if err != nil {
			return 0, nil, err
		}
		content[number] = b
		run := leadingRun(b)
		run.number = number
		switch {
		case run.last >= run.first:
			runs = append(runs, run)
			epoch = max(epoch, run.epoch)
		case !allZero(b[:min(len(b), batchHeader)]):
			bad = append(bad, number)
		}
	}
	if len(files) == 0 && len(targets) > 0 && j.limit > 0 {
		damage = fmt.Errorf("%w: there is no journal, and there are segments", ErrDamaged)
	}
	known := func(b journalBatch) bool { return targets.has(b) }
	if len(runs) == 0 {
		// All files were void when the node stopped. What they have further on must stay of an older epoch.
		for _, b := range content {
			epoch = max(epoch, newestEpoch(b))
		}
	}
	runs = slices.DeleteFunc(runs, func(r journalRun) bool { return r.epoch != epoch })
	slices.SortFunc(runs, func(a, b journalRun) int { return int(int64(a.first - b.first)) })
	for i := 1; i < len(runs); i++ {
		if runs[i].first != runs[i-1].last+1 {
			damage = fmt.Errorf("%w: batches %d to %d are missing", ErrDamaged, runs[i-1].last+1, runs[i].first-1)
		}
	}
	// Only the newest batch can be torn: it was never acknowledged. A good one
	// behind a bad one means that acknowledged bytes are damaged.
	newest := journalRun{number: -1}
	if len(runs) > 0 {
		newest = runs[len(runs)-1]
		for number, b := range content {
			from := int64(0)
			if number == newest.number {
				from = newest.end
			}
			if seq, found := laterBatch(b[from:], epoch, newest.last+1, known); found {
				damage = fmt.Errorf("%w: batch %d is not there, batch %d is", ErrDamaged, newest.last+1, seq)
			}
		}
	}
	// The head of a file is void, or good, or that of the newest batch, or the file is of an older epoch.
	last, seen := newest.last, newest.last
	for _, b := range content {
		if len(bad) > 0 {
			last = max(last, newestOf(b, epoch, known))
			seen = max(seen, newestOf(b, epoch, func(journalBatch) bool { return true }))
		}
	}
	for _, number := range bad {
		b := content[number]
		old := headOf(b).epoch != 0 && headOf(b).epoch < epoch && newestOf(b, epoch, known) == 0
		if !old && !begun(b, epoch, last, seen) {
			damage = fmt.Errorf("%w: file %d does not begin with a batch", ErrDamaged, number)
		}
	}
	if damage != nil {
		return epoch, files, damage
	}
	written := map[*replayTarget]bool{}
	defer func() {
		for t := range written {
			t.file.Close()
		}
	}()
	for _, run := range runs {
		for b := content[run.number][:run.end]; len(b) > 0; {
			batch, _ := parseBatch(b)
			b = b[batch.size:]
			err := batch.records(func(id uint64, pos int64, data []byte) error {
				t := targets[id]
				if t == nil {
					return nil // deleted, or cut since: then it was synced
				}
				if t.file == nil {
					if t.file, err = j.st.fs.Open(t.path); err != nil {
						return err
					}
					written[t] = true
				}
				if pos < segmentHeader || pos > 1<<40 {
					return fmt.Errorf("%w: an append at position %d", ErrDamaged, pos)
				}
				_, err := t.file.WriteAt(data, pos)
				return err
			})
			if err != nil {
				return 0, nil, err
			}
		}
	}
	for t := range written {
		if err := j.st.sync(t.file); err != nil {
			return 0, nil, err
		}
	}
	return epoch, files, nil
}

// leadingRun gives the batches of one epoch with consecutive numbers that a file
// begins with.
func leadingRun(b []byte) (run journalRun) {
	run.first = 1 // none
	for at := int64(0); ; {
		batch, ok := parseBatch(b[at:])
		switch {
		case !ok:
			return run
		case at == 0:
			run.epoch, run.first, run.last = batch.epoch, batch.seq, batch.seq
		case batch.epoch != run.epoch || batch.seq != run.last+1:
			return run
		default:
			run.last = batch.seq
		}
		at += batch.size
		run.end = at
	}
}

// headOf gives what the head of a file says, good or not; nothing if it is no batch's.
func headOf(b []byte) (batch journalBatch) {
	if len(b) >= batchHeader && string(b[:4]) == journalMagic {
		batch.epoch, batch.seq = binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])
	}
	return batch
}

// begun reports whether the head of a file that is neither good nor void can be what there is of a write that did not end:
// of the newest batch, or of making the file void. last is the number of the newest good batch, seen that of the newest that may
// be one.
func begun(b []byte, epoch, last, seen uint64) bool {
	if len(b) < batchHeader || allZero(b[:4]) || allZero(b[16:batchHeader]) {
		return true
	}
	head := headOf(b)
	switch head.epoch {
	case epoch: // a file is made void when those before it are: so few batches can be gone
		return isPartOf(head.seq, last+1) || head.seq > last && (seen == 0 || head.seq <= seen+maxJournalFiles+1)
	case epoch + 1:
		return head.seq == 1
	}
	return false
}

// isPartOf reports whether a number is what was written of another, the low bytes first, before a write ended.
func isPartOf(part, whole uint64) bool {
	for bits := 8; bits < 64; bits += 8 {
		if part == whole&(1<<bits-1) {
			return true
		}
	}
	return part == whole
}

// newestOf gives the highest number of a good batch of the epoch anywhere in a file that is for a segment that is there; 0: none.
func newestOf(b []byte, epoch uint64, known func(journalBatch) bool) (seq uint64) {
	for {
		later, found := laterBatch(b, epoch, seq, known)
		if !found {
			return seq
		}
		seq = later
	}
}

// laterBatch looks for a good batch of the epoch with a number above seq, one that is known: what a client writes may look
// like a batch, but no client knows the id of a segment.
func laterBatch(b []byte, epoch, seq uint64, known func(journalBatch) bool) (uint64, bool) {
	for {
		i := bytes.Index(b, []byte(journalMagic))
		if i < 0 {
			return 0, false
		}
		b = b[i:]
		if batch, ok := parseBatch(b); ok && batch.epoch == epoch && batch.seq > seq && known(batch) {
			return batch.seq, true
		}
		b = b[1:]
	}
}

// newestEpoch gives the highest epoch of the good batches anywhere in a file, 0 if there are none.
func newestEpoch(b []byte) (epoch uint64) {
	for {
		i := bytes.Index(b, []byte(journalMagic))
		if i < 0 {
			return epoch
		}
		b = b[i:]
		if batch, ok := parseBatch(b); ok {
			epoch = max(epoch, batch.epoch)
		}
		b = b[1:]
	}
}

type replayTarget struct {
	path string
	file vfs.File
}

// replayTargets are segments by their id.
type replayTargets map[uint64]*replayTarget

// has reports whether a batch has something for one of the segments.
func (t replayTargets) has(b journalBatch) (found bool) {
	err := b.records(func(id uint64, _ int64, _ []byte) error {
		found = found || t[id] != nil
		return nil
	})
	return found && err == nil
}

// findSegments gives the segments below groups, and the folders that have one whose head the disk does not give.
func findSegments(st *Store, groups string) (targets replayTargets, unread map[string]error, err error) {
	targets, unread = replayTargets{}, map[string]error{}
	dirs, err := st.fs.List(groups)
	if errors.Is(err, fs.ErrNotExist) {
		return targets, unread, nil
	}
	if err != nil {
		return nil, nil, err
	}
	for _, d := range dirs {
		if !d.Dir {
			continue
		}
		dir := filepath.Join(groups, d.Name)
		files, err := st.fs.List(dir)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range files {
			if _, _, ok := parseSegmentName(e.Name); !ok || e.Size < segmentHeader {
				continue
			}
			path := filepath.Join(dir, e.Name)
			f, err := st.fs.Open(path)
			if err != nil {
				return nil, nil, err
			}
			id, _, _, _, err := readSegmentHeader(path, f)
			f.Close()
			if errors.Is(err, syscall.EIO) {
				unread[dir] = err
				continue
			}
			if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, io.EOF) {
				return nil, nil, err
			}
			if err == nil {
				targets[id] = &replayTarget{path: path}
			}
		}
	}
	return targets, unread, nil
}
