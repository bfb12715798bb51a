package raftlog

import (
	"cmp"
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
	epoch       uint64
	first, last uint64 // sequence numbers; last < first: none
	end         int64  // position behind them
}

// journalBatch is a batch as it was read.
type journalBatch struct {
	epoch, seq uint64
	crc        uint32
	count      uint32
	bytes      int64 // of the body
	body       []byte
}

// parse reads the header of a batch that is at pos. ok is false if it can be none; its CRC is not
// verified yet.
func (l batching) parse(b []byte, pos int64) (batch journalBatch, ok bool) {
	magic := batchMagic1
	if l.stamped {
		magic = batchMagic2
	}
	le := binary.LittleEndian
	if len(b) < l.header() || string(b[:4]) != magic || l.stamped && le.Uint64(b[batchHeader:]) != stamp(l.secret, pos) {
		return batch, false
	}
	batch = journalBatch{crc: le.Uint32(b[4:]), epoch: le.Uint64(b[8:]), seq: le.Uint64(b[16:]), bytes: int64(le.Uint32(b[24:])), count: le.Uint32(b[28:])}
	return batch, batch.bytes <= maxJournalBatch && batch.bytes%frameAlign == 0 && int64(batch.count)*recordHeader <= batch.bytes
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

// journalInput is a file of the journal as a start finds it.
type journalInput struct {
	number int
	path   string
	file   vfs.File
	size   int64
	form   batching
	lost   bool   // its header is damaged, and it has been written
	head   []byte // what the header of its first batch should be
	run    journalRun

	buf  *[]byte // all have the same, as large as the largest batch
	have []byte  // what is in it, from at on; nil: it may be in use for another one
	at   int64
}

// openInput opens a file of the journal and reads its header.
func (j *journal) openInput(number int, buf *[]byte) (*journalInput, error) {
	in := &journalInput{number: number, buf: buf, path: filepath.Join(j.dir, fmt.Sprintf(journalNamesakes, number))}
	var err error
	if in.file, err = j.st.fs.Open(in.path); err != nil {
		return nil, err
	}
	if err := in.readHead(); err != nil {
		in.file.Close()
		return nil, err
	}
	return in, nil
}

func (in *journalInput) readHead() (err error) {
	if in.size, err = in.file.Size(); err != nil {
		return err
	}
	b, err := in.bytes(0, journalHeader)
	if err != nil {
		return err
	}
	if len(b) == journalHeader && string(b[:7]) == journalMagic[:7] {
		good := crc32.Checksum(b[:journalHeader-4], castagnoli) == binary.LittleEndian.Uint32(b[journalHeader-4:])
		if good && b[7] > journalMagic[7] {
			return fmt.Errorf("%s: %w: format %d", in.path, ErrVersion, b[7])
		}
		in.form = batching{stamped: true, secret: binary.LittleEndian.Uint64(b[16:])}
		in.lost = !good || b[7] != journalMagic[7]
	}
	head, err := in.bytes(in.form.start(), in.form.header())
	in.head = slices.Clone(head)
	if allZero(in.head) {
		in.lost = false // it was being made, and has no batch
	}
	return err
}

// bytes gives n bytes at a position, fewer if the file ends before. They are valid until the next call.
func (in *journalInput) bytes(pos int64, n int) ([]byte, error) {
	n = int(max(min(int64(n), in.size-pos), 0))
	if pos < in.at || pos+int64(n) > in.at+int64(len(in.have)) {
		want := int(min(int64(max(n, walkChunk)), in.size-pos))
		if cap(*in.buf) < want {
			*in.buf = make([]byte, want)
		}
		got, err := in.file.ReadAt((*in.buf)[:want], pos)
		if in.have, in.at = (*in.buf)[:got], pos; got < n {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // it is shorter than a moment ago
			}
			return nil, fmt.Errorf("read %s: %w", in.path, err)
		}
	}
	return in.have[pos-in.at:][:n], nil
}

