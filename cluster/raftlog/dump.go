package raftlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// Archive is the partition logs of a stopped node, to be looked at and never
// changed: files are opened for reading alone. What the journal would bring to
// segments at the next start is shown as if it were there.
type Archive struct {
	st *Store
	// JournalErr says what is wrong with the journal.
	JournalErr error
	// journalLost says that it takes the logs of all partitions along.
	journalLost bool
}

// OpenArchive opens the store in the folder dir. No process may be writing to it.
func OpenArchive(dir string) (*Archive, error) {
	return openArchive(vfs.OS, func(name string) (readable, error) {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		return osReadable{f}, nil
	}, dir)
}

// OpenArchiveOn is OpenArchive on another file system. Files are opened as that opens them, and
// only read.
func OpenArchiveOn(fsys vfs.FS, dir string) (*Archive, error) {
	return openArchive(fsys, func(name string) (readable, error) { return fsys.Open(name) }, dir)
}

func openArchive(base vfs.FS, open func(string) (readable, error), dir string) (*Archive, error) {
	d := &disk{fs: &readOnly{base: base, open: open, patches: map[string][]patch{}}, logger: slog.New(slog.DiscardHandler)}
	if _, err := d.fs.List(dir); err != nil {
		return nil, err
	}
	st := newStore(dir, d, 0, 0)
	a := &Archive{st: st}
	st.noted = readClosed(d, dir)
	epoch, files, err := newReplay(d, filepath.Join(dir, "journal")).run(st.Groups())
	switch {
	case err == nil || errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, ErrDamaged) && st.noted.settles(epoch, files):
		a.JournalErr = fmt.Errorf("journal: %w (the node was stopped in good order and does not need it)", err)
	case errors.Is(err, ErrDamaged):
		a.journalLost = true
		a.JournalErr = fmt.Errorf("journal: %w (the node copies all of its partitions from others when it starts)", err)
	default:
		a.journalLost = true
		a.JournalErr = fmt.Errorf("journal: %w", err)
	}
	return a, nil
}

// CatalogLog is the name, and the folder beside those of the partitions, of the catalog's log.
const CatalogLog = "catalog"

// folder gives where a log is.
func (a *Archive) folder(name string) string {
	if name == CatalogLog {
		return filepath.Join(a.st.dir, name)
	}
	return filepath.Join(a.st.Groups(), name)
}

// HasCatalog reports whether the catalog's log is there. A program with bbolt files keeps it
// otherwise.
func (a *Archive) HasCatalog() bool {
	files, err := a.st.fs.List(a.folder(CatalogLog))
	return err == nil && slices.ContainsFunc(files, func(e vfs.Entry) bool { return e.Name == manifestName })
}

// ArchivedVotes is what a raft group has voted. Its fields are 0 and "" where nothing is stored.
type ArchivedVotes struct {
	Group     string `json:"group"`
	Term      uint64 `json:"term"`
	VoteTerm  uint64 `json:"vote_term"`
	Candidate string `json:"candidate"`
	Created   bool   `json:"created"`           // this node has a member of the raft group
	Anew      bool   `json:"anew"`              // which had none once
	Damaged   string `json:"damaged,omitempty"` // what is wrong; nothing else is known then
}

