package raftlog

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// How the vote file is written. One caller at a time does: whoever
// opens it, whoever is committing (Stable.update), whoever closes it.
//
// What must hold (FORMAT.md, "Votes"):
//   - A batch is on stable storage before the next is written, and before anybody is answered.
//   - Another file comes in this one's place, by a rename, only when all that is kept is in it and
//     synced.
//   - After a sync that failed nothing is taken or given any more, by the vote store or by the
//     logs.

// room is how large a file may become that held so much when it was made.
func (s *Stable) room(v votesLayout) int64 {
	return max(s.least, 4*v.base)
}

func (s *Stable) path() string { return filepath.Join(s.dir, s.name) }

// open reads the file, or makes one.
func (s *Stable) open() error {
	d, path := s.disk, s.path()
	if err := d.fs.Remove(path + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b, err := d.readFile(path, maxVotesFile)
	if errors.Is(err, fs.ErrNotExist) {
		s.groups = map[string]memberVotes{}
		return s.rewrite(nil)
	}
	if err != nil {
		return err
	}
	v, groups, torn, err := parseVotesFile(b)
	if err != nil {
		return err
	}
	f, err := d.fs.Open(path)
	if err != nil {
		return err
	}
	if err := s.secure(f, b, v, torn); err != nil {
		f.Close()
		return err
	}
	s.file, s.layout, s.groups, s.limit = f, v, groups, s.room(v)
	return nil
}

// secure makes the end of a file that is there fit to be gone on with. What is left of a batch that
// was never acknowledged goes. The header and the last batch are written again: a disk that failed
// to write them may have left them in the page cache alone (see disk), and so may the file's
// name.
func (s *Stable) secure(f vfs.File, b []byte, v votesLayout, torn bool) error {
	if torn {
		s.disk.logger.Info("the torn end of the vote file is cut off", "file", s.path(), "at", v.end)
		clear(b[v.end:])
		if _, err := f.WriteAt(b[v.end:], v.end); err != nil { // there is room: the bytes are there
			return err
		}
	}
	if _, err := f.WriteAt(b[v.last:v.end], v.last); err != nil {
		return err
	}
	if _, err := f.WriteAt(b[:votesHeader], 0); err != nil {
		return err
	}
	if err := s.disk.sync(f); err != nil {
		return err
	}
	return s.disk.syncDir(s.dir)
}

// write brings what is kept of some raft groups from now on to stable storage. After an error that
// is vfs.ErrNoSpace nothing of it is there; after any other one the store has failed.
func (s *Stable) write(next map[string]memberVotes) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.file == nil {
		return errClosed
	}
	err := s.append(next)
	if err == nil {
		s.publish(next)
	} else if !errors.Is(err, vfs.ErrNoSpace) {
		s.disk.fail(fmt.Errorf("%s: %w", s.path(), err))
	}
	return err
}

// publish makes readers see what is on stable storage.
func (s *Stable) publish(next map[string]memberVotes) {
	s.state.Lock()
	defer s.state.Unlock()
	for name, votes := range next {
		if votes == nil {
			delete(s.groups, name)
		} else {
			s.groups[name] = votes
		}
	}
}

func (s *Stable) append(next map[string]memberVotes) error {
	if err := s.disk.failed(); err != nil {
		return err
	}
	changes := layOut(next)
	if s.layout.end+int64(ballotHeader+len(changes)) > s.limit {
		err := s.rewrite(next)
		if err == nil || !errors.Is(err, vfs.ErrNoSpace) && !vfs.OutOfFiles(err) || s.disk.failed() != nil {
			return err
		}
		s.limit *= 2 // a full disk, or no descriptor: this file goes on meanwhile
	}
	v := s.layout
	at := v.end
	if _, err := s.file.WriteAt(v.appendBallot(nil, changes, len(next)), at); err != nil {
		return err // what is written of it, if it did not fit, the next one comes over
	}
	if err := s.disk.sync(s.file); err != nil {
		return err
	}
	s.layout = v
	return nil
}

// layOut gives what is kept of raft groups as it is written, in one order.
func layOut(groups map[string]memberVotes) (changes []byte) {
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		changes = appendChange(changes, name, groups[name])
	}
	return changes
}

// rewrite puts a file that holds what is kept, and what is kept of some raft groups from now on, in
// place of the one before.
func (s *Stable) rewrite(next map[string]memberVotes) error {
	all := maps.Clone(s.groups)
	maps.Copy(all, next)
	maps.DeleteFunc(all, func(_ string, votes memberVotes) bool { return votes == nil })
	v := votesLayout{secret: newSecret(), end: votesHeader}
	b := encodeVotes(&v, all)
	v.size = s.room(v)
	if v.size > maxVotesFile/2 {
		return fmt.Errorf("the votes of %d groups take %d bytes", len(all), v.end)
	}
	fresh := s.path() + ".new"
	f, err := s.disk.create(fresh)
	if err != nil {
		return err
	}
	if err = f.Allocate(v.size); errors.Is(err, vfs.ErrNoSpace) {
		v.size, err = v.end, nil // it may go without room ahead
	}
	copy(b, v.header())
	if err == nil {
		_, err = f.WriteAt(b, 0)
	}
	if err == nil {
		err = s.disk.sync(f)
	}
	if err == nil {
		err = s.disk.fs.Rename(fresh, s.path())
	}
	if err != nil {
		f.Close()
		s.disk.fs.Remove(fresh)
		return err
	}
	if err := s.disk.syncDir(s.dir); err != nil {
		// The new one may be in place or not.
		s.disk.fail(err)
		f.Close()
		return err
	}
	if s.file != nil {
		s.file.Close()
	}
	s.file, s.layout, s.limit = f, v, s.room(v)
	return nil
}

// encodeVotes lays out a file that holds these raft groups, with room for its header, and says
// where it ends.
func encodeVotes(v *votesLayout, groups map[string]memberVotes) []byte {
	b := make([]byte, votesHeader)
	var changes []byte
	count := 0
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		changes = appendChange(changes, name, groups[name])
		if count++; len(changes) >= splitBallot {
			b = v.appendBallot(b, changes, count)
			changes, count = nil, 0
		}
	}
	if count > 0 || v.seq == 0 {
		b = v.appendBallot(b, changes, count)
	}
	v.base = v.end
	return b
}

// Close closes the file. An empty batch ends it, behind which nothing of the last one can be
// taken for torn at the next start.
func (s *Stable) Close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.file == nil {
		return nil
	}
	if s.disk.failed() == nil {
		v := s.layout
		at := v.end
		// Without it the next start knows less, and no more.
		if _, err := s.file.WriteAt(v.appendBallot(nil, nil, 0), at); err == nil && s.disk.sync(s.file) == nil {
			s.layout = v
		}
	}
	err := s.file.Close()
	s.file = nil
	return err
}
