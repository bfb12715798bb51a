package raftlog

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// openJournal plays back what the journal in the folder dir has into the segments, which it finds
// below raft groups, and begins a new epoch. noted is what the store noted when it was closed;
// stamped says that new files are of format 2, as they are if there is one, which the answer says
// of segments, too.
func openJournal(d *disk, dir, groups string, limit int64, noted closed, stamped bool) (*journal, bool, error) {
	wrap := func(err error) error { return fmt.Errorf("journal %s: %w", dir, err) }
	if err := d.fs.MkdirAll(dir); err != nil {
		return nil, false, err
	}
	if err := d.syncDir(filepath.Dir(dir)); err != nil {
		return nil, false, err
	}
	r := newReplay(d, dir)
	r.wanted = limit > 0
	epoch, old, err := r.run(groups)
	stamped = stamped || r.stamped
	if err = r.settle(err, noted.settles(epoch, old), groups); err != nil {
		return nil, false, wrap(err)
	}
	d.logger.Debug("the journal was played back", "files", len(old), "epoch", epoch, "hashed", r.hashed)
	j := &journal{
		disk: d, epoch: epoch + 1, replayed: r.hashed,
		files: &journalFiles{disk: d, dir: dir, limit: limit, stamped: stamped, freed: make(chan struct{}, 1)},
	}
	for _, number := range old {
		j.files.next = max(j.files.next, number+1)
	}
	if limit > 0 {
		if err := j.begin(); err != nil {
			return nil, false, wrap(err)
		}
	}
	for _, number := range old {
		if err := d.fs.Remove(filepath.Join(dir, fmt.Sprintf(journalNamesakes, number))); err != nil {
			return nil, false, err
		}
	}
	if len(old) > 0 {
		if err := d.syncDir(dir); err != nil {
			return nil, false, err
		}
	}
	return j, stamped, nil
}

// begin makes the first file of the new epoch: until its first batch is on stable storage, the old
// ones count, and must stay whole.
func (j *journal) begin() error {
	f, err := j.files.turnOver(nil)
	// A node must start on a full disk, too: else nobody could delete anything.
	for errors.Is(err, vfs.ErrNoSpace) && j.files.limit > smallJournal {
		j.files.limit = max(j.files.limit/4, smallJournal)
		f, err = j.files.turnOver(nil)
	}
	if err != nil {
		return err
	}
	j.current = f
	return j.write(nil, f.form.header())
}

// replay plays a journal back at a start.
type replay struct {
	disk   *disk
	dir    string // of the journal
	wanted bool   // where there are segments there must be a journal

	stamped bool             // something is of format 2
	unread  map[string]error // folders of segments that could not be read
	hashed  int64            // bytes that checksums were computed over
}

func newReplay(d *disk, dir string) *replay {
	return &replay{disk: d, dir: dir, unread: map[string]error{}}
}

// settle says what the outcome of a replay means: where acknowledged entries may be gone, the logs
// are refused from now on. settled: the journal was not needed any more.
func (r *replay) settle(err error, settled bool, groups string) error {
	if errors.Is(err, ErrDamaged) {
		// Nobody knows whose appends are gone. If all segments were synced since, nobody's are.
		if settled {
			r.disk.logger.Warn("the journal is damaged, and was not needed any more", "error", err)
			err = nil
		} else {
			err = r.disk.suspectAll(groups, fmt.Errorf("journal %s: %w", r.dir, err))
		}
	}
	for dir, cause := range r.unread {
		// What the journal had for it cannot be kept. After a stop in good order that was nothing.
		if err == nil && !settled {
			err = r.disk.suspect(dir, cause)
		}
	}
	return err
}