// Votes gives what all raft groups have voted, by name; nothing where there is no vote file. The
// error is why that cannot be known.
func (a *Archive) Votes() (all []ArchivedVotes, err error) {
	path := filepath.Join(a.st.dir, votesName)
	b, err := a.st.readFile(path, maxVotesFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_, groups, _, err := parseVotesFile(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		votes := groups[name]
		all = append(all, ArchivedVotes{
			Group: name, Term: votes.number(keyTerm), VoteTerm: votes.number(keyVoteTerm), Candidate: string(votes[keyVoteCandidate]),
			Created: votes[createdKey] != nil, Anew: votes[anewKey] != nil, Damaged: string(votes[damagedKey]),
		})
	}
	return all, nil
}

// Groups gives the names of the partitions' folders, and the bytes of the
// segment files in each.
func (a *Archive) Groups() (names []string, bytes map[string]int64, err error) {
	dirs, err := a.st.fs.List(a.st.Groups())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	bytes = map[string]int64{}
	for _, d := range dirs {
		if !d.Dir {
			continue
		}
		files, err := a.st.fs.List(filepath.Join(a.st.Groups(), d.Name))
		if err != nil {
			return nil, nil, err
		}
		for _, f := range files {
			if _, ok := parseSegmentName(f.Name); ok {
				bytes[d.Name] += f.Size
			}
		}
		names = append(names, d.Name)
	}
	return names, bytes, nil
}

// ArchivedLog is what the manifest and the heads of the files say of a log.
type ArchivedLog struct {
	Group      string `json:"group"`
	Generation uint32 `json:"generation"`
	// index that the log begins at, 0: its first segment's
	First    uint64            `json:"first"`
	Snapshot *ArchivedSnapshot `json:"snapshot,omitempty"` // nil: none
	Segments []ArchivedSegment `json:"segments"`
}

// ArchivedSnapshot is the snapshot in a manifest.
type ArchivedSnapshot struct {
	Index      uint64 `json:"index"`
	Term       uint64 `json:"term"`
	NextOffset int64  `json:"next_offset"`
	StateBytes int    `json:"state_bytes"`
}

// ArchivedSegment is one segment as the manifest knows it.
type ArchivedSegment struct {
	File      string `json:"file"`
	Base      uint64 `json:"base"`       // Raft index of the first entry
	Last      uint64 `json:"last"`       // 0: it was written to
	Start     int64  `json:"start"`      // offset of its first record; -1: not known
	Bytes     int64  `json:"bytes"`      // of the file
	MaxTime   int64  `json:"max_time"`   // ms; 0: no records
	LastWrite int64  `json:"last_write"` // ms; 0: no records
	Index     string `json:"index"`      // "final", "growing"
}

// open reads the manifest and the heads of the segment files.
func (a *Archive) open(name string) (*recovery, error) {
	l := &recovery{home: &home{st: a.st, dir: a.folder(name), opts: LogOptions{Group: name}}}
	m, err := readManifest(a.st.disk, l.dir)
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, fmt.Errorf("%w: there is no manifest", ErrLost)
	}
	if m.Group != name {
		return nil, fmt.Errorf("the manifest is that of %s", m.Group)
	}
	l.manifest = m
	if err := l.collect(); err != nil {
		l.segments.drop()
		return nil, err
	}
	return l, nil
}

// Describe gives a log's segments.
func (a *Archive) Describe(name string) (*ArchivedLog, error) {
	l, err := a.open(name)
	if err != nil {
		return nil, err
	}
	defer l.segments.drop()
	out := &ArchivedLog{Group: l.manifest.Group, Generation: l.manifest.Generation, First: l.manifest.First}
	if s := l.manifest.Snapshot; s != nil {
		out.Snapshot = &ArchivedSnapshot{s.Index, s.Term, s.Next, len(l.manifest.state)}
	}
	for i, s := range l.segments {
		segment := ArchivedSegment{File: filepath.Base(s.path), Base: s.base, Start: s.start, Bytes: s.allocated, LastWrite: s.lastWrite, Index: "growing"}
		if s.sealed {
			segment.Last = s.last
		}
		if s.maxTime != noTime {
			segment.MaxTime = s.maxTime
		}
		if i < len(l.manifest.Segments) && l.manifest.Segments[i].Final {
			segment.Index = "final"
		}
		out.Segments = append(out.Segments, segment)
	}
	return out, nil
}

// Entries calls fn for the entries of the segment that begins with index base, in
// order, with their position in its file, until one is not whole: that is the
// segment's end if it was written to, and an error if not. data are valid until
// fn returns.
func (a *Archive) Entries(name string, base uint64, fn func(pos int64, entry *raft.Log) error) error {
	l, err := a.open(name)
	if err != nil {
		return err
	}
	defer l.segments.drop()
	for _, s := range l.segments {
		if s.base != base {
			continue
		}
		f, err := s.handle.acquire()
		if err != nil {
			return err
		}
		defer s.handle.release()
		limit := s.allocated
		if s.sealed {
			limit = s.end
		}
		c := chainCheck{w: newWalker(f, s.framing, segmentHeader, limit, walkChunk), index: s.base - 1, chain: s.seed}
		for {
			pos := c.w.pos
			fr, b, err := c.next()
			if errors.Is(err, io.EOF) || !s.sealed && errors.Is(err, ErrDamaged) {
				return nil
			}
			if err != nil {
				return err
			}
			entry := fr.entry(b)
			if err := fn(pos, &entry); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("%w: no segment begins with entry %d", ErrNotInLog, base)
}