// batch reads the batch at pos. ok is false if there is no good one.
func (in *journalInput) batch(j *journal, pos int64) (batch journalBatch, ok bool, err error) {
	header := in.form.header()
	b, err := in.bytes(pos, header)
	if err != nil {
		return batch, false, err
	}
	batch, ok = in.form.parse(b, pos)
	if !ok || in.lost || batch.bytes > in.size-pos-int64(header) {
		return batch, false, nil
	}
	if b, err = in.bytes(pos, header+int(batch.bytes)); err != nil {
		return batch, false, err
	}
	j.hashed += int64(len(b)) - 8
	batch.body = b[header:]
	return batch, crc32.Checksum(b[8:], castagnoli) == batch.crc, nil
}

// batches calls fn for the batches of one epoch with consecutive numbers that the file begins with.
func (in *journalInput) batches(j *journal, fn func(journalBatch) error) (run journalRun, err error) {
	run.first = 1 // none
	run.end = in.form.start()
	for first := true; ; first = false {
		batch, ok, err := in.batch(j, run.end)
		if err != nil || !ok || !first && (batch.epoch != run.epoch || batch.seq != run.last+1) {
			return run, err
		}
		if first {
			run.epoch, run.first = batch.epoch, batch.seq
		}
		run.last = batch.seq
		run.end += int64(in.form.header()) + batch.bytes
		if err := fn(batch); err != nil {
			return run, err
		}
	}
}

// later is what a file of the journal has somewhere behind the batches that it begins with.
type later struct {
	epoch uint64 // the highest, of batches that are ours
	seq   uint64 // the highest in the epoch that was asked for, of batches that are ours; 0: none
	seen  uint64 // the same, of what may be one
}

// search looks for good batches anywhere behind the run. What a client wrote may look like one of format 1. One
// is ours if it has the id of a segment, which no client knows. In format 2 it is the stamp that no client knows,
// and nothing else is looked at.
func (in *journalInput) search(j *journal, epoch uint64, targets replayTargets) (found later, err error) {
	if in.lost {
		return found, nil
	}
	ours := int64(-1) // where the id of a segment was seen last
	look := func(at int64, b []byte) (c claim, ok bool) {
		if !in.form.stamped && len(b) >= 8 && targets[binary.LittleEndian.Uint64(b)] != nil {
			ours = at
		}
		batch, ok := in.form.parse(b, at)
		if !ok {
			return c, false
		}
		return claim{at: at, skip: 8, to: at + int64(in.form.header()) + batch.bytes, crc: batch.crc, tag: batch.seq}, true
	}
	var failed error
	hashed, err := sweep(in.file, in.run.end, in.size, in.form.header(), look, func(c claim) bool {
		b, err := in.bytes(c.at, in.form.header())
		if err != nil {
			failed = err
			return false
		}
		batch, _ := in.form.parse(b, c.at)
		known := in.form.stamped || ours > c.at
		if known {
			found.epoch = max(found.epoch, batch.epoch)
		}
		if batch.epoch == epoch {
			found.seen = max(found.seen, batch.seq)
			if known {
				found.seq = max(found.seq, batch.seq)
			}
		}
		return true
	})
	j.hashed += hashed
	return found, errors.Join(err, failed)
}