// journalNumbers gives the numbers of the files that there are, in order.
func (r *replay) journalNumbers() (numbers []int, err error) {
	entries, err := r.disk.fs.List(r.dir)
	for _, e := range entries {
		var number int
		if _, err := fmt.Sscanf(e.Name, journalNamesakes, &number); err == nil && fmt.Sprintf(journalNamesakes, number) == e.Name {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	return numbers, err
}

// run plays the journal back. It gives the newest epoch, 0 if there is none, and the numbers of all
// files. With an error that wraps ErrDamaged they are right as far as can be known, and nothing was
// played back.
//
// It reads all files to their torn ends before it changes anything, and then once more. What it
// holds in memory is a batch at a time.
func (r *replay) run(groups string) (epoch uint64, files []int, err error) {
	if files, err = r.journalNumbers(); err != nil {
		return 0, nil, err
	}
	targets, err := r.findSegments(groups)
	if err != nil {
		return 0, nil, err
	}
	var inputs, runs []*journalInput
	var buf []byte
	defer func() {
		for _, in := range inputs {
			in.file.Close()
		}
	}()
	for _, number := range files {
		in, err := r.openInput(number, &buf)
		if err != nil {
			return 0, nil, err
		}
		inputs = append(inputs, in)
		if in.run, err = in.batches(r, func(journalBatch) error { return nil }); err != nil {
			return 0, nil, err
		}
		in.have = nil
		if in.form.stamped {
			r.stamped = true
		}
		if in.run.last >= in.run.first {
			runs = append(runs, in)
			epoch = max(epoch, in.run.epoch)
		}
	}
	if len(runs) == 0 {
		// All files were void when the node stopped. What they have further on must stay of an
		// older epoch.
		for _, in := range inputs {
			found, err := in.search(r, 0, targets)
			in.have = nil
			if err != nil {
				return 0, nil, err
			}
			epoch = max(epoch, found.epoch)
		}
	}
	runs = slices.DeleteFunc(runs, func(in *journalInput) bool { return in.run.epoch != epoch })
	slices.SortFunc(runs, func(a, b *journalInput) int { return cmp.Compare(a.run.first, b.run.first) })
	damage, err := r.judge(inputs, runs, epoch, targets)
	if err != nil {
		return 0, nil, err
	}
	if len(files) == 0 && len(targets) > 0 && r.wanted {
		damage = fmt.Errorf("%w: there is no journal, and there are segments", ErrDamaged)
	}
	if damage != nil {
		return epoch, files, damage
	}
	return epoch, files, r.playBack(runs, targets)
}

// judge says what is damaged of the journal: nil if nothing is. runs are the inputs that begin with
// batches of the newest epoch, in order.
func (r *replay) judge(inputs, runs []*journalInput, epoch uint64, targets replayTargets) (damage, err error) {
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
		f, err := in.search(r, epoch, targets)
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
	// The head of a file is void, or good, or that of the newest batch, or the file is of an older
	// epoch.
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
func (r *replay) playBack(runs []*journalInput, targets replayTargets) error {
	written := map[*replayTarget]bool{}
	defer func() {
		for t := range written {
			t.file.Close()
		}
	}()
	for _, in := range runs {
		run, err := in.batches(r, func(batch journalBatch) error {
			return batch.records(func(id uint64, pos int64, data []byte) (err error) {
				t := targets[id]
				if t == nil {
					return nil // deleted, or cut since: then it was synced
				}
				if t.file == nil {
					if t.file, err = r.disk.fs.Open(t.path); err != nil {
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
		if err := r.disk.sync(t.file); err != nil {
			return err
		}
	}
	return nil
}

type replayTarget struct {
	path string
	file vfs.File
}

// replayTargets are segments by their id.
type replayTargets map[uint64]*replayTarget

// findSegments gives the segments below raft groups, and notes the folders that have one whose head
// the disk does not give.
func (r *replay) findSegments(groups string) (replayTargets, error) {
	targets := replayTargets{}
	dirs, err := r.disk.fs.List(groups)
	if errors.Is(err, fs.ErrNotExist) {
		return targets, nil
	}
	if err != nil {
		return nil, err
	}
	for _, d := range dirs {
		if !d.Dir {
			continue
		}
		if err := r.findIn(filepath.Join(groups, d.Name), targets); err != nil {
			return nil, err
		}
	}
	return targets, nil
}

// findIn adds the segments in the folder of a log.
func (r *replay) findIn(dir string, targets replayTargets) error {
	files, err := r.disk.fs.List(dir)
	if err != nil {
		return err
	}
	for _, e := range files {
		if _, ok := parseSegmentName(e.Name); !ok || e.Size < segmentHeader {
			continue
		}
		path := filepath.Join(dir, e.Name)
		f, err := r.disk.fs.Open(path)
		if err != nil {
			return err
		}
		head, err := readSegmentHeader(path, f)
		f.Close()
		if errors.Is(err, syscall.EIO) {
			r.unread[dir] = err
			continue
		}
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, io.EOF) {
			return err
		}
		if err == nil {
			targets[head.id] = &replayTarget{path: path}
			r.stamped = r.stamped || head.framing.stamped
		}
	}
	return nil
}