// openJournal plays back what the journal has into the segments, which it finds
// below groups, and begins a new epoch.
func openJournal(st *Store, dir, groups string, limit int64) (*journal, error) {
	if err := st.fs.MkdirAll(dir); err != nil {
		return nil, err
	}
	if err := st.syncDir(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	j := &journal{
		st: st, dir: dir, limit: limit,
		wake: make(chan struct{}, 1), quit: make(chan struct{}), freed: make(chan struct{}, 1),
	}
	epoch, old, err := j.replay(groups)
	if errors.Is(err, ErrDamaged) {
		// Nobody knows whose appends are gone. If all segments were synced since, nobody's are.
		if st.closed.settles(epoch, old) {
			st.logger.Warn("the journal is damaged, and was not needed any more", "error", err)
			err = nil
		} else {
			err = st.distrust(fmt.Errorf("journal %s: %w", dir, err))
		}
	}
	for dir, cause := range j.unread {
		// What the journal had for it cannot be kept. After a stop in good order that was nothing.
		if err == nil && !st.closed.settles(epoch, old) {
			err = writeFile(st, dir, suspectName, []byte(cause.Error()+"\n"))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("journal %s: %w", dir, err)
	}
	st.logger.Debug("the journal was played back", "files", len(old), "epoch", epoch, "hashed", j.hashed)
	// The new epoch begins in a new file: until its first batch is on stable
	// storage, the old ones count, and must stay whole.
	for _, number := range old {
		j.next = max(j.next, number+1)
	}
	j.epoch, j.stamped = epoch+1, st.stamping()
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
		if err := j.write(nil, f.form.header()); err != nil {
			return nil, fmt.Errorf("journal %s: %w", dir, err)
		}
	}
	for _, number := range old {
		if err := st.fs.Remove(filepath.Join(dir, fmt.Sprintf(journalNamesakes, number))); err != nil {
			return nil, err
		}
	}
	if len(old) > 0 {
		if err := st.syncDir(dir); err != nil {
			return nil, err
		}
	}
	return j, nil
}

// journalNumbers gives the numbers of the files that there are, in order.
func (j *journal) journalNumbers() (numbers []int, err error) {
	entries, err := j.st.fs.List(j.dir)
	for _, e := range entries {
		var number int
		if _, err := fmt.Sscanf(e.Name, journalNamesakes, &number); err == nil && fmt.Sprintf(journalNamesakes, number) == e.Name {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	return numbers, err
}

// replay plays the journal back. It gives the newest epoch, 0 if there is none, and the numbers of all files. With an
// error that wraps ErrDamaged they are right as far as can be known, and nothing was played back.
//
// It reads all files to their torn ends before it changes anything, and then once more. What it holds in memory is a
// batch at a time.
func (j *journal) replay(groups string) (epoch uint64, files []int, err error) {
	if files, err = j.journalNumbers(); err != nil {
		return 0, nil, err
	}
	targets, unread, err := findSegments(j.st, groups)
	if err != nil {
		return 0, nil, err
	}
	j.unread = unread
	var inputs, runs []*journalInput
	var buf []byte
	defer func() {
		for _, in := range inputs {
			in.file.Close()
		}
	}()
	for _, number := range files {
		in, err := j.openInput(number, &buf)
		if err != nil {
			return 0, nil, err
		}
		inputs = append(inputs, in)
		if in.run, err = in.batches(j, func(journalBatch) error { return nil }); err != nil {
			return 0, nil, err
		}
		in.have = nil
		if in.form.stamped {
			j.st.stamped.Store(true)
		}
		if in.run.last >= in.run.first {
			runs = append(runs, in)
			epoch = max(epoch, in.run.epoch)
		}
	}
	if len(runs) == 0 {
		// All files were void when the node stopped. What they have further on must stay of an older epoch.
		for _, in := range inputs {
			found, err := in.search(j, 0, targets)
			in.have = nil
			if err != nil {
				return 0, nil, err
			}
			epoch = max(epoch, found.epoch)
		}
	}
	runs = slices.DeleteFunc(runs, func(in *journalInput) bool { return in.run.epoch != epoch })
	slices.SortFunc(runs, func(a, b *journalInput) int { return cmp.Compare(a.run.first, b.run.first) })
	damage, err := j.judge(inputs, runs, epoch, targets)
	if err != nil {
		return 0, nil, err
	}
	if len(files) == 0 && len(targets) > 0 && j.limit > 0 {
		damage = fmt.Errorf("%w: there is no journal, and there are segments", ErrDamaged)
	}
	if damage != nil {
		return epoch, files, damage
	}
	return epoch, files, j.playBack(runs, targets)
}

// judge says what is damaged of the journal: nil if nothing is. runs are the inputs that begin with
// batches of the newest epoch, in order.
func (j *journal) judge(inputs, runs []*journalInput, epoch uint64, targets replayTargets) (damage, err error) {
	for i := 1; i < len(runs); i++ {
		if last, first := runs[i-1].run.last, runs[i].run.first; first != last+1 {
			damage = fmt.Errorf("%w: batches %d to %d are missing", ErrDamaged, last+1, first-1)
		}
	}
	newest := uint64(0) // good batch
	if len(runs) > 0 {
		newest = runs[len(runs)-1].run.last
	}
	last, seen := newest, newest
	found := map[*journalInput]later{}
	for _, in := range inputs {
		f, err := in.search(j, epoch, targets)
		if err != nil {
			return nil, err
		}
		in.have = nil
		found[in] = f
		last, seen = max(last, f.seq), max(seen, f.seen)
		// Only the newest batch can be torn: it was never acknowledged. A good one
		// behind a bad one means that acknowledged bytes are damaged.
		if len(runs) > 0 && f.seq > newest {
			damage = fmt.Errorf("%w: batch %d is not there, batch %d is", ErrDamaged, newest+1, f.seq)
		}
	}
	// The head of a file is void, or good, or that of the newest batch, or the file is of an older epoch.
	for _, in := range inputs {
		if in.run.last >= in.run.first || allZero(in.head) {
			continue
		}
		head := in.form.headOf(in.head)
		old := head.epoch != 0 && head.epoch < epoch && found[in].seq == 0
		if in.lost || !old && !in.form.begun(in.head, epoch, last, seen) {
			damage = fmt.Errorf("%w: file %d does not begin with a batch", ErrDamaged, in.number)
		}
	}
	return damage, nil
}

// playBack writes what the batches have into the segments, and syncs these.
func (j *journal) playBack(runs []*journalInput, targets replayTargets) error {
	written := map[*replayTarget]bool{}
	defer func() {
		for t := range written {
			t.file.Close()
		}
	}()
	for _, in := range runs {
		run, err := in.batches(j, func(batch journalBatch) error {
			return batch.records(func(id uint64, pos int64, data []byte) (err error) {
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
				_, err = t.file.WriteAt(data, pos)
				return err
			})
		})
		in.have = nil
		if err != nil {
			return err
		}
		if run != in.run {
			return fmt.Errorf("%s does not read the same twice", in.path)
		}
	}
	for t := range written {
		if err := j.st.sync(t.file); err != nil {
			return err
		}
	}
	return nil
}

// headOf gives what the head of a file says, good or not; nothing if it is no batch's.
func (l batching) headOf(b []byte) (batch journalBatch) {
	magic := batchMagic1
	if l.stamped {
		magic = batchMagic2
	}
	if len(b) >= l.header() && string(b[:4]) == magic {
		batch.epoch, batch.seq = binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])
	}
	return batch
}

// begun reports whether the head of a file that is neither good nor void can be what there is of a write that did not end:
// of the newest batch, or of making the file void. last is the number of the newest good batch, seen that of the newest that may
// be one.
func (l batching) begun(b []byte, epoch, last, seen uint64) bool {
	if len(b) < l.header() || allZero(b[:4]) || allZero(b[16:batchHeader]) {
		return true
	}
	head := l.headOf(b)
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

type replayTarget struct {
	path string
	file vfs.File
}

// replayTargets are segments by their id.
type replayTargets map[uint64]*replayTarget

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
			head, err := readSegmentHeader(path, f)
			f.Close()
			if errors.Is(err, syscall.EIO) {
				unread[dir] = err
				continue
			}
			if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, io.EOF) {
				return nil, nil, err
			}
			if err == nil {
				targets[head.id] = &replayTarget{path: path}
				if head.framing.stamped {
					st.stamped.Store(true)
				}
			}
		}
	}
	return targets, unread, nil
}
